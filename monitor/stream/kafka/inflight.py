"""In-flight offsets of a Kafka source: records that wait, those the worker has taken, offsets that may be committed.

Two threads use it: the polling thread puts records in and asks what to commit; the worker takes them, in turn by tenant
(`monitor.stream.fair`), and marks them as stored, in any order. Contract: an offset may be committed only when every
earlier record of its partition that was put in is stored; a record that was taken under an earlier assignment of its
partition is never committed, even when the partition was assigned again since (records carry the number of their
assignment). Memory is bounded by messages and bytes.

Does not know: Kafka's protocol, clocks, models.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from monitor.stream.fair import FairQueue
from monitor.stream.record import Record, waiting_by_tenant
from monitor.telemetry.waiting import Waiting

Partition = tuple[str, int]


@dataclass
class _Assigned:
    """A partition under one assignment. `open` are the offsets that were put in and are not stored, in order, with
    their timestamps; those that were dropped while they waited stay open: the next consumer is to read them."""

    number: int
    open: dict[int, datetime | None] = field(default_factory=dict)
    waiting: int = 0
    taken: int = 0
    # The first that was put in; after the last one that is stored, or was skipped; what was committed.
    begin: int | None = None
    stored: int | None = None
    committed: int | None = None

    @property
    def next(self) -> int | None:
        """The first offset that is not stored; None before any is."""
        first = next(iter(self.open), None)
        if self.stored is None or first is None:
            return self.stored
        return min(self.stored, first)

    @property
    def to_commit(self) -> int | None:
        """The next offset where it is another one than was committed."""
        moved = self.next is not None and (self.begin is None or self.next > self.begin)
        return self.next if moved and self.next != self.committed else None


class InFlight:
    """Records and offsets by their state. Thread-safe. What names a tenant of `priority` is taken first."""

    def __init__(
        self, max_messages: int, max_bytes: int, fill_seconds: float = 0.0, *, priority: Collection[str] = ()
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._fill_seconds = fill_seconds
        self._changed = threading.Condition()
        self._waiting: FairQueue[Record] = FairQueue(priority)
        self._assigned: dict[Partition, _Assigned] = {}
        self._taken = 0
        self._number = 0
        self._ended = False

    # The polling thread.

    def assign(self, partitions: Iterable[Partition]) -> None:
        """These were assigned to this consumer; each assignment gets a number of its own."""
        with self._changed:
            for partition in partitions:
                self._number += 1
                self._assigned[partition] = _Assigned(self._number)

    def unassign(self, partitions: Collection[Partition]) -> int:
        """These were revoked or lost: waiting records are dropped, those in progress will not be committed. Number of
        partitions that had records in progress."""
        with self._changed:
            abandoned = sum(self._in_progress(p) for p in partitions)
            self._drop_waiting(partitions)
            for partition in partitions:
                self._assigned.pop(partition, None)
            self._changed.notify_all()
            return abandoned

    def drop_waiting(self, partitions: Collection[Partition]) -> None:
        """Drop waiting records of these; those in progress may still be stored and committed, up to the first that was
        dropped."""
        with self._changed:
            self._drop_waiting(partitions)

    def put(self, records: Iterable[Record]) -> None:
        """Records as polled, in order within a partition; those of partitions that are not assigned are dropped."""
        with self._changed:
            for record in records:
                assigned = self._assigned.get(_partition(record))
                if assigned is not None:
                    assigned.open[record.at.offset] = record.recorded
                    assigned.begin = record.at.offset if assigned.begin is None else assigned.begin
                    assigned.waiting += 1
                    numbered = replace(record, assignment=assigned.number)
                    self._waiting.put(numbered, record.tenant, record.size)
            self._changed.notify_all()

    def room(self) -> int:
        """How many more records may wait; 0 at either limit."""
        with self._changed:
            return self._room()

    def over_their_share(self) -> set[Partition]:
        """Partitions of which more waits than an equal share of what may wait."""
        with self._changed:
            share = max(1, self._max_messages // max(1, len(self._assigned)))
            return {partition for partition, assigned in self._assigned.items() if assigned.waiting >= share}

    def wait_for_room(self, seconds: float) -> None:
        """Until there is room, the time is over, or `end` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._room() > 0 or self._ended, seconds)

    def skip_to(self, partition: Partition, offset: int) -> None:
        """Every record before `offset` was put in: where none waits or is in progress, all of them are stored."""
        with self._changed:
            assigned = self._assigned.get(partition)
            if assigned is not None and not assigned.open:
                assigned.stored = max(assigned.stored or 0, offset)

    def to_commit(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Next offsets of partitions that have something stored and not committed."""
        with self._changed:
            return {
                partition: assigned.to_commit
                for partition, assigned in self._assigned.items()
                if assigned.to_commit is not None and (partitions is None or partition in partitions)
            }

    def mark_committed(self, offsets: dict[Partition, int]) -> None:
        """These offsets were committed."""
        with self._changed:
            for partition, offset in offsets.items():
                if partition in self._assigned:
                    self._assigned[partition].committed = offset

    def in_progress(self, partitions: Iterable[Partition]) -> bool:
        """Whether the worker has records of these that were taken under their present assignment."""
        with self._changed:
            return any(self._in_progress(p) for p in partitions)

    # The worker.

    def take(self, limit: int, wait_seconds: float) -> list[Record]:
        """What waits, up to `limit` records, as one batch; none when the time is over, or `end` was called, first. A
        batch that waits for `fill_seconds` to fill up does so once its first record is there."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) > 0 or self._ended, wait_seconds)
            until = time.monotonic() + self._fill_seconds
            while 0 < len(self._waiting) < limit and not self._ended:
                left = until - time.monotonic()
                # Too many bytes: no more will come until some are taken.
                if left <= 0 or self._waiting.bytes >= self._max_bytes:
                    break
                self._changed.wait(left)
            taken = [self._waiting.take() for _ in range(min(limit, len(self._waiting)))]
            for record in taken:
                assigned = self._assigned[_partition(record)]
                assigned.waiting -= 1
                assigned.taken += 1
            self._taken += len(taken)
            if taken:
                self._changed.notify_all()
            return taken

    def mark_stored(self, records: Sequence[Record]) -> int:
        """These records are in the tables. Number of those that may no longer be committed."""
        with self._changed:
            self._taken -= len(records)
            abandoned = 0
            for record in records:
                assigned = self._assigned.get(_partition(record))
                if assigned is None or assigned.number != record.assignment:
                    abandoned += 1
                    continue
                assigned.taken -= 1
                assigned.open.pop(record.at.offset, None)
                assigned.stored = max(assigned.stored or 0, record.at.offset + 1)
            self._changed.notify_all()
            return abandoned

    def end(self) -> None:
        """No more records will be put in: a waiting `take` returns."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # Both.

    def next_unstored(self, partition: Partition) -> int | None:
        """The first offset that is not stored; None before any record of this partition was stored or committed."""
        with self._changed:
            assigned = self._assigned.get(partition)
            if assigned is None:
                return None
            return assigned.next if assigned.next is not None else assigned.committed

    @property
    def idle(self) -> bool:
        """No record waits or is in progress."""
        with self._changed:
            return not len(self._waiting) and not self._taken

    @property
    def empty(self) -> bool:
        """No record waits."""
        with self._changed:
            return not len(self._waiting)

    @property
    def oldest(self) -> datetime | None:
        """Timestamp of the oldest record that waits or is in progress."""
        with self._changed:
            times = [at for assigned in self._assigned.values() for at in assigned.open.values() if at is not None]
            return min(times, default=None)

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        """What waits, by tenant."""
        with self._changed:
            return waiting_by_tenant(self._waiting)

    def _room(self) -> int:
        full = self._waiting.bytes >= self._max_bytes
        return 0 if full else max(0, self._max_messages - len(self._waiting))

    def _in_progress(self, partition: Partition) -> bool:
        assigned = self._assigned.get(partition)
        return assigned is not None and assigned.taken > 0

    def _drop_waiting(self, partitions: Collection[Partition]) -> None:
        found = [assigned for partition in partitions if (assigned := self._assigned.get(partition)) is not None]
        if not any(assigned.waiting for assigned in found):
            return
        self._waiting.keep(lambda record: _partition(record) not in partitions)
        for assigned in found:
            assigned.waiting = 0


def _partition(record: Record) -> Partition:
    return record.at.source, record.at.partition
