"""The sending loop: a thread a destination, so that a slow one holds up no other.

Contract: `run` sends until `wait` says stop, then ends after the pages in hand. A database that is away, or a defect,
is told once and waited out: nothing is lost, since what was left is in the tables. `tell` gets what was sent to whom.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from alerts.delivery.channel import Courier
from alerts.delivery.deliver import Delivered, deliver_due
from storage.errors import StorageError

Tell = Callable[[Delivered], None]
Say = Callable[[str], None]


def run(
    engine: Engine,
    couriers: Mapping[str, Courier],
    wait: Callable[[float], bool],
    every: float,
    tell: Tell,
    say: Say,
) -> None:
    """Send what becomes due, looking every so many seconds, until `wait(seconds)` is True."""
    ended = threading.Event()
    threads = [
        threading.Thread(
            target=_serve, args=(engine, name, courier, ended, every, tell, say), name=f"send {name}", daemon=True
        )
        for name, courier in couriers.items()
    ]
    for thread in threads:
        thread.start()
    try:
        while not wait(3600):
            pass
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _serve(
    engine: Engine, name: str, courier: Courier, ended: threading.Event, every: float, tell: Tell, say: Say
) -> None:
    said = ""
    pause = 0.0
    while not ended.wait(pause):
        pause = every
        try:
            done = deliver_due(engine, {name: courier}, limit=1)
        except Exception as error:  # a thread that ended would be a destination that nobody sends to
            why = _why(error)
            if why != said:
                say(f"{name}: {why}; what waits is sent when that is over")
            said = why
            continue
        said = ""
        tell(done)
        if done.by_destination:
            pause = 0.0


def _why(error: Exception) -> str:
    """By class: the text of an error may quote a row."""
    known = isinstance(error, DBAPIError | StorageError)
    return ("the database does not answer" if known else "a defect of awry") + f" ({type(error).__name__})"
