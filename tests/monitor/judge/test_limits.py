"""The circuit, the cap and the cache, on a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.judge.answer import Verdict
from monitor.judge.limits import FAILURES_TO_OPEN, FIRST_PAUSE, MAX_PAUSE, Cache, Circuit, DailyCap


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Circuit:
    circuit = Circuit(clock)
    assert [circuit.failed() for _ in range(FAILURES_TO_OPEN)] == [False] * (FAILURES_TO_OPEN - 1) + [True]
    return circuit


def test_the_circuit_opens_after_failures_in_a_row() -> None:
    circuit = Circuit(Clock())
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            assert not circuit.failed()
        assert not circuit.worked()
    assert not circuit.is_open
    assert circuit.wait() == 0


def test_an_open_circuit_lets_one_through_after_its_pause() -> None:
    clock = Clock()
    circuit = opened(clock)
    assert circuit.wait() == FIRST_PAUSE
    clock.now += FIRST_PAUSE
    assert circuit.wait() == 0
    # Only one at a time.
    assert circuit.wait() > 0
    circuit.gave_up()
    assert circuit.wait() == 0
    assert not circuit.failed()
    assert circuit.wait() == 2 * FIRST_PAUSE
    clock.now += 2 * FIRST_PAUSE
    assert circuit.wait() == 0
    assert circuit.worked()
    assert [circuit.wait() for _ in range(3)] == [0, 0, 0]


def test_pauses_double_up_to_their_limit() -> None:
    clock = Clock()
    circuit = opened(clock)
    pauses = []
    for _ in range(10):
        pauses.append(circuit.wait())
        clock.now += pauses[-1]
        assert circuit.wait() == 0
        circuit.failed()
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == MAX_PAUSE


def test_a_server_that_says_when_is_not_asked_before() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    for _ in range(FAILURES_TO_OPEN):
        circuit.failed(retry_after=120)
    assert circuit.wait() == 120


def test_what_was_asked_before_the_circuit_opened_does_not_lengthen_it() -> None:
    circuit = opened(Clock())
    assert not circuit.failed()
    assert circuit.wait() == FIRST_PAUSE


def test_the_cap_is_of_any_day() -> None:
    clock = Clock()
    cap = DailyCap(3, 10**6, clock)
    assert [cap.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 86_000
    assert not cap.take()
    clock.now += 1_600
    assert cap.left() == 3
    assert cap.take()


def test_other_workers_and_earlier_runs_count() -> None:
    cap = DailyCap(10, 10**6, Clock())
    for _ in range(3):
        assert cap.take()
    # Nine in all: three are its own.
    cap.set_all(9)
    assert cap.left() == 1
    assert [cap.take(), cap.take()] == [True, False]
    cap.set_all(0)
    assert cap.left() == 6


def test_tokens_are_capped_too() -> None:
    cap = DailyCap(100, 1000, Clock())
    assert cap.take()
    cap.spend(999)
    assert cap.take()
    cap.spend(1)
    assert not cap.take()
    assert cap.left() == 0


def test_the_cache_keeps_the_newest_and_no_text() -> None:
    cache = Cache("judge", size=2)
    keys = [cache.key("q", text) for text in ("one", "two", "three")]
    for key in keys[:2]:
        cache.put(key, Verdict(True))
    assert cache.get(keys[0]) == Verdict(True)
    cache.put(keys[2], Verdict(False))
    assert [cache.get(key) is not None for key in keys] == [True, False, True]
    assert all(len(key) == 32 for key in keys)


def test_another_question_judge_or_cut_is_another_verdict() -> None:
    keys = {
        Cache(judge).key(q, text)
        for judge, q, text in [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "ab", "c")]
    }
    assert len(keys) == 4
