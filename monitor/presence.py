"""A worker's sign of life in the tables, beside its metrics: what rules on the monitor itself are evaluated on.

Contract: `Reporter.tell` is cheap to call in every round of the loop: it writes a row every few seconds. It never stops
a worker: where the database does not answer, it is silent for half a minute, which is what the rule is there to see.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.sources import Source
from storage.presence import Presence, forget_old, report

_EVERY_SECONDS, _AFTER_FAILURE_SECONDS = 5.0, 30.0


class Reporter:
    """Reports one worker and its source."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self._engine, self._source = engine, source
        self._id = uuid.uuid4()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._next = 0.0
        self._begun = False

    def tell(self, *, stored: bool, now: bool = False) -> bool:
        """Whether it was told; `stored`: new messages were stored since it was told last."""
        if time.monotonic() < self._next and not now:
            return False
        source = self._source
        oldest = source.oldest
        age = max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest is not None else None
        one = Presence(self._id, self._name, source.name, source.lag, source.lag_unit, age)
        try:
            with self._engine.begin() as connection:
                if not self._begun:
                    forget_old(connection)
                report(connection, one, stored=stored)
        except SQLAlchemyError:
            self._next = time.monotonic() + _AFTER_FAILURE_SECONDS
            return False
        self._begun = True
        self._next = time.monotonic() + _EVERY_SECONDS
        return True
