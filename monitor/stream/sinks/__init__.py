"""Where verdicts, mitigated answers and dead letters go, behind one small protocol: a file, standard output, a topic.

Lines are written and flushed before the batch is committed: at-least-once, key = message id.
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
    """Takes lines."""

    def write(self, lines: Sequence[Line]) -> None:
        """All lines are written and flushed when this returns. Raises OutputError."""

    def close(self) -> None:
        """Let go of the file or the connection."""
