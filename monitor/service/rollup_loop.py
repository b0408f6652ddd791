"""Rollups for dashboards, brought up to date once a minute beside whatever the process does.

Contract: within `rolling_up(engine)` a thread calls `storage.rollup.roll_up`; any number of processes may, one at a
time works. A database that is away is waited for, and told once; nothing it meets stops the process, nor delays its
end by more than a few seconds: what is in hand then is rolled back, and done by the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from storage.rollup import roll_up

EVERY_SECONDS = 60.0
_LAST_SECONDS = 5.0


@contextmanager
def rolling_up(engine: Engine, say: Callable[[str], object], every: float = EVERY_SECONDS) -> Iterator[None]:
    """The first time at once."""
    ended = threading.Event()

    def work() -> None:
        pause, told = 0.0, False
        while not ended.wait(pause):
            pause = every
            try:
                roll_up(engine)
                told = False
            except Exception as error:  # a thread that ended would be dashboards that stand still
                if not told and not ended.is_set():
                    say(f"dashboards: scores are not rolled up ({type(error).__name__})")
                told = True

    thread = threading.Thread(target=work, name="rollup", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST_SECONDS)
