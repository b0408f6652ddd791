"""Tells who waits for rows that they are there, by PostgreSQL's LISTEN and NOTIFY.

Contract: `notify(connection)` is sent when the transaction commits, and never if it does not. Within `notified(engine,
wake)` a thread of its own calls `wake()` for each notification, and once whenever it begins to listen, since something
may have come before. It is a hint and no more: who waits looks from time to time all the same. Where notifications do
not arrive (a pooler in transaction mode gives the session that listens to somebody else), a trial finds out, it is said
once, and tried again after ten minutes. A connection that breaks is made again.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from storage.sessions import CONNECT_ARGS

OUTBOX = "awry_outbox"
_TRIAL_SECONDS = 3.0
_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 5.0
_DEAF_SECONDS = 600.0

_NOTIFY = text("SELECT pg_notify(:channel, :payload)")


def notify(connection: Connection) -> None:
    """Rows were put into the outbox."""
    connection.execute(_NOTIFY, {"channel": OUTBOX, "payload": ""})


@contextmanager
def notified(engine: Engine, wake: Callable[[], None], progress: Callable[[str], None]) -> Iterator[None]:
    """See the module."""
    stopped = threading.Event()
    thread = threading.Thread(target=_listen, args=(engine, wake, progress, stopped), name="awry-listen", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(2 * _LOOK_SECONDS + _TRIAL_SECONDS)


def _listen(
    engine: Engine, wake: Callable[[], None], progress: Callable[[str], None], stopped: threading.Event
) -> None:
    own = create_engine(
        engine.url, poolclass=NullPool, hide_parameters=True, connect_args={**CONNECT_ARGS, "connect_timeout": 10}
    )
    told = False
    while not stopped.is_set():
        pause = _AGAIN_SECONDS
        try:
            with own.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(f"LISTEN {OUTBOX}"))
                driver: Any = connection.connection.driver_connection
                if _arrives(engine, driver):
                    told = False
                    wake()
                    while not stopped.is_set():
                        # The generator ends after so long without one.
                        for _ in driver.notifies(timeout=_LOOK_SECONDS):
                            wake()
                else:
                    pause = _DEAF_SECONDS
                    if not told:
                        progress(
                            "notifications of the database do not arrive (a pooler in transaction mode?): what waits "
                            "is looked for every send_every_seconds"
                        )
                    told = True
        except Exception as error:  # whatever breaks, what waits is still looked for from time to time
            if not isinstance(error, DBAPIError | OSError) and not _of_driver(error) and not told:
                progress(f"a defect of awry while listening ({type(error).__name__}): what waits is looked for")
                told = True
        stopped.wait(pause)
    own.dispose()


def _arrives(engine: Engine, driver: Any) -> bool:
    """Whether a notification that another session sends comes here."""
    payload = uuid.uuid4().hex
    with engine.begin() as connection:
        connection.execute(_NOTIFY, {"channel": OUTBOX, "payload": payload})
    return any(each.payload == payload for each in driver.notifies(timeout=_TRIAL_SECONDS))


def _of_driver(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "psycopg"
