"""The outbox for operators (`awry outbox`): list, retry, enable.

Contract: reads and changes rows, sends nothing. A notification that was given up and is retried keeps its id and its
body, so that a receiver that had received it recognises it; `everything` makes pending ones due at once too. Enabling a
destination resets its failures and ends its pause.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, and_, case, func, select, update

from alerts.ids import by_digits, only
from storage.schema import destinations, outbox

State = Literal["pending", "delivered", "dead"]

_OPEN = and_(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None))
_STATES = {
    "pending": _OPEN,
    "delivered": outbox.c.delivered_at.is_not(None),
    "dead": outbox.c.dead_at.is_not(None),
}


@dataclass(frozen=True)
class OutboxEntry:
    """A notification, or an event that waits to be grouped into one (`events` is 1 and `formed` False then). `held_by`
    says what holds it on purpose, `routes` by which routes it goes there."""

    id: uuid.UUID
    destination: str
    event: str
    dedup_key: str
    severity: str
    events: int
    formed: bool
    state: State
    attempts: int
    created_at: datetime
    due_at: datetime
    last_error: str | None
    held_by: str | None
    routes: list[str]


def list_outbox(
    connection: Connection, state: State | None = None, destination: str | None = None, limit: int = 50
) -> list[OutboxEntry]:
    """Notifications, and events that are in none yet, newest first."""
    grouped = outbox.alias("grouped")
    events = select(func.count()).where(grouped.c.page_id == outbox.c.id).scalar_subquery()
    state_name = case((_STATES["dead"], "dead"), (_STATES["delivered"], "delivered"), else_="pending").label("state")
    query = (
        select(outbox, state_name, events.label("events"))
        .where((outbox.c.page_id.is_(None)) | (outbox.c.page_id == outbox.c.id))
        .order_by(outbox.c.seq.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(_STATES[state])
    if destination is not None:
        query = query.where(outbox.c.destination == destination)
    return [_entry(row) for row in connection.execute(query)]


def _entry(row: Any) -> OutboxEntry:
    body = row.page or row.body
    formed = row.page_id is not None
    return OutboxEntry(
        row.id,
        row.destination,
        body["type"] if formed else row.event,
        body["data"]["dedup_key"],
        body["data"]["severity"],
        row.events if formed else 1,
        formed,
        row.state,
        row.attempts,
        row.created_at,
        row.due_at,
        row.last_error,
        row.held_by,
        row.routes or [],
    )


def find_notification(connection: Connection, written: str) -> uuid.UUID:
    """A notification by its id, or the first digits of it."""
    ids = by_digits(connection, outbox.c.id, written, outbox.c.page_id == outbox.c.id)
    return only(ids, "notification", written, "awry outbox list")


def retry(
    connection: Connection,
    ids: Sequence[uuid.UUID] = (),
    destination: str | None = None,
    *,
    everything: bool = False,
) -> int:
    """Make notifications due now: those given up, with `everything` also those that wait. Returns how many."""
    conditions = [outbox.c.page_id == outbox.c.id, outbox.c.delivered_at.is_(None), outbox.c.claim_id.is_(None)]
    if not everything:
        conditions.append(outbox.c.dead_at.is_not(None))
    if ids:
        conditions.append(outbox.c.id.in_(ids))
    if destination is not None:
        conditions.append(outbox.c.destination == destination)
    rows = connection.execute(select(outbox.c.id, outbox.c.destination).where(*conditions).with_for_update()).all()
    chosen = [row.id for row in rows]
    # As if they were formed now: they are not given up at once again.
    values = {"dead_at": None, "due_at": func.now(), "formed_at": func.now(), "refusals": 0}
    connection.execute(update(outbox).where(outbox.c.page_id.in_(chosen)).values(values))
    paused = destinations.c.name.in_({row.destination for row in rows})
    connection.execute(update(destinations).where(paused).values(held_until=None))
    return len(chosen)


def enable(connection: Connection, name: str) -> bool:
    """Send to a destination again that is disabled or paused; False when nothing was ever sent to it."""
    enabled = connection.execute(
        update(destinations)
        .where(destinations.c.name == name)
        .values(disabled_at=None, held_until=None, failures=0, last_error=None)
    )
    return bool(enabled.rowcount)
