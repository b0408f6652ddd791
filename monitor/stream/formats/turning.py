"""A turn in the making: its text in order, its calls; what a tool gave becomes a turn of its own.

Contract: `finish` gives one turn at least, each ready for a chat template. Text that came before the result of a tool
is a turn before it, text after it one after it.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import tools
from monitor.stream.formats.reading import Reading
from monitor.stream.wire import Turn

_IDS = ("tool_call_id", "tool_use_id", "toolUseId", "toolCallId", "call_id", "id")
_NAMES = ("name", "toolName", "tool_name")


class Turning:
    """One turn while it is read: text and calls; results of tools within it become turns of their own, in order."""

    __slots__ = ("call_id", "calls", "into", "name", "role", "texts", "turns")

    def __init__(self, role: str, into: Reading) -> None:
        self.role = role
        self.into = into
        self.name: str | None = None
        self.call_id: str | None = None
        self.texts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.turns: list[Turn] = []

    def text(self, text: str) -> None:
        """Add text."""
        if text:
            self.texts.append(text)

    def marker(self, kind: str) -> None:
        """Say where a part without text was."""
        self.into.count(kind)
        self.texts.append(f"[{kind}]")

    def result(self, raw: dict[str, Any], text: str, name: str | None = None) -> None:
        """Add the result of a tool: a turn of its own."""
        self._flush()
        turn: Turn = {"role": "tool", "content": text}
        call_id = tools.first(raw, _IDS) or self.call_id
        if call_id is not None:
            turn["tool_call_id"] = call_id[: tools.MAX_NAME]
        name = name or tools.first(raw, _NAMES) or self.name
        if name is not None:
            turn["name"] = name[: tools.MAX_NAME]
        self.turns.append(turn)

    def finish(self) -> list[Turn]:
        """The turns; one at least."""
        self._flush()
        if not self.turns:
            self.turns.append(self._made())
        return self.turns

    def _flush(self) -> None:
        if self.texts or self.calls:
            self.turns.append(self._made())
            self.texts, self.calls = [], []

    def _made(self) -> Turn:
        turn: Turn = {"role": self.role, "content": "\n".join(self.texts)}
        if self.calls:
            turn["tool_calls"] = self.calls
        if self.call_id is not None and self.role in ("tool", "function"):
            turn["tool_call_id"] = self.call_id[: tools.MAX_NAME]
        if self.name is not None:
            turn["name"] = self.name[: tools.MAX_NAME]
        return turn
