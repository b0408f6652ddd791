"""Prepares the next batch while the model works on this one: a thread polls, parses, looks up and tokenises.

Contract: within `running()` the thread takes from the source what is there and prepares it, as long as fewer than
`limit` messages are ready; `take` hands over all that is ready, in the order of the source, as soon as there is
anything. So the model never waits for a batch to fill up, and a batch fills up while the model works. What fails in the
thread, the source or the look-up, is raised by `take`. `rest` is what had been read when it stopped: standard input
would not give it again.

Does not know: what is prepared, nor what becomes of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from monitor.stream.record import Record, Source

T = TypeVar("T")

# How long a poll waits for a first record.
_POLL_SECONDS = 1.0


class Preparing(Generic[T]):
    """`prepare(records)` gives pieces, each with the number of its messages."""

    def __init__(
        self, source: Source, prepare: Callable[[Sequence[Record]], Iterator[tuple[T, int]]], limit: int
    ) -> None:
        self._source = source
        self._prepare = prepare
        self._limit = limit
        self._changed = threading.Condition()
        self._ready: list[T] = []
        self._messages = 0
        self._stopped = False
        self._ended = False
        self._error: Exception | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The thread runs within the block."""
        thread = threading.Thread(target=self._run, name="awry-prepare", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            thread.join()

    @property
    def ended(self) -> bool:
        """The source gives no more, and all was taken."""
        with self._changed:
            return self._ended and not self._ready

    def take(self, seconds: float) -> list[T]:
        """All that is ready, in order; nothing when so many seconds pass first or no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._error is not None, seconds)
            taken, self._ready, self._messages = self._ready, [], 0
            self._changed.notify_all()
            # What was ready before it broke is worked off first.
            if self._error is not None and not taken:
                raise self._error
            return taken

    def rest(self) -> list[T]:
        """What was read from the source when the thread stopped, and was not taken."""
        with self._changed:
            return self._ready

    def _fits(self, messages: int) -> bool:
        return not self._ready or self._messages + messages <= self._limit

    def _run(self) -> None:
        try:
            while not self._stopped:
                with self._changed:
                    self._changed.wait_for(lambda: self._messages < self._limit or self._stopped)
                    room = self._limit - self._messages
                if self._stopped:
                    return
                records = self._source.poll(room, _POLL_SECONDS)
                for piece, messages in self._prepare(records) if records else ():
                    with self._changed:
                        # A record may hold many messages: no batch grows beyond the limit by what fits in the next one.
                        self._changed.wait_for(
                            lambda more=messages: self._fits(more) or self._stopped  # type: ignore[misc]
                        )
                        self._ready.append(piece)
                        self._messages += messages
                        self._changed.notify_all()
                if not records and self._source.finished:
                    with self._changed:
                        self._ended = True
                        self._changed.notify_all()
                    return
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
