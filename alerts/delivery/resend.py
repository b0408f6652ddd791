"""Re-sends all firing alerts on an interval: Alertmanager's push model.

Contract: `current_alerts` lists each alert that a destination was notified of and that is open or acknowledged, and,
for RESEND_ENDED after its end (resolved, or silenced), each that ended, with the time. When the severity of an alert
increases, it has ended at its old severity, since severity is one of the labels by which an Alertmanager identifies it.
`resend` sends the list when it is time: one loop at a time, by a lock on the destination's row. Times are the
database's.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, select, update

from alerts.delivery.channel import Channel
from alerts.delivery.lease import Clock
from alerts.delivery.queue import Claim, Result, mark_reachable, mark_unreachable, may_send
from alerts.senders.base import DeliveryError, Notification
from storage.schema import alerts, destinations, outbox

RESEND_ENDED = timedelta(minutes=15)
# An alert that is not sent again for so many intervals ends by itself in the Alertmanager.
MISSED_RESENDS = 4
_MIN_LIFE = timedelta(minutes=5)
_COLUMNS = ("alert_id", "dedup_key", "rule", "kind", "probe", "tenant", "model", "conversation_id", "units")


def current_alerts(
    connection: Connection, name: str, channel: Channel, now: datetime, also: Sequence[uuid.UUID] = ()
) -> list[dict[str, Any]]:
    """The alerts that fire or ended lately, and `also` these, oldest first. Each has `starts_at` and `ends_at`."""
    first_notified = func.min(outbox.c.created_at)
    severity = outbox.c.body["data"]["severity"].astext
    query = (
        select(alerts, severity.label("notified_severity"), first_notified.label("notified_at"))
        .join(outbox, outbox.c.alert_id == alerts.c.id)
        .where(
            outbox.c.destination == name,
            _let_go(channel),
            (alerts.c.state != "resolved") | (alerts.c.resolved_at >= now - RESEND_ENDED) | alerts.c.id.in_(also),
        )
        .group_by(alerts.c.id, severity)
        .order_by(alerts.c.opened_at, first_notified)
    )
    life = max(_MIN_LIFE, MISSED_RESENDS * (channel.resend_every or timedelta()))
    rows = connection.execute(query).all()
    has_its_severity_since = {row.id: row.notified_at for row in rows if row.notified_severity == row.severity}
    entries = []
    for row in rows:
        same_severity = row.notified_severity == row.severity
        firing = same_severity and row.state in ("open", "acknowledged")
        ended = row.resolved_at or row.silenced_at if same_severity else has_its_severity_since.get(row.id)
        ends_at = now + life if firing else ended or now
        if firing or ends_at >= now - RESEND_ENDED or row.id in also:
            entries.append(_entry(row, channel, firing, ends_at))
    return entries


def _let_go(channel: Channel) -> ColumnElement[bool]:
    """Not what is held; where something may be, nor what nobody has looked at yet."""
    if channel.routing is not None and channel.routing.holds:
        return outbox.c.page_id.is_not(None)
    return outbox.c.held_by.is_(None)


def _entry(row: Any, channel: Channel, firing: bool, ends_at: datetime) -> dict[str, Any]:
    values = {**row._mapping, "alert_id": row.id}
    data = {name: str(values[name]) if values[name] is not None else None for name in _COLUMNS}
    entry: dict[str, Any] = {
        **data,
        "severity": row.notified_severity,
        "state": row.state,
        "count": row.count,
        "score": round(row.top_score, 6),
        "threshold": round(row.threshold, 6),
        "top_message": row.top_message,
        "firing": firing,
        "starts_at": row.opened_at.isoformat(),
        "ends_at": max(ends_at, row.opened_at).isoformat(),
    }
    return entry | channel.links.about(row.rule) | {"links": channel.links.of(entry)}


def resend(engine: Engine, name: str, channel: Channel, clock: Clock) -> Result | None:
    """Send the current alerts when the interval is over; None when it is not, there are none, or the channel gets each
    event once."""
    if channel.resend_every is None:
        return None
    with engine.begin() as connection:
        now = clock(connection)
        if not may_send(connection, name, channel, now):
            return None
        this_destination = destinations.c.name == name
        last = connection.execute(select(destinations.c.refreshed_at).where(this_destination)).scalar_one()
        if last is not None and last <= now < last + channel.resend_every:
            return None
        connection.execute(update(destinations).where(this_destination).values(refreshed_at=now))
        entries = current_alerts(connection, name, channel, now)
    if not entries:
        return None
    notification = Notification(uuid.uuid4(), name, "alerts.standing", {"alerts": entries}, 1, now)
    try:
        channel.sender.send(notification)
    except DeliveryError as error:
        with engine.begin() as connection:
            if error.fault == "notification":
                mark_reachable(connection, name)
            else:
                mark_unreachable(connection, name, error, clock(connection))
        return "gone" if error.fault == "gone" else "retried"
    with engine.begin() as connection:
        mark_reachable(connection, name)
    return "sent"


def with_current_alerts(connection: Connection, claimed: Claim, channel: Channel, now: datetime) -> Notification:
    """The claimed notification as this channel gets it: where firing alerts are sent again, its alerts as they are by
    now, and all others that fire."""
    notification = claimed.notification
    if channel.resend_every is None:
        return notification
    query = select(outbox.c.alert_id).where(outbox.c.page_id == notification.id).distinct()
    its_alerts = list(connection.execute(query).scalars())
    entries = current_alerts(connection, notification.destination, channel, now, its_alerts)
    return replace(notification, body={"alerts": entries})
