"""What a Kafka source may commit, whatever the order in which partitions, records and stored batches come and go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monitor.stream.kafka.inflight import InFlight, Partition
from monitor.stream.record import Record
from monitor.stream.wire import WireMessage
from storage.coordinates import Coordinates

A: Partition = ("topic", 0)
B: Partition = ("topic", 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(offset: int, partition: Partition = A, size: int = 10, tenant: str | None = None) -> Record:
    messages = None if tenant is None else (WireMessage(None, [], tenant=tenant),)
    at = NOON + timedelta(seconds=offset)
    return Record(Coordinates(*partition, offset), b"x" * size, size, at, messages=messages)


def in_flight_with(
    *offsets: int, max_messages: int = 100, max_bytes: int = 10_000, fill_seconds: float = 0.0
) -> InFlight:
    """Partition A is assigned, and these records wait."""
    in_flight = InFlight(max_messages, max_bytes, fill_seconds)
    in_flight.assign([A])
    in_flight.put([record(n) for n in offsets])
    return in_flight


def offsets(records: list[Record]) -> list[int]:
    return [r.at.offset for r in records]


def finishes(call: Callable[[], object]) -> bool:
    """Whether a call that might wait for an hour returns."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


def test_batches_come_in_order_and_no_larger_than_asked() -> None:
    in_flight = in_flight_with(0, 1, 2, 3, 4)
    assert [offsets(in_flight.take(2, 0.0)) for _ in range(4)] == [[0, 1], [2, 3], [4], []]


def test_what_is_stored_may_be_committed_once() -> None:
    in_flight = in_flight_with(5, 6, 7)
    batch = in_flight.take(2, 0.0)
    assert in_flight.to_commit() == {}
    assert in_flight.mark_stored(batch) == 0
    assert in_flight.to_commit() == {A: 7}
    in_flight.mark_committed({A: 7})
    assert in_flight.to_commit() == {}
    assert in_flight.next_unstored(A) == 7


def test_a_failed_commit_is_offered_again() -> None:
    in_flight = in_flight_with(5)
    in_flight.mark_stored(in_flight.take(1, 0.0))
    assert in_flight.to_commit() == in_flight.to_commit() == {A: 6}


def test_a_gap_in_the_offsets_is_no_reason_to_wait() -> None:
    """Compaction and transactions leave gaps."""
    in_flight = in_flight_with(5, 9)
    in_flight.mark_stored(in_flight.take(2, 0.0))
    assert in_flight.to_commit() == {A: 10}


def test_what_was_taken_before_the_partition_was_revoked_is_never_committed() -> None:
    in_flight = in_flight_with(5, 6)
    batch = in_flight.take(1, 0.0)
    assert in_flight.unassign([A]) == 1
    assert (in_flight.mark_stored(batch), in_flight.to_commit()) == (1, {})


def test_nor_after_the_partition_came_back() -> None:
    in_flight = in_flight_with(5, 6)
    old = in_flight.take(2, 0.0)
    in_flight.unassign([A])
    in_flight.assign([A])
    in_flight.put([record(5)])
    assert in_flight.mark_stored(old) == 2
    assert in_flight.to_commit() == {}
    assert in_flight.mark_stored(in_flight.take(1, 0.0)) == 0
    assert in_flight.to_commit() == {A: 6}


def test_waiting_records_are_dropped_with_their_partition_and_others_stay() -> None:
    in_flight = in_flight_with(1, 2)
    in_flight.assign([B])
    in_flight.put([record(7, B)])
    in_flight.drop_waiting([A])
    assert [r.at for r in in_flight.take(10, 0.0)] == [Coordinates(*B, 7)]


def test_what_is_in_progress_may_still_be_stored_after_waiting_records_were_dropped() -> None:
    in_flight = in_flight_with(1, 2)
    batch = in_flight.take(1, 0.0)
    in_flight.drop_waiting([A])
    assert (in_flight.in_progress([A]), in_flight.in_progress([B])) == (True, False)
    in_flight.mark_stored(batch)
    assert not in_flight.in_progress([A])
    assert in_flight.to_commit([A]) == {A: 2}
    assert in_flight.to_commit([B]) == {}


def test_records_of_partitions_that_are_not_ours_are_dropped() -> None:
    in_flight = in_flight_with()
    in_flight.put([record(1, B)])
    assert (in_flight.empty, in_flight.take(1, 0.0)) == (True, [])


def test_to_store_nothing_leaves_the_batch_in_progress() -> None:
    in_flight = in_flight_with(1)
    in_flight.take(1, 0.0)
    assert in_flight.mark_stored([]) == 0
    assert in_flight.in_progress([A])


def test_a_skipped_offset_counts_only_when_nothing_is_open() -> None:
    in_flight = in_flight_with(1)
    in_flight.skip_to(A, 5)
    batch = in_flight.take(1, 0.0)
    in_flight.skip_to(A, 5)
    assert in_flight.to_commit() == {}
    in_flight.mark_stored(batch)
    in_flight.skip_to(A, 5)
    in_flight.skip_to(A, 4)
    in_flight.skip_to(B, 9)
    assert in_flight.to_commit() == {A: 5}


