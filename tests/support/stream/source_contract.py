"""What every source promises, as tests that each kind of source inherits.

A class gives `write` and `source`; payloads are one line each, not blank, so that every kind can carry them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from monitor.stream.record import Record, Source

SECONDS = 60.0
NUMBERED = [b"message %d" % n for n in range(60)]


def take(source: Source, count: int, limit: int = 100) -> list[Record]:
    """The next `count` records, not committed."""
    found: list[Record] = []
    until = time.monotonic() + SECONDS
    while len(found) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} records within {SECONDS:g} s"
        found += source.poll(min(limit, count - len(found)), 0.1)
    return found


def drain(source: Source, limit: int = 100) -> list[list[Record]]:
    """All batches up to the end of the stream, each committed."""
    batches = []
    until = time.monotonic() + SECONDS
    while not source.finished:
        assert time.monotonic() < until, f"no end within {SECONDS:g} s"
        batch = source.poll(limit, 0.1)
        source.commit(batch)
        batches.append(batch)
    return batches


class SourceContract(ABC):
    """Tests of one kind of source."""

    @abstractmethod
    def write(self, payloads: Sequence[bytes]) -> None:
        """Append messages to the stream, in order, one payload each."""

    @abstractmethod
    def source(self, *, until_end: bool, max_bytes: int) -> Source:
        """A source on the stream: from its beginning, or from what was committed."""

    @pytest.fixture(autouse=True)
    def _closing(self) -> Iterator[None]:
        self._opened: list[Source] = []
        yield
        for source in self._opened:
            source.close()

    def open(self, *, until_end: bool = False, max_bytes: int = 4096) -> Source:
        """One that is closed after the test."""
        self._opened.append(self.source(until_end=until_end, max_bytes=max_bytes))
        return self._opened[-1]

    def read_all(self, limit: int = 100, **options: Any) -> list[Record]:
        source = self.open(until_end=True, **options)
        records = [r for batch in drain(source, limit) for r in batch]
        source.close()
        return records

    def test_every_record_comes_once_and_in_order(self) -> None:
        self.write(NUMBERED)
        records = self.read_all(limit=7)
        assert sorted(r.payload or b"" for r in records) == sorted(NUMBERED)
        for partition in {r.at.partition for r in records}:
            found = [r for r in records if r.at.partition == partition]
            assert found == sorted(found, key=lambda r: r.at.offset)
            assert found == sorted(found, key=lambda r: NUMBERED.index(r.payload or b""))

    def test_a_batch_is_no_larger_than_asked(self) -> None:
        self.write(NUMBERED)
        source = self.open(until_end=True)
        sizes = [len(batch) for batch in drain(source, 7)]
        assert max(sizes) == 7
        assert sum(sizes) == len(NUMBERED)

    def test_poll_gives_the_caller_its_turn_when_nothing_comes(self) -> None:
        self.write([b"one"])
        source = self.open()
        source.commit(take(source, 1))
        started = time.monotonic()
        assert source.poll(10, 0.3) == []
        assert time.monotonic() - started >= 0.3
        assert not source.finished

    def test_what_comes_after_an_idle_poll_arrives(self) -> None:
        self.write([b"one"])
        source = self.open()
        take(source, 1)
        assert source.poll(10, 0.1) == []
        self.write([b"two", b"three"])
        assert sorted(r.payload or b"" for r in take(source, 2)) == [b"three", b"two"]

    def test_coordinates_are_unique_and_the_same_each_time(self) -> None:
        """Also that what is not committed comes again."""
        self.write(NUMBERED)
        first = self.open()
        before = {r.at: r.payload for r in take(first, len(NUMBERED))}
        first.close()
        assert {r.at: r.payload for r in take(self.open(), len(NUMBERED), limit=7)} == before
        assert len(before) == len(NUMBERED)

    def test_a_payload_is_what_was_sent(self) -> None:
        payloads = [b" spaces \t", '{"id": "\u00e4\u20ac\U0001f600"}'.encode(), b"\xff\xfe\x00\x01", b"x" * 4096, b"{"]
        self.write(payloads)
        records = self.read_all()
        assert sorted(r.payload or b"" for r in records) == sorted(payloads)
        assert all(r.size == len(r.payload or b"") for r in records)

    def test_of_an_over_size_message_only_the_size_is_kept(self) -> None:
        self.write([b"x" * 100, b"y" * 101])
        records = self.read_all(max_bytes=100)
        assert sorted((r.size, r.payload) for r in records) == [(100, b"x" * 100), (101, None)]

    def test_to_commit_nothing_is_harmless(self) -> None:
        self.write(NUMBERED)
        first = self.open()
        first.commit([])
        before = {r.at for r in take(first, 10)}
        first.commit([])
        first.close()
        assert before <= {r.at for r in take(self.open(), len(NUMBERED))}

    def test_lag_goes_to_nothing(self) -> None:
        self.write(NUMBERED)
        source = self.open()
        source.commit(take(source, len(NUMBERED)))
        until = time.monotonic() + SECONDS
        while source.lag != 0:
            assert time.monotonic() < until, f"a lag of {source.lag}"
            source.poll(1, 0.05)

    def test_it_is_finished_at_the_end_and_not_before(self) -> None:
        self.write(NUMBERED)
        source = self.open(until_end=True)
        assert not source.finished
        batch = take(source, len(NUMBERED) - 1)
        assert not source.finished
        source.commit(batch)
        drain(source)
        assert source.poll(10, 0.0) == []
        assert source.finished

    def test_an_empty_stream_ends_at_once(self) -> None:
        self.write([])
        source = self.open(until_end=True)
        assert [r for batch in drain(source) for r in batch] == []

    @pytest.mark.parametrize("taken", [0, 3])
    def test_to_close_twice_is_harmless(self, taken: int) -> None:
        self.write(NUMBERED)
        source = self.open()
        take(source, taken)
        source.close()
        source.close()
