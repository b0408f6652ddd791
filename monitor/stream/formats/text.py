"""JSON within strings, and strings that no database takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from monitor.stream.formats.content import read_turns
from monitor.stream.formats.inner import is_blob
from monitor.stream.formats.reading import Reading

# Fields of turns and parts that hold no text of the conversation.
_ABOUT = frozenset(
    ("role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "name", "finish_reason", "status", "detail")
)
_ROLES = frozenset(("role", "author", "from", "speaker", "sender"))
_NAMES_OF_TURNS = _ROLES | {"content", "parts", "type", "tool_calls", "text"}


def without_surrogates(value: Any) -> Any:
    """Lone surrogates, which UTF-8 has not, become U+FFFD, in keys too. Raises RecursionError."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_surrogates(each) for each in value]
    return value


def structured(value: Any) -> Any:
    """An object or a list that was written as JSON into a string; all else, and what is no JSON, as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        found = json.loads(value)
        return without_surrogates(found) if "\\u" in value else found
    except (ValueError, RecursionError):
        return value


def turns(value: Any, role: str, name: str | None, notes: list[str]) -> list[Any]:
    """Turns of a value that holds one, many (also as JSON in a string), or text, which gets `role`. `name` is that of a
    field that holds no text of its own: where there is some, it was cut off."""
    found = structured(value)
    if isinstance(found, dict) and isinstance(found.get("messages"), list):
        found = found["messages"]
    each_one = found if isinstance(found, list) else [found]
    if not found:
        return []
    if isinstance(value, str) and not (all(_is_turn(each) for each in each_one) and is_read_whole(each_one)):
        # Text that happens to be JSON, or text.
        if name is not None:
            notes.append(f"{name}: not JSON (cut off?), read as text")
        return [{"role": role, "content": value}]
    if all(isinstance(each, dict) and "type" in each and _ROLES.isdisjoint(each) for each in each_one):
        # Parts, or items of one turn each, which say by themselves whose they are.
        return each_one if any("content" in each or "call_id" in each for each in each_one) else [_turn(role, each_one)]
    return [_turn(role, each) if isinstance(each, str) else each for each in each_one]


def is_read_whole(turns: Any) -> bool:
    """Whether every text in turns that were decoded from a string is in what is read of them. If not, it was a text
    that looks like turns, and is read as it stands."""
    listed = turns["messages"] if isinstance(turns, dict) and isinstance(turns.get("messages"), list) else turns
    try:
        said = read_turns(listed if isinstance(listed, list) else [listed], Reading())
        read = _squeezed(" ".join(_texts(said)))
        return all(_squeezed(each) in read for each in _texts(turns) if not _is_reference(each))
    except RecursionError:
        return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in _ABOUT or (key == "arguments" and isinstance(each, str)):
                continue
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _is_reference(text: str) -> bool:
    """An address or data, which no model reads as text."""
    return (text.startswith(("http://", "https://", "data:", "gs://", "s3://")) and " " not in text) or is_blob(text)


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and not _NAMES_OF_TURNS.isdisjoint(value)
