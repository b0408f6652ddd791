"""Asking the judge beside the worker: a bounded queue in memory, and threads that put questions and record verdicts.

Contract: a score in its probe's band is decided on before its row is written (`decide`: it waits, or the judge is not
asked, and why), and put into the queue after its row has committed (`put`), or its place is given back (`release`).
Threads then ask, outside of any transaction of the worker, and record what came of it once, through the recorder.
Nothing here delays or stops the worker: a full queue, a spent budget or a judge that is down leave the probe's verdict.
Text is held here until its verdict is recorded, of no more than `queue_messages` messages, and never written to disk.

A failed attempt is made again where that may help, twice at most and within the message's `wait_seconds`. When the
block of `running` ends, the queue is emptied first, unless `hurry` says otherwise; what still waits is `not asked`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from alerts.rules.model import Flagged
from monitor.judge.answer import JudgeError, Verdict
from monitor.judge.band import Band
from monitor.judge.base import Asked, Judge
from monitor.judge.limits import Cache, Circuit, DailyCap
from monitor.judge.prompt import DEFAULT_QUESTION
from monitor.telemetry import logs, metrics
from storage.queries.judged import SAME_TEXT

NotAsked = Literal["queue full", "budget spent", "judge down", "waited too long", "worker stopped"]
State = Literal["harmful", "harmless", "failed", "not asked"]

ATTEMPTS = 3
_FIRST_PAUSE = 0.5
# A worker that is told to stop waits so long for answers that are on their way.
END_SECONDS = 10.0
# Characters a token, and of a question's wording, where a judge does not say what it took.
_CHARACTERS_A_TOKEN = 3
_WORDING = 1500


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message under one probe that waits for the judge: its labels, and what is sent of it. `flagged` says what the
    probe said; one in `shadow` opens no alert."""

    score: Flagged
    digest: str
    flagged: bool
    shadow: bool
    text: str
    since: float


@dataclass(frozen=True)
class Judged:
    """What came of a question: the state and the reason of its row."""

    state: State
    reason: str | None = None


class Recorder(Protocol):
    """Writes down what came of questions; raises where it cannot."""

    def record(self, waiting: Waiting, judged: Judged) -> bool:
        """False where the row no longer waited."""

    def leave(self, waiting: Sequence[Waiting], why: NotAsked) -> None:
        """These are not asked about. One try: the worker ends."""


