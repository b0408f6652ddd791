"""The thread that repeats work: when it calls, what it does with the returned pause, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from awry.periodic import NEVER, periodic


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_first_call_comes_at_once_and_the_others_after_a_pause() -> None:
    calls: list[float] = []
    with periodic(lambda: calls.append(time.monotonic()), every=0.05, name="ticks"):
        wait_until(lambda: len(calls) >= 3)
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(calls))


def test_a_later_first_call_never_comes_when_the_block_ends_before() -> None:
    calls: list[int] = []
    with periodic(lambda: calls.append(1), every=0.001, name="late", first=30):
        time.sleep(0.05)
    assert calls == []


def test_nothing_is_called_after_the_block() -> None:
    calls: list[int] = []
    with periodic(lambda: calls.append(1), every=0.001, name="over"):
        wait_until(lambda: len(calls) > 2)
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count
    assert "over" not in [thread.name for thread in threading.enumerate()]


def test_work_says_when_it_is_called_next() -> None:
    pauses = iter([0.0, 0.0, NEVER])
    calls: list[float] = []

    def work() -> float:
        calls.append(next(pauses))
        return calls[-1]

    with periodic(work, every=30, name="asked"):
        wait_until(lambda: len(calls) == 3)
        time.sleep(0.05)
    assert calls == [0.0, 0.0, NEVER]


def test_a_call_in_progress_is_waited_for() -> None:
    begun, finished = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.2)
        finished.set()

    with periodic(work, every=30, name="slow"):
        begun.wait(10)
    assert finished.is_set()


def test_a_call_in_progress_is_left_after_the_time_given() -> None:
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(30)

    started = time.monotonic()
    with periodic(work, every=30, name="stuck", join_seconds=0.05):
        begun.wait(10)
    assert time.monotonic() - started < 10
    release.set()


def test_the_thread_ends_with_a_block_that_fails() -> None:
    with (
        pytest.raises(KeyError),
        periodic(lambda: None, every=0.01, name="failed-block"),
    ):
        raise KeyError("x")
    assert "failed-block" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_work_does_not_end_the_block() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise ValueError("x")

    with periodic(work, every=0.001, name="broken"):
        wait_until(lambda: bool(calls))
        wait_until(lambda: "broken" not in [thread.name for thread in threading.enumerate()])
    assert calls == [1]
