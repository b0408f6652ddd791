"""Contents as text: strings, parts of any known shape, tool calls; what has no text leaves a marker and a count.

Contract: `read_turns(raw, into)` gives turns as chat templates take them. Text parts of a turn are joined by newlines.
A part without text (an image, audio, a file by reference) becomes a marker ([image], [audio], ...) and counts in
`into.unread`. No text is lost: a part of an unknown shape gives every string that it holds under a name that means text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from monitor.stream.wire import Turn


@dataclass(slots=True)
class Reading:
    """What reading contents came upon."""

    notes: list[str] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def count(self, kind: str) -> None:
        self.unread[kind] = self.unread.get(kind, 0) + 1


def read_turns(raw: list[Any], into: Reading) -> list[Turn]:
    """Turns ready for a chat template."""
    turns: list[Turn] = []
    for each in raw:
        turns += _read_turn(each, into)
    return turns


def read_response(raw: Any, into: Reading) -> str | None:
    """The text of an answer."""
    if raw is None or isinstance(raw, str):
        return raw
    turns = read_turns(raw if isinstance(raw, list) else [raw], into)
    return "\n".join(turn["content"] for turn in turns) if turns else None


def read_tools(raw: Any, into: Reading) -> list[dict[str, Any]]:
    """Declarations of functions in OpenAI's form."""
    del into
    return [each for each in raw if isinstance(each, dict)] if isinstance(raw, list) else []


def _read_turn(raw: Any, into: Reading) -> list[Turn]:
    if isinstance(raw, str):
        return [{"role": "user", "content": raw}]
    if not isinstance(raw, dict):
        into.note("messages: a turn that is no object was dropped")
        return []
    content = raw.get("content")
    if isinstance(content, list):
        content = "\n".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return [{"role": str(raw.get("role") or "user"), "content": content if isinstance(content, str) else ""}]
