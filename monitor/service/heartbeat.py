"""A worker's sign of life in the tables, beside its metrics: what rules on the monitor itself are evaluated on.

Contract: within `Reporter.reporting()` a thread of its own writes a row every few seconds, so that a long forward pass
is no silence (one that is stuck shows in `oldest_seconds`), and once more at the end. It never stops a worker, and
nothing stops it: where the database does not answer it tries again half a minute later.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Engine

from monitor.stream.record import Source
from storage.queries.workers import Presence, forget_old, report

_EVERY_SECONDS, _AFTER_FAILURE_SECONDS = 5.0, 30.0


class Reporter:
    """Reports one worker and its source."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self._engine, self._source = engine, source
        self._id = uuid.uuid4()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stored = threading.Event()
        self._begun = False

    def stored(self) -> None:
        """New messages were stored."""
        self._stored.set()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Tell now and then, until the block ends."""
        ended = threading.Event()

        def work() -> None:
            pause = 0.0
            while not ended.wait(pause):
                pause = _EVERY_SECONDS if self.tell() else _AFTER_FAILURE_SECONDS
            self.tell()

        thread = threading.Thread(target=work, name="awry-report", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def tell(self) -> bool:
        """Whether it was told."""
        stored = self._stored.is_set()
        self._stored.clear()
        try:
            one = self._look()
            with self._engine.begin() as connection:
                if not self._begun:
                    forget_old(connection)
                report(connection, one, stored=stored)
        except Exception:  # also of a source that changes while it is asked: the next time is soon
            if stored:
                self._stored.set()
            return False
        self._begun = True
        return True

    def _look(self) -> Presence:
        source, oldest = self._source, self._source.oldest
        age = max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest is not None else None
        return Presence(self._id, self._name, source.name, source.lag, source.lag_unit, age)
