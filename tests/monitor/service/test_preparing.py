"""The thread that prepares while the model works: in order, bounded, and what breaks in it is raised."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from monitor.service.preparing import Preparing
from monitor.stream.record import Record
from storage.coordinates import Coordinates


class Some:
    """A source of so many records, which ends when all are committed or never."""

    def __init__(self, count: int, *, ends: bool = True) -> None:
        self.left = [Record(Coordinates("s", 0, n), b"x", 1, None) for n in range(count)]
        self.polled: list[int] = []
        self.finished = False
        self._ends = ends
        self.asked = threading.Event()

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        self.polled.append(limit)
        taken, self.left = self.left[: min(limit, 3)], self.left[min(limit, 3) :]
        if not taken:
            self.asked.set()
            self.finished = self._ends
            threading.Event().wait(min(0.01, wait_seconds))
        return taken


def one_by_one(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    for record in records:
        yield record.at.offset, 1


def preparing(source: Any, prepare: Any = one_by_one, limit: int = 4) -> Preparing[int]:
    return Preparing(source, prepare, limit)


def test_all_comes_in_order_and_then_it_has_ended() -> None:
    made = preparing(Some(20))
    got: list[int] = []
    with made.running():
        while not made.ended:
            got += made.take(5)
    assert got == list(range(20))


def test_no_more_than_the_limit_is_ready() -> None:
    source = Some(20, ends=False)
    made = preparing(source, limit=4)
    with made.running():
        first = made.take(5)
        assert 1 <= len(first) <= 4
        # The model works: what is ready waits, and no more than that is polled.
        until = threading.Event()
        for _ in range(500):
            if sum(r.at.offset >= 0 for r in source.left) <= 20 - len(first) - 4:
                break
            until.wait(0.01)
        until.wait(0.1)
        assert len(source.left) == 20 - len(first) - 4
        assert len(made.take(5)) == 4
    assert max(source.polled) <= 4


def test_what_is_ready_is_given_at_once() -> None:
    made = preparing(Some(1, ends=False), limit=64)
    with made.running():
        assert made.take(3600) == [0]
        assert made.take(0.01) == []


@pytest.mark.parametrize("where", ["poll", "prepare"])
def test_what_breaks_is_raised_after_what_was_ready(where: str) -> None:
    class Broken(Some):
        def poll(self, limit: int, wait_seconds: float) -> list[Record]:
            records = super().poll(limit, wait_seconds)
            if where == "poll" and not records:
                raise OSError("the source is gone")
            return records

    def prepare(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
        for record in records:
            if where == "prepare" and record.at.offset == 4:
                raise OSError("the look-up failed")
            yield record.at.offset, 1

    made = preparing(Broken(6, ends=False), prepare)
    got: list[int] = []
    said = {"poll": "the source is gone", "prepare": "the look-up failed"}[where]

    def take_all() -> None:
        while True:
            got.extend(made.take(5))

    with made.running(), pytest.raises(OSError, match=said):
        take_all()
    assert got == list(range(6 if where == "poll" else 4))


def test_what_was_read_when_it_stops_is_not_lost() -> None:
    source = Some(20, ends=False)
    made = preparing(source)
    with made.running():
        first = made.take(5)
    assert first
    assert [*first, *made.rest()] == list(range(20 - len(source.left)))


def test_records_of_many_messages_are_handed_over_a_batch_at_a_time() -> None:
    """A record may hold thousands of messages; one of more than the limit comes alone."""

    def many(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
        for record in records:
            yield record.at.offset, 9 if record.at.offset == 4 else 2

    made = preparing(Some(9), many, limit=4)
    taken: list[list[int]] = []
    with made.running():
        while not made.ended:
            taken.append(made.take(5))
    assert [n for batch in taken for n in batch] == list(range(9))
    assert all(len(batch) <= 2 for batch in taken)
    assert [4] in taken
