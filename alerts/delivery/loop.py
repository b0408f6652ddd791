"""The delivery loop: a thread a destination, so that a slow one delays no other.

Contract: `run` delivers until `wait` says stop, then ends after the notifications that are being sent. It looks when
the database says that something was enqueued (`storage.notify`), and every so many seconds. An unavailable database, or
a bug, is reported once and retried: nothing is lost, since what is pending is in the tables. `on_delivered` gets the
counts of each round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from alerts.delivery.channel import Channel
from alerts.delivery.deliver import Delivered, deliver_due
from storage.errors import StorageError
from storage.notify import notified

OnDelivered = Callable[[Delivered], None]
Progress = Callable[[str], None]
# Whoever may connect can send notifications: they make nobody look more often than this.
_LEAST_SECONDS = 0.02


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
    bells = [threading.Event() for _ in channels]
    threads = [
        threading.Thread(
            target=_deliver_to,
            args=(engine, name, channel, stopped, bell, every, on_delivered, progress),
            name=f"send {name}",
            daemon=True,
        )
        for bell, (name, channel) in zip(bells, channels.items(), strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        with notified(engine, lambda: _ring(bells), progress):
            while not wait(3600):
                pass
    finally:
        stopped.set()
        _ring(bells)
        for thread in threads:
            thread.join()


def _ring(bells: Sequence[threading.Event]) -> None:
    for bell in bells:
        bell.set()


def _deliver_to(
    engine: Engine,
    name: str,
    channel: Channel,
    stopped: threading.Event,
    bell: threading.Event,
    every: float,
    on_delivered: OnDelivered,
    progress: Progress,
) -> None:
    reported = ""
    pause = 0.0
    while not stopped.is_set():
        bell.wait(pause)
        if stopped.wait(_LEAST_SECONDS if pause else 0.0):
            return
        # Before looking: what is enqueued while it looks rings again.
        bell.clear()
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
