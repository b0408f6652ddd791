"""Turns and other structure that was written as JSON into strings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from monitor.stream.formats.content import read_turns
from monitor.stream.formats.inner import is_blob, loads
from monitor.stream.formats.reading import Reading

# Fields of turns and parts that hold no text of the conversation.
_ABOUT = frozenset(
    (
        *("role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "name", "finish_reason", "status", "detail"),
        *("model", "object", "format", "modality", "mime_type", "media_type", "mimeType", "mediaType"),
    )
)
_MAX_WORD = 64
_ADDRESSES = ("http://", "https://", "data:", "gs://", "s3://")
# Characters that are searched for texts which are no line of what was read.
_SEARCHED = 50_000_000
_ROLES = frozenset(("role", "author", "from", "speaker", "sender"))
_NAMES_OF_TURNS = _ROLES | {"content", "parts", "type", "tool_calls", "text"}


def structured(value: Any) -> Any:
    """An object or a list that was written as JSON into a string; all else, and what is no JSON, as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    found = loads(value)
    return value if found is None else found


def told(text: str) -> Any:
    """The turns or parts that a string holds as JSON; None where it is a text, also one that only looks like them: some
    of it would not be read, or a field is named twice."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    notes: list[str] = []
    found = loads(text, notes)
    objects = isinstance(found, dict) or (isinstance(found, list) and all(isinstance(each, dict) for each in found))
    return found if objects and not notes and is_read_whole(found) else None


def turns(value: Any, role: str, name: str | None, notes: list[str]) -> list[Any]:
    """Turns of a value that holds one, many (also as JSON in a string), or text, which gets `role`. `name` is that of a
    field that holds no text of its own: where there is some, it was cut off."""
    found = value
    if isinstance(value, str) and value:
        found = told(value) if name is None else structured(value)
        if found is None:
            return [_turn(role, value)]
    if isinstance(found, dict) and isinstance(found.get("messages"), list):
        found = found["messages"]
    each_one = found if isinstance(found, list) else [found]
    if not found:
        return []
    if isinstance(value, str) and not all(_is_turn(each) for each in each_one):
        # Text that happens to be JSON, or text.
        if name is not None:
            notes.append(f"{name}: not JSON (cut off?), read as text")
        return [_turn(role, value)]
    if all(isinstance(each, dict) and "type" in each and _ROLES.isdisjoint(each) for each in each_one):
        # Parts, or items of one turn each, which say by themselves whose they are.
        return each_one if any("content" in each or "call_id" in each for each in each_one) else [_turn(role, each_one)]
    return [_turn(role, each) if isinstance(each, str) else each for each in each_one]


def is_read_whole(turns: Any) -> bool:
    """Whether every text in turns that were decoded from a string is in what is read of them. If not, it was a text
    that looks like turns, and is read as it stands. Work is linear in the size."""
    listed = turns["messages"] if isinstance(turns, dict) and isinstance(turns.get("messages"), list) else turns
    try:
        said = _Said(read_turns(listed if isinstance(listed, list) else [listed], Reading()))
        return all(text in said for text in texts(turns))
    except RecursionError:
        return False


class _Said:
    """The texts of turns, to look others up in: whole, by their lines, then anywhere, as long as the budget lasts."""

    __slots__ = ("_all", "_budget", "_lines")

    def __init__(self, read: list[Any]) -> None:
        texts = list(_strings(read))
        self._lines = {"", *(_squeezed(line) for text in texts for line in (text, *text.split("\n")))}
        self._all = "\n".join(_squeezed(text) for text in texts)
        self._budget = _SEARCHED

    def __contains__(self, text: str) -> bool:
        if _squeezed(text) in self._lines or all(_squeezed(line) in self._lines for line in text.split("\n")):
            return True
        # As a result that is JSON has it.
        for each in (text, json.dumps(text, ensure_ascii=False)[1:-1]):
            self._budget -= len(self._all)
            if self._budget >= 0 and _squeezed(each) in self._all:
                return True
        return False


def _strings(value: Any) -> Iterator[str]:
    """All strings, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def texts(value: Any, key: str = "") -> Iterator[str]:
    """The strings of turns that may be text: no roles, ids, kinds, addresses."""
    if isinstance(value, str):
        decoded = loads(value) if key == "arguments" and value[:1] == "{" else None
        if isinstance(decoded, dict):
            yield from texts(decoded)
        elif not ((key in _ABOUT and _is_word(value)) or _is_reference(value)):
            yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            if not _is_word(name):
                yield name
            yield from texts(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each, key)


def _is_word(text: str) -> bool:
    return len(text) <= _MAX_WORD and text.isascii() and not any(map(str.isspace, text))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _is_reference(text: str) -> bool:
    """An address or data, which no model reads as text."""
    return (text.startswith(_ADDRESSES) and not any(map(str.isspace, text))) or is_blob(text)


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and not _NAMES_OF_TURNS.isdisjoint(value)
