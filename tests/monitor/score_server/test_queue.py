"""What waits for the model: bounded, in batches, and never forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from monitor.score_server.queue import QueueFullError, ScoreQueue, ScoringError, TooManyError
from monitor.service.batch_rows import Outcome
from monitor.service.scoring import AbandonedError
from monitor.stream.wire import WireMessage
from tests.support.stream.worker import wire_message


class Held:
    """A scorer that waits until it is let go, and keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str | None]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, messages: Sequence[WireMessage], wanted: Callable[[], bool]) -> list[Outcome]:
        self.batches.append([message.id for message in messages])
        self.begun.release()
        assert self.go.acquire(timeout=30)
        if not wanted():
            raise AbandonedError
        if self.error is not None:
            raise self.error
        return [Outcome("scored", tokens=number) for number, _ in enumerate(messages)]


@contextmanager
def queue(scorer: Held, *, max_waiting: int = 4, batch_messages: int = 2) -> Iterator[ScoreQueue]:
    made = ScoreQueue(scorer, max_waiting=max_waiting, batch_messages=batch_messages)
    try:
        yield made
    finally:
        scorer.go.release(100)
        made.close()


def messages(*ids: str) -> list[WireMessage]:
    return [wire_message(id=each, prompt="hello") for each in ids]


def test_what_waits_is_scored_in_batches_and_in_order() -> None:
    held = Held()
    with queue(held) as made:
        (first,) = made.submit(messages("a"))
        assert held.begun.acquire(timeout=30)
        later = made.submit(messages("b", "c", "d"))
        held.go.release(3)
        assert [future.result(30).tokens for future in (first, *later)] == [0, 0, 1, 0]
    assert held.batches == [["a"], ["b", "c"], ["d"]]


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    held = Held()
    with queue(held) as made:
        made.submit(messages("a"))
        assert held.begun.acquire(timeout=30)
        waiting = made.submit(messages("b", "c", "d"))
        with pytest.raises(QueueFullError):
            made.submit(messages("e", "f"))
        waiting[0].cancel()  # its caller has gone: there is room again, and it costs nothing
        made.submit(messages("e", "f"))
        held.go.release(10)
        assert waiting[2].result(30).tokens == 1
    assert all("b" not in batch for batch in held.batches)


def test_a_scorer_that_raises_fails_its_batch_without_its_words_and_goes_on() -> None:
    held = Held()
    held.error = RuntimeError("secret words of a prompt")
    with queue(held) as made:
        (failed,) = made.submit(messages("a"))
        held.go.release()
        with pytest.raises(ScoringError) as raised:
            failed.result(30)
        assert str(raised.value) == "scoring failed: RuntimeError"
        held.error = None
        (scored,) = made.submit(messages("b"))
        held.go.release()
        assert scored.result(30).status == "scored"
        assert made.trouble() is None


def test_what_waits_at_the_end_is_told() -> None:
    held = Held()
    with queue(held) as made:
        made.submit(messages("a"))
        assert held.begun.acquire(timeout=30)
        (left,) = made.submit(messages("b"))
        held.go.release()
        made.close()
        with pytest.raises(ScoringError, match="stops"):
            left.result(30)
        with pytest.raises(ScoringError, match="stops"):
            made.submit(messages("c"))
        assert made.trouble() is not None


def test_more_than_may_ever_wait_is_no_full_queue() -> None:
    held = Held()
    with queue(held) as made, pytest.raises(TooManyError, match=r"5 messages .* at most 4 \(score_max_waiting\)"):
        made.submit(messages("a", "b", "c", "d", "e"))


def test_a_batch_that_nobody_waits_for_any_more_is_dropped() -> None:
    held = Held()
    with queue(held) as made:
        first, second = made.submit(messages("a", "b"))
        assert held.begun.acquire(timeout=30)
        (later,) = made.submit(messages("c"))
        assert first.cancel()
        assert second.cancel()
        held.go.release(2)
        assert later.result(30).status == "scored"
        one, other = made.submit(messages("d", "e"))
        assert held.begun.acquire(timeout=30)
        assert held.begun.acquire(timeout=30)
        assert one.cancel()
        held.go.release()
        assert other.result(30).status == "scored", "the other caller still waits"
        assert made.trouble() is None
