"""Where messages come from, behind one small protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from storage.coordinates import Coordinates


@dataclass(frozen=True)
class Record:
    """One payload and where it came from. `recorded` is the source's own timestamp; JSON lines have none.

    `payload` is None when it was over the source's size limit; `size` then still says how large it was. `sha256` is
    the payload's hash where the payload itself is no longer what was sent. `receipt` is the source's own mark.
    """

    at: Coordinates
    payload: bytes | None
    size: int
    recorded: datetime | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    sha256: str | None = None
    receipt: int = 0


class Source(Protocol):
    """A stream of records. Nothing is acknowledged but by `commit`."""

    name: str

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        """Up to `limit` records; fewer, or none, when `wait_seconds` pass first."""

    def commit(self, records: Sequence[Record]) -> None:
        """These records are in the tables: they need not come again."""

    @property
    def finished(self) -> bool:
        """No more will come."""

    @property
    def oldest(self) -> datetime | None:
        """The own time of the oldest record that was read and is not committed."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can come at the moment (no partitions, ...); None when all is well."""

    @property
    def lag(self) -> int | None:
        """How much is waiting, in the source's own unit (`lag_unit`); None when it cannot be known."""

    lag_unit: str

    def close(self) -> None:
        """Let go of the stream."""
