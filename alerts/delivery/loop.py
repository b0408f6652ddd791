"""The delivery loop: a thread a destination, so that a slow one delays no other.

Contract: `run` delivers until `wait` says stop, then ends after the notifications that are being sent. An unavailable
database, or a bug, is reported once and retried: nothing is lost, since what is pending is in the tables.
`on_delivered` gets the counts of each round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from alerts.delivery.channel import Channel
from alerts.delivery.deliver import Delivered, deliver_due
from storage.errors import StorageError

OnDelivered = Callable[[Delivered], None]
Progress = Callable[[str], None]


def run(
    engine: Engine,
    channels: Mapping[str, Channel],
    wait: Callable[[float], bool],
    every: float,
    on_delivered: OnDelivered,
    progress: Progress,
) -> None:
    """Deliver what becomes due, checking every so many seconds, until `wait(seconds)` is True."""
    stopped = threading.Event()
    threads = [
        threading.Thread(
            target=_deliver_to,
            args=(engine, name, channel, stopped, every, on_delivered, progress),
            name=f"send {name}",
            daemon=True,
        )
        for name, channel in channels.items()
    ]
    for thread in threads:
        thread.start()
    try:
        while not wait(3600):
            pass
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _deliver_to(
    engine: Engine,
    name: str,
    channel: Channel,
    stopped: threading.Event,
    every: float,
    on_delivered: OnDelivered,
    progress: Progress,
) -> None:
    reported = ""
    pause = 0.0
    while not stopped.wait(pause):
        pause = every
        try:
            delivered = deliver_due(engine, {name: channel}, limit=1)
        except Exception as error:  # if the thread ended, nobody would send to this destination
            reason = _reason(error)
            if reason != reported:
                progress(f"{name}: {reason}; what waits is sent when that is over")
            reported = reason
            continue
        reported = ""
        on_delivered(delivered)
        if delivered.by_destination:
            pause = 0.0


def _reason(error: Exception) -> str:
    """By class: the text of an error may quote a row."""
    known = isinstance(error, DBAPIError | StorageError)
    return ("the database does not answer" if known else "a defect of awry") + f" ({type(error).__name__})"
