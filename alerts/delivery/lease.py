"""Keeping a claim while a sender works, however slow the receiver is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from alerts.delivery.queue import LEASE, Claim, renew

Clock = Callable[[Connection], datetime]
# A sender that takes longer than this hangs: whoever comes next may try.
LONGEST_HOLD_SECONDS = 600.0


@contextmanager
def held(engine: Engine, claim: Claim, clock: Clock) -> Iterator[None]:
    """Renews the claim each third of its lease until the block ends."""
    done = threading.Event()
    every = LEASE.total_seconds() / 3

    def keep() -> None:
        for _ in range(int(LONGEST_HOLD_SECONDS / every)):
            if done.wait(every):
                return
            try:
                with engine.begin() as connection:
                    if not renew(connection, claim, clock(connection)):
                        return
            except DBAPIError:
                continue  # the database is away: the lease may lapse, and the page be sent twice under its one id

    keeper = threading.Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
