"""What a Kafka source holds at each moment: what waits, what the worker has in hand, what may be committed.

Two threads use it: the one that polls Kafka puts records in and asks what to commit; the worker takes batches and says
which are stored. Contract: an offset may be committed only when every earlier record of its partition that was taken
is stored; what was taken before a partition went away is never committed for it, even when it came back since (its
record carries the number of the assignment under which it was taken). Memory is bounded by messages and bytes.

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


@dataclass(frozen=True)
class _Batch:
    """What the worker took and has not handed back: the assignment's number of each partition, the oldest record."""

    assignments: frozenset[tuple[Partition, int]]
    oldest: datetime | None


class Ledger:
    """Records by the state that they are in. Thread-safe."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._waiting: deque[Record] = deque()
        self._waiting_bytes = 0
        self._taken: deque[_Batch] = deque()
        self._assignments: dict[Partition, int] = {}
        self._number = 0
        self._storable: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._ended = False

    # The polling thread.

    def assign(self, partitions: Iterable[Partition]) -> None:
        """These are ours from now on, under a number of their own."""
        with self._changed:
            for partition in partitions:
                self._number += 1
                self._assignments[partition] = self._number

    def release(self, partitions: Collection[Partition]) -> int:
        """These are no longer ours: what waits is forgotten, what is in hand is abandoned. How many were abandoned
        batches' partitions."""
        with self._changed:
            abandoned = sum(self._in_hand(p) for p in partitions)
            self._forget(partitions)
            for partition in partitions:
                self._assignments.pop(partition, None)
                self._storable.pop(partition, None)
                self._committed.pop(partition, None)
            self._changed.notify_all()
            return abandoned

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop what waits of these; what is in hand may still be stored and committed."""
        with self._changed:
            self._forget(partitions)

    def put(self, records: Iterable[Record]) -> None:
        """Records as they came, in order within a partition; those of partitions that are not ours are dropped."""
        with self._changed:
            for record in records:
                number = self._assignments.get((record.at.source, record.at.partition))
                if number is not None:
                    self._waiting.append(replace(record, receipt=number))
                    self._waiting_bytes += record.size
            self._changed.notify_all()

    def room(self) -> int:
        """How many more records may wait; 0 while too many, or too many bytes, wait already."""
        with self._changed:
            return self._room()

    def wait_for_room(self, seconds: float) -> None:
        """Until there is room, or the time is over, or `end` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._room() > 0 or self._ended, seconds)

    def pass_over(self, partition: Partition, offset: int) -> None:
        """All that there is before `offset` was put in: where nothing of it waits or is in hand, it is stored."""
        with self._changed:
            if partition not in self._assignments or self._in_hand(partition):
                return
            if not any((r.at.source, r.at.partition) == partition for r in self._waiting):
                self._storable[partition] = max(self._storable.get(partition, 0), offset)

    def to_commit(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Next offsets of partitions that have something stored and not committed."""
        with self._changed:
            return {
                p: offset
                for p, offset in self._storable.items()
                if self._committed.get(p) != offset and (partitions is None or p in partitions)
            }

    def committed(self, offsets: dict[Partition, int]) -> None:
        """The group has these now."""
        with self._changed:
            for partition, offset in offsets.items():
                if partition in self._assignments:
                    self._committed[partition] = offset

    def in_hand(self, partitions: Iterable[Partition]) -> bool:
        """Whether the worker still has records of these under their present assignment."""
        with self._changed:
            return any(self._in_hand(p) for p in partitions)

    # The worker.

    def take(self, limit: int, wait_seconds: float) -> list[Record]:
        """Up to `limit` records, as one batch; fewer, or none, when the time is over or `end` was called."""
        until = time.monotonic() + wait_seconds
        with self._changed:
            while len(self._waiting) < limit and not self._ended:
                left = until - time.monotonic()
                # Too many bytes: no more will come until some are taken.
                if left <= 0 or self._waiting_bytes >= self._max_bytes:
                    break
                self._changed.wait(left)
            taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            self._waiting_bytes -= sum(r.size for r in taken)
            if taken:
                times = [r.recorded for r in taken if r.recorded is not None]
                places = frozenset(((r.at.source, r.at.partition), r.receipt) for r in taken)
                self._taken.append(_Batch(places, min(times, default=None)))
                self._changed.notify_all()
            return taken

    def store(self, records: Sequence[Record]) -> int:
        """The oldest batch in hand is in the tables. How many of its records may not be committed any more."""
        with self._changed:
            if records and self._taken:
                self._taken.popleft()
            abandoned = 0
            for record in records:
                partition = (record.at.source, record.at.partition)
                if self._assignments.get(partition) == record.receipt:
                    self._storable[partition] = max(self._storable.get(partition, 0), record.at.offset + 1)
                else:
                    abandoned += 1
            self._changed.notify_all()
            return abandoned

    def end(self) -> None:
        """Nothing more will be put in: a waiting `take` returns."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # Both.

    def position(self, partition: Partition) -> int | None:
        """The next offset that is not stored; None before anything of this partition was stored or committed."""
        with self._changed:
            return self._storable.get(partition, self._committed.get(partition))

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in hand."""
        with self._changed:
            return not self._waiting and not self._taken

    @property
    def empty(self) -> bool:
        """Nothing waits."""
        with self._changed:
            return not self._waiting

    @property
    def oldest(self) -> datetime | None:
        """The oldest record's own time among what waits or is in hand."""
        with self._changed:
            times = [b.oldest for b in self._taken if b.oldest is not None]
            heads: dict[Partition, datetime] = {}
            for record in self._waiting:
                if record.recorded is not None:
                    heads.setdefault((record.at.source, record.at.partition), record.recorded)
                if len(heads) == len(self._assignments):
                    break
            return min([*times, *heads.values()], default=None)

    def _room(self) -> int:
        return 0 if self._waiting_bytes >= self._max_bytes else max(0, self._max_messages - len(self._waiting))

    def _in_hand(self, partition: Partition) -> bool:
        place = (partition, self._assignments.get(partition, -1))
        return any(place in batch.assignments for batch in self._taken)

    def _forget(self, partitions: Collection[Partition]) -> None:
        kept = deque(r for r in self._waiting if (r.at.source, r.at.partition) not in partitions)
        if len(kept) != len(self._waiting):
            self._waiting = kept
            self._waiting_bytes = sum(r.size for r in kept)