@pytest.mark.parametrize(
    ("limits", "room"), [({"max_messages": 3}, 0), ({"max_messages": 5}, 2), ({"max_bytes": 30}, 0)]
)
def test_room_is_counted_in_messages_and_bytes(limits: dict[str, int], room: int) -> None:
    in_flight = in_flight_with(1, 2, 3, **limits)
    assert in_flight.room() == room
    in_flight.take(3, 0.0)
    assert in_flight.room() == limits.get("max_messages", 100)


def test_to_wait_for_room_that_is_there_takes_no_time() -> None:
    """Also when it was made before the wait began."""
    assert finishes(lambda: in_flight_with(1).wait_for_room(3600))


@pytest.mark.parametrize("way", ["take", "end"])
def test_to_wait_for_room_ends(way: str) -> None:
    in_flight = in_flight_with(1, 2, max_messages=2)
    waiting = threading.Thread(target=lambda: in_flight.wait_for_room(3600), daemon=True)
    waiting.start()
    in_flight.take(1, 0.0) if way == "take" else in_flight.end()
    waiting.join(20)
    assert not waiting.is_alive()


@pytest.mark.parametrize("way", ["put", "end", "full"])
def test_to_wait_for_a_batch_ends(way: str) -> None:
    """When it is full, when nothing more will come, and when no more bytes fit."""
    in_flight = in_flight_with(1, max_bytes=1000, fill_seconds=3600)
    taken: list[Record] = []
    waiting = threading.Thread(target=lambda: taken.extend(in_flight.take(3, 3600)), daemon=True)
    waiting.start()
    if way == "end":
        in_flight.end()
    else:
        in_flight.put([record(2), record(3)] if way == "put" else [record(2, size=990)])
    waiting.join(20)
    assert not waiting.is_alive()
    assert offsets(taken) == {"put": [1, 2, 3], "end": [1], "full": [1, 2]}[way]


def test_what_is_there_is_taken_without_waiting_for_more() -> None:
    in_flight = in_flight_with(1, 2)
    assert offsets(in_flight.take(10, 3600)) == [1, 2]


def test_several_batches_may_be_stored_as_one() -> None:
    in_flight = in_flight_with(1, 2, 3, 4, 5)
    taken = [*in_flight.take(1, 0.0), *in_flight.take(2, 0.0), *in_flight.take(2, 0.0)]
    in_flight.mark_stored(taken[:2])
    assert in_flight.to_commit() == {A: 3}
    assert in_flight.in_progress([A])
    in_flight.mark_stored(taken[2:])
    assert in_flight.to_commit() == {A: 6}
    assert not in_flight.in_progress([A])
    assert in_flight.idle


def test_the_oldest_is_of_what_waits_or_is_in_progress() -> None:
    in_flight = in_flight_with(5, 6)
    in_flight.assign([B])
    in_flight.put([record(2, B)])
    assert in_flight.oldest == NOON + timedelta(seconds=2)
    first, second = in_flight.take(2, 0.0), in_flight.take(1, 0.0)
    in_flight.mark_stored(first)
    assert in_flight.oldest == NOON + timedelta(seconds=2)
    in_flight.mark_stored(second)
    assert in_flight.oldest is None


def test_what_is_taken_out_of_order_is_committed_up_to_the_first_that_is_not_stored() -> None:
    in_flight = in_flight_with()
    in_flight.put([record(n, tenant="flood") for n in range(4)] + [record(4, tenant="shop")])
    batch = in_flight.take(2, 0.0)
    assert offsets(batch) == [0, 4]
    in_flight.mark_stored(batch[1:])
    assert (in_flight.to_commit(), in_flight.next_unstored(A)) == ({}, 0)
    in_flight.mark_stored(batch[:1])
    assert in_flight.to_commit() == {A: 1}
    in_flight.mark_committed({A: 1})
    last = in_flight.take(3, 0.0)
    in_flight.mark_stored(last[1:])
    assert (in_flight.to_commit(), in_flight.oldest) == ({}, NOON + timedelta(seconds=1))
    in_flight.mark_stored(last[:1])
    assert in_flight.to_commit() == {A: 5}


def test_what_was_dropped_while_later_ones_were_stored_is_for_the_next_consumer() -> None:
    in_flight = in_flight_with()
    in_flight.put([record(n, tenant="flood") for n in range(4)] + [record(4, tenant="shop")])
    batch = in_flight.take(2, 0.0)
    in_flight.drop_waiting([A])
    in_flight.mark_stored(batch)
    assert not in_flight.in_progress([A])
    assert in_flight.to_commit() == {A: 1}


def test_each_partition_has_a_share_of_what_may_wait() -> None:
    in_flight = in_flight_with(*range(5), max_messages=10)
    assert in_flight.over_their_share() == set()
    in_flight.assign([B])
    assert in_flight.over_their_share() == {A}
    in_flight.put([record(1, B)])
    in_flight.take(1, 0.0)
    assert in_flight.over_their_share() == set()


