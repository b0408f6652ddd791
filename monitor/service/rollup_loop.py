"""Rollups for dashboards, brought up to date once a minute in a thread of any process.

Contract: within `rolling_up(engine)` a thread calls `storage.rollup.roll_up`; any number of processes may, one at a
time works. A database that does not answer is waited for, and reported once; no error stops the process, nor delays its
end by more than a few seconds: what is in progress then is rolled back, and done by the next process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from awry.periodic import periodic
from storage.rollup import roll_up

EVERY_SECONDS = 60.0
_JOIN_SECONDS = 5.0


@contextmanager
def rolling_up(engine: Engine, report: Callable[[str], object], every: float = EVERY_SECONDS) -> Iterator[None]:
    """Roll up at once and then every `every` seconds, until the block ends; `report` takes what went wrong."""
    ending = threading.Event()
    reported = False

    def work() -> None:
        nonlocal reported
        try:
            roll_up(engine)
            reported = False
        except Exception as error:  # a thread that ended would leave dashboards out of date
            if not reported and not ending.is_set():
                report(f"dashboards: scores are not rolled up ({type(error).__name__})")
            reported = True

    with periodic(work, every=every, name="rollup", join_seconds=_JOIN_SECONDS):
        try:
            yield
        finally:
            ending.set()
