"""Telling everything that stands, again and again: what an Alertmanager wants instead of news.

Contract: `current` lists each alert that a destination was told of and that is open or acknowledged, and for
TELL_ENDED after its end (resolved, or silenced) each that ended, with the time; an alert that got graver has ended at
its old severity, since severity is part of an Alertmanager's identity of it. `refresh` sends the list when it is time:
one loop at a time, by the row of the destination. Times are the database's.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update

from alerts.delivery.channel import Courier
from alerts.delivery.lease import Clock
from alerts.delivery.queue import Claim, Result, answered, open_for_sending, refused
from alerts.senders.base import DeliveryError, Event
from storage.schema import alerts, destinations, outbox

TELL_ENDED = timedelta(minutes=15)
# Without news for so many refreshes an alert ends by itself, over there.
MISSED_REFRESHES = 4
_LEAST_LIFE = timedelta(minutes=5)
_SHOWN = ("alert_id", "dedup_key", "rule", "kind", "probe", "tenant", "model", "conversation_id", "units")


def current(
    connection: Connection, name: str, courier: Courier, now: datetime, also: Sequence[uuid.UUID] = ()
) -> list[dict[str, Any]]:
    """What stands and what ended lately, and `also` these alerts; oldest first. Each has `starts_at` and `ends_at`."""
    first = func.min(outbox.c.created_at)
    severity = outbox.c.body["data"]["severity"].astext
    query = (
        select(alerts, severity.label("told"), first.label("told_at"))
        .join(outbox, outbox.c.alert_id == alerts.c.id)
        .where(
            outbox.c.destination == name,
            (alerts.c.state != "resolved") | (alerts.c.resolved_at >= now - TELL_ENDED) | alerts.c.id.in_(also),
        )
        .group_by(alerts.c.id, severity)
        .order_by(alerts.c.opened_at, first)
    )
    life = max(_LEAST_LIFE, MISSED_REFRESHES * (courier.refresh or timedelta()))
    rows = connection.execute(query).all()
    told_now = {row.id: row.told_at for row in rows if row.told == row.severity}
    found = []
    for row in rows:
        fires = row.state in ("open", "acknowledged") and row.told == row.severity
        ended = told_now.get(row.id) if row.told != row.severity else row.resolved_at or row.silenced_at
        ends_at = now + life if fires else ended or now
        if fires or ends_at >= now - TELL_ENDED or row.id in also:
            found.append(_entry(row, courier, fires, ends_at))
    return found


def _entry(row: Any, courier: Courier, fires: bool, ends_at: datetime) -> dict[str, Any]:
    values = {**row._mapping, "alert_id": row.id}
    data = {name: str(values[name]) if values[name] is not None else None for name in _SHOWN}
    entry: dict[str, Any] = {
        **data,
        "severity": row.told,
        "state": row.state,
        "count": row.count,
        "score": round(row.top_score, 6),
        "threshold": round(row.threshold, 6),
        "top_message": row.top_message,
        "firing": fires,
        "starts_at": row.opened_at.isoformat(),
        "ends_at": max(ends_at, row.opened_at).isoformat(),
    }
    return entry | {"links": courier.links.of(entry)}


def refresh(engine: Engine, name: str, courier: Courier, clock: Clock) -> Result | None:
    """Tell what stands when it is time to; None when it is not, or nothing stands."""
    if courier.refresh is None:
        return None
    with engine.begin() as connection:
        now = clock(connection)
        if not open_for_sending(connection, name, courier, now):
            return None
        mine = destinations.c.name == name
        last = connection.execute(select(destinations.c.refreshed_at).where(mine)).scalar_one()
        if last is not None and last <= now < last + courier.refresh:
            return None
        connection.execute(update(destinations).where(mine).values(refreshed_at=now))
        found = current(connection, name, courier, now)
    if not found:
        return None
    event = Event(uuid.uuid4(), name, "alerts.standing", {"alerts": found}, 1, now)
    try:
        courier.sender.send(event)
    except DeliveryError as error:
        with engine.begin() as connection:
            if error.fault == "page":
                answered(connection, name)
            else:
                refused(connection, name, error, clock(connection))
        return "gone" if error.fault == "gone" else "retried"
    with engine.begin() as connection:
        answered(connection, name)
    return "sent"


def as_it_stands(connection: Connection, claim: Claim, name: str, courier: Courier, now: datetime) -> Event:
    """A page for a destination that wants to know what stands: its own alerts, as they are by now."""
    query = select(outbox.c.alert_id).where(outbox.c.page_id == claim.event.id).distinct()
    also = list(connection.execute(query).scalars())
    return replace(claim.event, body={"alerts": current(connection, name, courier, now, also)})
