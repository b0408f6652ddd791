"""A worker's heartbeat in the tables, beside its metrics: what rules on the monitor itself are evaluated on.

Contract: within `HeartbeatWriter.beating()` a thread of its own writes a row every few seconds, so that a worker in a
long forward pass is not taken for dead (a stuck one shows in `oldest_seconds`), and once more at the end. It never
stops a worker, and nothing stops it: where the database does not answer it tries again half a minute later.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from awry.periodic import periodic
from monitor.stream.record import Source
from storage.heartbeat import ENDED, Heartbeat, delete_old_heartbeats, write_heartbeat

_EVERY_SECONDS, _AFTER_FAILURE_SECONDS = 5.0, 30.0


class HeartbeatWriter:
    """Writes the heartbeat of one worker and its source."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self._engine, self._source = engine, source
        self._id = uuid.uuid4()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stored = threading.Event()
        self._written_once = False

    def stored(self) -> None:
        """New messages were stored."""
        self._stored.set()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Write every few seconds until the block ends, and once then: that the source was read to its end, where it
        was."""
        ended = False
        try:
            with periodic(self._write_and_choose_pause, every=_EVERY_SECONDS, name="heartbeat"):
                yield
            ended = self._source.finished
        finally:
            self.write(ended=ended)

    def write(self, *, ended: bool = False) -> bool:
        """Whether the row was written."""
        stored = self._stored.is_set()
        self._stored.clear()
        try:
            heartbeat = self._read_source()
            if ended:
                heartbeat = replace(heartbeat, lag=None, lag_unit=ENDED)
            with self._engine.begin() as connection:
                if not self._written_once:
                    delete_old_heartbeats(connection)
                write_heartbeat(connection, heartbeat, stored=stored)
        except Exception:  # also of a source that changes while it is read: the next time is soon
            if stored:
                self._stored.set()
            return False
        self._written_once = True
        return True

    def _write_and_choose_pause(self) -> float:
        return _EVERY_SECONDS if self.write() else _AFTER_FAILURE_SECONDS

    def _read_source(self) -> Heartbeat:
        source, oldest = self._source, self._source.oldest
        age = max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest is not None else None
        return Heartbeat(self._id, self._name, source.name, source.lag, source.lag_unit, age)
