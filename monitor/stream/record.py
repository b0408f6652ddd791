"""A record, and the protocol of a source that records are polled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from monitor.telemetry.waiting import Waiting
from storage.coordinates import Coordinates

if TYPE_CHECKING:
    from monitor.stream.fair import FairQueue
    from monitor.stream.wire import Invalid, WireMessage


@dataclass(frozen=True)
class Record:
    """One payload and its coordinates in its stream. `recorded` is the record's own timestamp; JSON lines have none.

    `log` identifies what the offset counts in (a topic's id, a file by its first line): with it, the tables tell a
    recreated topic from the one before. None: the coordinates are those of the tables already. A `tombstone` (a null
    value, as compacted topics have) is no message.

    `payload` is None when it was over the source's size limit; `size` is then still its size in bytes. `sha256` is the
    hash of the original payload where `payload` was made again from the tables. `assignment` is the number of the
    partition assignment under which a Kafka source took it. `messages` are its messages where the source has parsed it.
    """

    at: Coordinates
    payload: bytes | None
    size: int
    recorded: datetime | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    sha256: str | None = None
    assignment: int = 0
    log: str | None = None
    tombstone: bool = False
    messages: tuple[WireMessage | Invalid, ...] | None = None

    @property
    def tenant(self) -> str | None:
        """The tenant of its first message, where the source has parsed it: the record waits its turn as this one's."""
        return self.messages[0].tenant if self.messages else None


def waiting_by_tenant(queue: FairQueue[Record]) -> dict[str | None, Waiting]:
    """What waits in a queue, by tenant."""
    return {tenant: Waiting(number, first.recorded) for tenant, number, first in queue.by_tenant()}


class Source(Protocol):
    """A stream of records; only `commit` moves it on for the next run."""

    name: str

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        """What is there, up to `limit` records; none when `wait_seconds` pass before the first comes."""

    def commit(self, records: Sequence[Record]) -> None:
        """These records are in the tables: they need not be delivered again."""

    @property
    def finished(self) -> bool:
        """No more will come."""

    @property
    def oldest(self) -> datetime | None:
        """Timestamp of the oldest record that was read and is not committed."""

    @property
    def trouble(self) -> str | None:
        """Why no record can be read at the moment (no partitions, ...); None when all is well."""

    @property
    def lag(self) -> int | None:
        """How much was not read yet, in the source's own unit (`lag_unit`); None when it cannot be known."""

    lag_unit: str

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        """What was fetched and waits for the model, by tenant; empty for a source that is read in order."""

    def close(self) -> None:
        """Release the stream."""
