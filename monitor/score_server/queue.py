"""Messages that wait for the model: bounded, and scored by one thread in batches of whatever waits.

Contract: `submit` gives one future a message, whose result is its Outcome, or raises QueueFullError and takes none;
TooManyError where it would never take as many. A future that is cancelled before its batch begins costs no forward
pass; a batch ends before its next pass once all of its futures are cancelled: the scorer is given a function that says
whether anybody waits, and raises AbandonedError where nobody does. When the scorer raises anything else, the futures of
its batch get ScoringError with the class of the error; the thread goes on. `close` fails what still waits, and ends
with the batch in progress.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from monitor.errors import MonitorError
from monitor.service.batch_rows import Outcome
from monitor.service.scoring import AbandonedError
from monitor.stream.wire import WireMessage
from monitor.telemetry import logs, metrics

Scorer = Callable[[Sequence[WireMessage], Callable[[], bool]], Sequence[Outcome]]


class QueueFullError(MonitorError):
    """As many messages wait as may."""


class TooManyError(MonitorError):
    """More messages at once than may ever wait."""


class ScoringError(MonitorError):
    """The scorer raised, or the server stops."""


class ScoreQueue:
    """One scorer, its thread, and what waits for it."""

    def __init__(self, scorer: Scorer, *, max_waiting: int, batch_messages: int) -> None:
        self._scorer = scorer
        self._max_waiting = max_waiting
        self._batch_messages = batch_messages
        self._waiting: deque[tuple[WireMessage, Future[Outcome]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)
        self._thread.start()

    def submit(self, messages: Sequence[WireMessage]) -> list[Future[Outcome]]:
        """All of them wait, or none."""
        if len(messages) > self._max_waiting:
            raise TooManyError(
                f"{len(messages)} messages in one request; send at most {self._max_waiting} (score_max_waiting)"
            )
        pairs = [(message, Future[Outcome]()) for message in messages]
        with self._changed:
            if self._closed:
                raise ScoringError("the server stops")
            if len(self._waiting) + len(pairs) > self._max_waiting:
                # Those that nobody waits for any more make room.
                self._waiting = deque(pair for pair in self._waiting if not pair[1].cancelled())
                if len(self._waiting) + len(pairs) > self._max_waiting:
                    raise QueueFullError("too many messages wait for the model")
            self._waiting.extend(pairs)
            metrics.SCORE_WAITING.set(len(self._waiting))
            self._changed.notify()
        return [future for _, future in pairs]

    def trouble(self) -> str | None:
        """Why nothing is scored any more; None: it is."""
        return None if self._thread.is_alive() else "the thread that scores has ended"

    def close(self) -> None:
        with self._changed:
            self._closed = True
            left, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(ScoringError("the server stops"))
        # Without a limit: Python aborts where it ends while another thread computes. Whoever stops the process has one.
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            # They stay pending until there is a result, so that their callers can still cancel them.
            taken = [(message, future) for message, future in batch if not future.cancelled()]
            if taken:
                self._score(taken)

    def _next(self) -> list[tuple[WireMessage, Future[Outcome]]] | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_messages))]
            metrics.SCORE_WAITING.set(len(self._waiting))
            return batch

    def _score(self, taken: Sequence[tuple[WireMessage, Future[Outcome]]]) -> None:
        def wanted() -> bool:
            return not all(future.cancelled() for _, future in taken)

        try:
            outcomes = self._scorer([message for message, _ in taken], wanted)
            for (_, future), outcome in zip(taken, outcomes, strict=True):
                if future.set_running_or_notify_cancel():
                    future.set_result(outcome)
        except AbandonedError:
            logs.logger().info("scoring ended: nobody waits for it any more", messages=len(taken))
        except Exception as error:  # by class: its text may quote a message
            logs.logger().error("scoring failed", error=type(error).__name__, messages=len(taken))
            for _, future in taken:
                if not future.done() and future.set_running_or_notify_cancel():
                    future.set_exception(ScoringError(f"scoring failed: {type(error).__name__}"))
