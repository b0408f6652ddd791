"""Renews the lease of a claim while a sender works, however slow the receiver is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from alerts.delivery import queue
from alerts.delivery.queue import Claim
from awry.periodic import NEVER, periodic

Clock = Callable[[Connection], datetime]
# A sender that takes longer than this hangs: another loop may try.
MAX_HOLD_SECONDS = 600.0


@contextmanager
def renewing_lease(engine: Engine, claim: Claim, clock: Clock) -> Iterator[None]:
    """Renews the claim each third of its lease until the block ends."""
    every = queue.LEASE.total_seconds() / 3
    most = int(MAX_HOLD_SECONDS / every)
    renewals = count(1)

    def renew_once() -> float:
        try:
            with engine.begin() as connection:
                ours = queue.renew(connection, claim, clock(connection))
        except DBAPIError:  # no database: the lease may expire, and the notification be sent twice under one id
            ours = True
        return every if ours and next(renewals) < most else NEVER

    with periodic(renew_once, every=every, first=every, name="lease"):
        yield
