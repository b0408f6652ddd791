"""Sinks of verdicts, mitigated replies and dead letters, behind one protocol: a file, standard output or a topic.

Contract: lines are written and flushed before the batch is committed: at-least-once, key = message id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Line:
    """One JSON object to be written. `key` and `headers` are for topics; a file has the object alone."""

    value: dict[str, Any]
    key: str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Sink(Protocol):
    """Writes lines."""

    def write(self, lines: Sequence[Line]) -> None:
        """All lines are written and flushed when this returns. Raises OutputError."""

    def close(self) -> None:
        """Release the file or the connection."""


@dataclass(frozen=True)
class Outputs:
    """The sinks of one worker; None where a kind of line is not wanted."""

    verdicts: Sink | None = None
    answers: Sink | None = None
    dead_letters: Sink | None = None

    def close(self) -> None:
        for sink in (self.verdicts, self.answers, self.dead_letters):
            if sink is not None:
                sink.close()