class Judging:
    """One judge for all probes of a worker."""

    def __init__(
        self,
        judge: Judge,
        recorder: Recorder,
        *,
        bands: Mapping[str, Band],
        cap: DailyCap,
        questions: Mapping[str, str] | None = None,
        seconds: float = 20.0,
        wait_seconds: float = 300.0,
        threads: int = 2,
        queue_messages: int = 512,
        first_pause: float = _FIRST_PAUSE,
        circuit: Circuit | None = None,
    ) -> None:
        self.judge = judge
        self.cap = cap
        self.bands = dict(bands)
        self._recorder = recorder
        self._questions = dict(questions or {})
        self._seconds, self._wait_seconds = seconds, wait_seconds
        self._threads, self._limit, self._first_pause = threads, queue_messages, first_pause
        self._circuit = circuit or Circuit()
        self._cache = Cache(judge.key)
        self._changed = threading.Condition()
        self._queue: deque[Waiting] = deque()
        # Places that are taken by rows that have not committed yet, and by questions that are being asked.
        self._reserved = 0
        self._asking: list[Waiting] = []
        self._no_more = False
        # What is still being asked was given up: nobody waits for it.
        self._left = False
        self._ending = threading.Event()
        metrics.JUDGE_CIRCUIT_OPEN.set(0)
        metrics.JUDGE_WAITING.set(0)

    def decide(self, probe: str, score: float) -> Literal["waiting"] | NotAsked | None:
        """`waiting` with a place in the queue, why the judge is not asked, or None for a score outside the band."""
        band = self.bands.get(probe)
        if band is None or not band.holds(score):
            return None
        with self._changed:
            held = self._reserved + len(self._queue) + len(self._asking)
            if held >= self._limit:
                return "judge down" if self._circuit.is_open else "queue full"
            if held >= self.cap.left():
                return "budget spent"
            self._reserved += 1
        return "waiting"

    def put(self, waiting: Waiting) -> None:
        """Queue a message whose row has committed; its place was reserved."""
        with self._changed:
            self._reserved -= 1
            self._queue.append(waiting)
            self._changed.notify()
        self._show()

    def release(self, places: int = 1) -> None:
        """Give back places that were reserved."""
        with self._changed:
            self._reserved -= places

    def count_not_asked(self, probe: str, why: str | None, *, flagged: bool) -> None:
        """Count a message whose row says that it was not asked about."""
        metrics.JUDGE_NOT_ASKED.labels(why).inc()
        metrics.JUDGE_VERDICTS.labels(probe, "not asked", _said(flagged)).inc()

    @contextmanager
    def running(self, hurry: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Ask within this block. At its end the queue is emptied, unless `hurry()` is true by then or meanwhile."""
        threads = [threading.Thread(target=self._work, name=f"judge-{n}", daemon=True) for n in range(self._threads)]
        for thread in threads:
            thread.start()
        try:
            yield
            self._drain(hurry)
        finally:
            self._stop(threads)

    def _drain(self, hurry: Callable[[], bool]) -> None:
        with self._changed:
            while (self._queue or self._asking) and not hurry():
                self._changed.wait(0.2)

    def _stop(self, threads: Sequence[threading.Thread]) -> None:
        with self._changed:
            self._no_more = True
            left = list(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        self._ending.set()
        deadline = time.monotonic() + END_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            left += self._asking
            self._left = True
        self._leave(left)
        self.judge.close()

    def _leave(self, left: Sequence[Waiting]) -> None:
        if not left:
            return
        why: NotAsked = "worker stopped"
        try:
            self._recorder.leave(left, why)
        except Exception as error:  # they stay `waiting` until another worker finds them
            logs.logger().warning("what waited for the judge could not be stored", error=type(error).__name__)
        for waiting in left:
            self.count_not_asked(waiting.score.probe, why, flagged=waiting.flagged)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._no_more:
                    self._changed.wait()
                if self._no_more:
                    return
                waiting = self._queue.popleft()
                self._asking.append(waiting)
            try:
                judged = self._judged(waiting)
                if not self._left:
                    self._finish(waiting, judged)
            finally:
                with self._changed:
                    self._asking.remove(waiting)
                    self._changed.notify_all()
                self._show()

    def _judged(self, waiting: Waiting) -> Judged:
        question = self._questions.get(waiting.score.probe, DEFAULT_QUESTION)
        key = self._cache.key(question, waiting.text)
        deadline = waiting.since + self._wait_seconds
        for attempt in range(1, ATTEMPTS + 1):
            known = self._cache.get(key)
            if known is not None:
                metrics.JUDGE_CACHED.inc()
                return Judged(_verdict(known).state, SAME_TEXT)
            refusal = self._may_ask(deadline)
            if refusal is not None:
                return Judged("not asked", refusal)
            try:
                verdict = self._ask(Asked(waiting.score.probe, question, waiting.text), deadline)
            except JudgeError as error:
                pause = max(self._first_pause * 2 ** (attempt - 1) * random.uniform(0.5, 1), error.retry_after or 0)  # noqa: S311
                last = attempt == ATTEMPTS or time.monotonic() + pause >= deadline
                if not error.again or last or self._ending.wait(pause):
                    return Judged("failed", error.failure)
            else:
                self._cache.put(key, verdict)
                return _verdict(verdict)
        raise AssertionError  # the last attempt returns

    def _may_ask(self, deadline: float) -> NotAsked | None:
        """Wait until the judge may be asked; why it is not."""
        if time.monotonic() >= deadline:
            return "waited too long"
        while (pause := self._circuit.wait()) > 0:
            if time.monotonic() + pause >= deadline:
                return "judge down"
            if self._ending.wait(min(pause, 1.0)):
                return "worker stopped"
        why: NotAsked | None = None
        if time.monotonic() >= deadline:
            why = "waited too long"
        elif not self.cap.take():
            why = "budget spent"
        if why is not None:
            self._circuit.gave_up()
        return why

    def _ask(self, asked: Asked, deadline: float) -> Verdict:
        """One attempt, with what it says of the judge and what it cost. Raises JudgeError."""
        left = max(0.1, min(self._seconds, deadline - time.monotonic()))
        tokens = (len(asked.text) + _WORDING) // _CHARACTERS_A_TOKEN
        try:
            with metrics.JUDGE_SECONDS.time():
                verdict = self.judge.ask(asked, left)
        except Exception as raised:
            error = raised if isinstance(raised, JudgeError) else JudgeError("internal error")
            if error is not raised:
                logs.logger().warning("the judge could not be asked", error=type(raised).__name__)
            metrics.JUDGE_FAILURES.labels(error.failure).inc()
            self._went(error)
            if error.failure != "unreachable":
                self._spend(tokens)
            raise error from None
        self._went(None)
        self._spend(verdict.tokens or tokens)
        return verdict

    def _went(self, error: JudgeError | None) -> None:
        if error is not None and error.down:
            if self._circuit.failed(error.retry_after):
                metrics.JUDGE_CIRCUIT_OPEN.set(1)
                logs.logger().warning(
                    "the judge is down: the probes' verdicts stand", judge=self.judge.name, reason=error.failure
                )
        elif self._circuit.worked():
            metrics.JUDGE_CIRCUIT_OPEN.set(0)
            logs.logger().info("the judge answers again", judge=self.judge.name)

    def _spend(self, tokens: int) -> None:
        self.cap.spend(tokens)
        metrics.JUDGE_TOKENS.inc(tokens)

    def _finish(self, waiting: Waiting, judged: Judged) -> None:
        try:
            changed = self._recorder.record(waiting, judged)
        except Exception as error:  # a thread that ended would leave the rest unasked; the row stays as it is
            logs.logger().warning("a judge's verdict could not be stored", error=type(error).__name__)
            return
        if not changed:
            return
        metrics.JUDGE_VERDICTS.labels(waiting.score.probe, judged.state, _said(waiting.flagged)).inc()
        if judged.state == "not asked":
            metrics.JUDGE_NOT_ASKED.labels(judged.reason).inc()

    def _show(self) -> None:
        metrics.JUDGE_WAITING.set(len(self._queue) + len(self._asking))


def _verdict(verdict: Verdict) -> Judged:
    reason = None if verdict.confidence is None else f"confidence {verdict.confidence:.2f}"
    return Judged("harmful" if verdict.harmful else "harmless", reason)


def _said(flagged: bool) -> str:
    return "flag" if flagged else "pass"