def test_what_waits_by_tenant() -> None:
    in_flight = in_flight_with(7)
    in_flight.put([record(8, tenant="shop"), record(9, tenant="shop")])
    waiting = {tenant: (each.records, each.oldest) for tenant, each in in_flight.waiting.items()}
    assert waiting == {None: (1, NOON + timedelta(seconds=7)), "shop": (2, NOON + timedelta(seconds=8))}


# Anything, in any order.


@dataclass
class _Log:
    """A partition as the model sees it."""

    end: int = 0
    committed: int = 0
    # Of the present assignment: None while it is not ours; offsets put in, offsets stored.
    number: int | None = None
    put: list[int] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    leaving: bool = False


some_partition = st.sampled_from([A, B])


class AnyOrder(RuleBasedStateMachine):
    """Partitions come and go while records of tenants are taken and stored, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = InFlight(8, 60)
        self.logs = {A: _Log(), B: _Log()}
        self.numbers = 0
        self.waiting: list[tuple[Partition, int, int]] = []
        self.in_progress: list[list[tuple[Record, int]]] = []

    @rule(partition=some_partition)
    def assign(self, partition: Partition) -> None:
        log = self.logs[partition]
        if log.number is None:
            self.numbers += 1
            self.logs[partition] = _Log(log.committed, log.committed, self.numbers)
            self.in_flight.assign([partition])

    @rule(partition=some_partition)
    def drop_waiting(self, partition: Partition) -> None:
        self.logs[partition].leaving = True
        self.waiting = [w for w in self.waiting if w[0] != partition]
        self.in_flight.drop_waiting([partition])

    @rule(partition=some_partition)
    def unassign(self, partition: Partition) -> None:
        self.logs[partition].number = None
        self.waiting = [w for w in self.waiting if w[0] != partition]
        self.in_flight.unassign([partition])

    @rule(
        partition=some_partition,
        gaps=st.lists(st.integers(0, 2), min_size=1, max_size=4),
        tenant=st.sampled_from(["flood", "flood", "shop"]),
    )
    def put(self, partition: Partition, gaps: list[int], tenant: str) -> None:
        log = self.logs[partition]
        if log.leaving:
            return
        for gap in gaps:
            log.end += gap
            self.in_flight.put([record(log.end, partition, tenant=tenant)])
            if log.number is not None:
                log.put.append(log.end)
                self.waiting.append((partition, log.end, log.number))
            log.end += 1

    @rule(limit=st.integers(1, 5))
    def take(self, limit: int) -> None:
        taken = self.in_flight.take(limit, 0.0)
        assert len(taken) == min(limit, len(self.waiting))
        numbers = {w[:2]: w[2] for w in self.waiting}
        places = [((r.at.source, r.at.partition), r.at.offset) for r in taken]
        assert set(places) <= numbers.keys()
        self.waiting = [w for w in self.waiting if w[:2] not in places]
        if taken:
            self.in_progress.append([(r, numbers[place]) for r, place in zip(taken, places, strict=True)])

    @precondition(lambda self: self.in_progress)
    @rule(data=st.data())
    def mark_stored(self, data: st.DataObject) -> None:
        batch = self.in_progress.pop(data.draw(st.integers(0, len(self.in_progress) - 1)))
        abandoned = 0
        for one, number in batch:
            log = self.logs[one.at.source, one.at.partition]
            if log.number == number:
                log.stored.add(one.at.offset)
            else:
                abandoned += 1
        assert self.in_flight.mark_stored([one for one, _ in batch]) == abandoned

    @rule(partition=some_partition)
    def skip_to(self, partition: Partition) -> None:
        if not self.logs[partition].leaving:
            self.in_flight.skip_to(partition, self.logs[partition].end)

    @rule(succeeds=st.booleans())
    def commit(self, succeeds: bool) -> None:
        offered = self.in_flight.to_commit()
        if succeeds:
            self.in_flight.mark_committed(offered)
            for partition, offset in offered.items():
                self.logs[partition].committed = offset
            assert self.in_flight.to_commit() == {}

    @invariant()
    def only_what_is_stored_is_offered(self) -> None:
        for partition, offset in self.in_flight.to_commit().items():
            log = self.logs[partition]
            assert log.number is not None
            assert {n for n in log.put if n < offset} <= log.stored
            assert log.committed <= offset <= log.end

    @invariant()
    def all_that_is_stored_is_offered(self) -> None:
        for partition, log in self.logs.items():
            if log.number is not None and log.stored:
                first = min(set(log.put) - log.stored, default=log.end)
                before = {n for n in log.stored if n < first}
                assert (self.in_flight.next_unstored(partition) or 0) > max(before, default=-1)

    @invariant()
    def nothing_is_held_that_is_not_counted(self) -> None:
        assert self.in_flight.empty == (not self.waiting)
        assert self.in_flight.idle == (not self.waiting and not self.in_progress)
        assert self.in_flight.room() == (0 if len(self.waiting) >= 6 else 8 - len(self.waiting))
        held = {
            (r.at.source, r.at.partition)
            for batch in self.in_progress
            for r, number in batch
            if self.logs[r.at.source, r.at.partition].number == number
        }
        assert {p for p in self.logs if self.in_flight.in_progress([p])} == held


AnyOrder.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase
