"""Turns by themselves: a list of them, or an object that holds them under another name than `messages`.

Known are `conversations` and `conversation` (ShareGPT's `from` and `value`), `turns`, `dialogue`, `dialog`, `history`,
`chat_history`, `chat`. Other fields of the object are read as in awry's own JSON.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import asked
from monitor.stream.formats.draft import Draft, UnreadableError
from monitor.stream.formats.exchange import Exchange
from monitor.stream.formats.sides import drafts

NAME = "turns"

_LISTS = ("conversations", "conversation", "turns", "dialogue", "dialog", "history", "chat_history", "chat")
_SPEAKERS = ("role", "from", "author", "speaker")
_SAID = ("content", "parts", "value", "text", "tool_calls")
_KINDS = frozenset(("human", "ai", "system", "tool", "user", "assistant"))


def recognises(value: Any) -> bool:
    """Whether there are turns."""
    return _turns(value) is not None


def read(value: Any) -> list[Draft]:
    """One draft."""
    turns = _turns(value)
    if turns is None:
        raise UnreadableError("turns: none found")
    around = value if isinstance(value, dict) else {}
    asks = (*asked.SYSTEM_KEYS, *asked.TOOL_KEYS)
    request = {"messages": turns} | {key: each for key, each in around.items() if key in asks}
    rest = {key: each for key, each in around.items() if each is not turns and key not in asks}
    return drafts(Exchange(request, rest.pop("response", None), (rest,)))


def _turns(value: Any) -> list[Any] | None:
    if isinstance(value, list):
        flat = value[0] if value and isinstance(value[0], list) else value
        return value if flat and all(_is_turn(each) for each in flat[:4]) else None
    if not isinstance(value, dict):
        return None
    if any(value.get(key) for key in asked.INPUT_KEYS):
        # What a model is asked counts, not what stands beside it.
        return None
    for key in _LISTS:
        within = value.get(key)
        if isinstance(within, list) and within and all(_is_turn(each) for each in within[:4]):
            return within
    return None


def _is_turn(raw: Any) -> bool:
    if not isinstance(raw, dict) or "messages" in raw or "prompt" in raw:
        return False
    if any(key in raw for key in _SPEAKERS):
        return any(key in raw for key in _SAID)
    kind = raw.get("type")
    return (isinstance(kind, str) and kind in _KINDS and ("data" in raw or "content" in raw)) or "lc" in raw
