"""JSON within strings, and strings that no database takes."""

from __future__ import annotations

import json
from typing import Any

_NAMES_OF_TURNS = frozenset(("role", "content", "parts", "type", "tool_calls", "text"))


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
    if isinstance(found, dict) and _is_turn(found):
        return [found]
    if isinstance(found, list) and found and all(isinstance(each, str) or _is_turn(each) for each in found):
        if any(isinstance(each, dict) and "role" in each for each in found) or isinstance(found[0], str):
            return [{"role": role, "content": each} if isinstance(each, str) else each for each in found]
        return [{"role": role, "content": found}]  # parts
    if value in (None, "", [], {}):
        return []
    if name is not None and isinstance(value, str):
        notes.append(f"{name}: not JSON (cut off?), read as text")
    return [{"role": role, "content": value if isinstance(value, str) else json.dumps(value)}]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and not _NAMES_OF_TURNS.isdisjoint(value)
