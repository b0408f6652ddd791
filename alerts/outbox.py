"""Delivering what the transactions left: its own loop, one row a destination.

Contract: `deliver_due(engine, senders)` claims due rows with SKIP LOCKED under a lease, sends each, and marks it. A
sender that dies after sending and before marking sends again when the lease is over, under the same idempotency key
(the row's id): at-least-once. Failures wait longer each time (Standard Webhooks' schedule, with jitter), `Retry-After`
is honoured, and after the last try, or at once when the receiver says it is gone, the row is dead and visible.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, func, select, update

from alerts.senders.base import DeliveryError, Event, Sender
from storage.schema import outbox

LEASE = timedelta(seconds=60)
# Seconds to wait after the nth failure: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
SCHEDULE = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)

# A receiver may ask for a longer wait than the schedule's, but not for ever.
LONGEST_WAIT = 7 * 86400


@dataclass
class Delivered:
    """What one round did, and to which destination: (name, sent | retried | dead)."""

    sent: int = 0
    failed: int = 0
    dead: int = 0
    by_destination: Counter[tuple[str, str]] = field(default_factory=Counter, compare=False)


def deliver_due(engine: Engine, senders: Mapping[str, Sender], limit: int = 50) -> Delivered:
    """Send every due row of these senders' destinations once."""
    with engine.begin() as connection:
        claimed = _claim(connection, list(senders), limit)
    done = Delivered()
    for event in claimed:
        try:
            senders[event.destination].send(event)
        except DeliveryError as error:
            with engine.begin() as connection:
                dead = _failed(connection, event, error)
            done.dead += dead
            done.failed += not dead
            done.by_destination[event.destination, "dead" if dead else "retried"] += 1
        else:
            with engine.begin() as connection:
                connection.execute(
                    update(outbox).where(outbox.c.id == event.id).values(delivered_at=func.now(), last_error=None)
                )
            done.sent += 1
            done.by_destination[event.destination, "sent"] += 1
    return done


def _claim(connection: Connection, destinations: list[str], limit: int) -> list[Event]:
    due = (
        select(outbox.c.id)
        .where(
            outbox.c.delivered_at.is_(None),
            outbox.c.dead_at.is_(None),
            outbox.c.due_at <= func.now(),
            outbox.c.destination.in_(destinations),
        )
        .order_by(outbox.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(
        update(outbox)
        .where(outbox.c.id.in_(due.scalar_subquery()))
        .values(attempts=outbox.c.attempts + 1, due_at=func.now() + LEASE)
        .returning(outbox)
    ).all()
    return [
        Event(r.id, r.destination, r.event, r.body, r.attempts, r.created_at)
        for r in sorted(rows, key=lambda r: r.created_at)
    ]


def _failed(connection: Connection, event: Event, error: DeliveryError) -> bool:
    dead = error.gone or event.attempts > len(SCHEDULE)
    values: dict[str, object] = {"last_error": str(error)[:500]}
    if dead:
        values["dead_at"] = func.now()
    else:
        values["due_at"] = datetime.now(UTC) + timedelta(seconds=wait_after(event.attempts, error.retry_after))
    connection.execute(update(outbox).where(outbox.c.id == event.id).values(values))
    return dead


def wait_after(attempts: int, retry_after: float | None = None) -> float:
    """Seconds until the next try after `attempts` failed ones: the schedule, up to 20 % later, never before
    what the receiver asked for, up to a week."""
    planned = SCHEDULE[min(attempts, len(SCHEDULE)) - 1]
    jittered = planned * random.uniform(1.0, 1.2)  # noqa: S311 - spreading retries, not secrets
    return max(jittered, min(retry_after or 0.0, LONGEST_WAIT))
