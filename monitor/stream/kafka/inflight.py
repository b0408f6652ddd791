"""In-flight offsets of a Kafka source: records that wait, batches the worker has taken, offsets that may be committed.

Two threads use it: the polling thread puts records in and asks what to commit; the worker takes batches and marks them
as stored. Contract: an offset may be committed only when every earlier record of its partition that was taken is
stored; a record that was taken under an earlier assignment of its partition is never committed, even when the partition
was assigned again since (records carry the number of their assignment). Memory is bounded by messages and bytes.

Does not know: Kafka's protocol, clocks, models.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from monitor.stream.record import Record

Partition = tuple[str, int]


@dataclass
class _Batch:
    """A batch in progress: the partitions with the numbers of their assignments, the oldest timestamp, and how many of
    its records are not stored."""

    assignments: frozenset[tuple[Partition, int]]
    oldest: datetime | None
    left: int


class InFlight:
    """Records and offsets by their state. Thread-safe."""

    def __init__(self, max_messages: int, max_bytes: int, fill_seconds: float = 0.0) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._fill_seconds = fill_seconds
        self._changed = threading.Condition()
        self._waiting: deque[Record] = deque()
        self._waiting_bytes = 0
        self._taken: deque[_Batch] = deque()
        self._assignments: dict[Partition, int] = {}
        self._number = 0
        self._stored: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._ended = False

    # The polling thread.

    def assign(self, partitions: Iterable[Partition]) -> None:
        """These were assigned to this consumer; each assignment gets a number of its own."""
        with self._changed:
            for partition in partitions:
                self._number += 1
                self._assignments[partition] = self._number

    def unassign(self, partitions: Collection[Partition]) -> int:
        """These were revoked or lost: waiting records are dropped, those in progress will not be committed. Number of
        partitions that had records in progress."""
        with self._changed:
            abandoned = sum(self._in_progress(p) for p in partitions)
            self._drop_waiting(partitions)
            for partition in partitions:
                self._assignments.pop(partition, None)
                self._stored.pop(partition, None)
                self._committed.pop(partition, None)
            self._changed.notify_all()
            return abandoned

    def drop_waiting(self, partitions: Collection[Partition]) -> None:
        """Drop waiting records of these; those in progress may still be stored and committed."""
        with self._changed:
            self._drop_waiting(partitions)

    def put(self, records: Iterable[Record]) -> None:
        """Records as polled, in order within a partition; those of partitions that are not assigned are dropped."""
        with self._changed:
            for record in records:
                number = self._assignments.get((record.at.source, record.at.partition))
                if number is not None:
                    self._waiting.append(replace(record, assignment=number))
                    self._waiting_bytes += record.size
            self._changed.notify_all()

    def room(self) -> int:
        """How many more records may wait; 0 at either limit."""
        with self._changed:
            return self._room()

    def wait_for_room(self, seconds: float) -> None:
        """Until there is room, the time is over, or `end` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._room() > 0 or self._ended, seconds)

    def skip_to(self, partition: Partition, offset: int) -> None:
        """Every record before `offset` was put in: where none waits or is in progress, all of them are stored."""
        with self._changed:
            if partition not in self._assignments or self._in_progress(partition):
                return
            if not any((r.at.source, r.at.partition) == partition for r in self._waiting):
                self._stored[partition] = max(self._stored.get(partition, 0), offset)

    def to_commit(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Next offsets of partitions that have something stored and not committed."""
        with self._changed:
            return {
                p: offset
                for p, offset in self._stored.items()
                if self._committed.get(p) != offset and (partitions is None or p in partitions)
            }

    def mark_committed(self, offsets: dict[Partition, int]) -> None:
        """These offsets were committed."""
        with self._changed:
            for partition, offset in offsets.items():
                if partition in self._assignments:
                    self._committed[partition] = offset

    def in_progress(self, partitions: Iterable[Partition]) -> bool:
        """Whether the worker has records of these that were taken under their present assignment."""
        with self._changed:
            return any(self._in_progress(p) for p in partitions)

    # The worker.

    def take(self, limit: int, wait_seconds: float) -> list[Record]:
        """What waits, up to `limit` records, as one batch; none when the time is over, or `end` was called, first. A
        batch that waits for `fill_seconds` to fill up does so once its first record is there."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._ended, wait_seconds)
            until = time.monotonic() + self._fill_seconds
            while self._waiting and len(self._waiting) < limit and not self._ended:
                left = until - time.monotonic()
                # Too many bytes: no more will come until some are taken.
                if left <= 0 or self._waiting_bytes >= self._max_bytes:
                    break
                self._changed.wait(left)
            taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            self._waiting_bytes -= sum(r.size for r in taken)
            if taken:
                times = [r.recorded for r in taken if r.recorded is not None]
                assignments = frozenset(((r.at.source, r.at.partition), r.assignment) for r in taken)
                self._taken.append(_Batch(assignments, min(times, default=None), len(taken)))
                self._changed.notify_all()
            return taken

    def mark_stored(self, records: Sequence[Record]) -> int:
        """The next records of the oldest batches in progress are in the tables. Number of those that may no longer be
        committed."""
        with self._changed:
            number = len(records)
            while number and self._taken:
                # Several may have been scored and stored as one.
                done = min(number, self._taken[0].left)
                self._taken[0].left -= done
                number -= done
                if not self._taken[0].left:
                    self._taken.popleft()
            abandoned = 0
            for record in records:
                partition = (record.at.source, record.at.partition)
                if self._assignments.get(partition) == record.assignment:
                    self._stored[partition] = max(self._stored.get(partition, 0), record.at.offset + 1)
                else:
                    abandoned += 1
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
            return self._stored.get(partition, self._committed.get(partition))

    @property
    def idle(self) -> bool:
        """No record waits or is in progress."""
        with self._changed:
            return not self._waiting and not self._taken

    @property
    def empty(self) -> bool:
        """No record waits."""
        with self._changed:
            return not self._waiting

    @property
    def oldest(self) -> datetime | None:
        """Timestamp of the oldest record that waits or is in progress."""
        with self._changed:
            times = [b.oldest for b in self._taken if b.oldest is not None]
            first: dict[Partition, datetime] = {}
            for record in self._waiting:
                if record.recorded is not None:
                    first.setdefault((record.at.source, record.at.partition), record.recorded)
                if len(first) == len(self._assignments):
                    break
            return min([*times, *first.values()], default=None)

    def _room(self) -> int:
        return 0 if self._waiting_bytes >= self._max_bytes else max(0, self._max_messages - len(self._waiting))

    def _in_progress(self, partition: Partition) -> bool:
        assignment = (partition, self._assignments.get(partition, -1))
        return any(assignment in batch.assignments for batch in self._taken)

    def _drop_waiting(self, partitions: Collection[Partition]) -> None:
        others = deque(r for r in self._waiting if (r.at.source, r.at.partition) not in partitions)
        if len(others) != len(self._waiting):
            self._waiting = others
            self._waiting_bytes = sum(r.size for r in others)
