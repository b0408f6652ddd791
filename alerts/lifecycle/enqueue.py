"""Enqueues events of alerts into the outbox, and knows which destinations were notified of an alert.

Contract: `enqueue` inserts one row for each destination into the outbox, in the transaction that changed the alert;
where a routing is given, it decides by the alert's labels, and a row names the routes that led there. A body holds ids,
scores and names, no prompt text: `type` (the event), `timestamp`, `data`. `data.score` and `data.threshold` are in
`data.units`; probe, first and top message are null for a rule on the monitor itself. Events: `alert.opened`,
`alert.worsened`, `alert.reopened` (these fire), `alert.acknowledged`, `alert.resolved` (with `by`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, desc, func, select, true
from sqlalchemy.dialects.postgresql import insert

from alerts.lifecycle.states import EventName
from alerts.routing.routing import Destinations, Routing, chosen
from alerts.rules.flagged import evidence
from storage.coordinates import Coordinates
from storage.notify import notify
from storage.schema import alert_messages, alerts, outbox, scores

_TOP = 5


def enqueue(
    connection: Connection,
    alert: Row[Any],
    event: EventName,
    destinations: Destinations | Mapping[str, Sequence[str] | None],
    by: str | None = None,
    *,
    hold: timedelta = timedelta(),
) -> None:
    """Insert one outbox row for each destination, due after `hold`. A worse alert is told to those that were told of it
    before, too: none is left with the lower severity."""
    to = dict(destinations if isinstance(destinations, Mapping) else chosen(destinations, alert._mapping))
    if event == "alert.worsened" and isinstance(destinations, Routing) and destinations.root.children:
        to = notified_destinations(connection, alert.id, resolved=False) | to
    if not to:
        return
    body = {
        "type": event,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "alert_id": str(alert.id),
            "dedup_key": alert.dedup_key,
            "rule": alert.rule,
            "kind": alert.kind,
            "state": alert.state,
            "severity": alert.severity,
            "probe": alert.probe,
            "tenant": alert.tenant,
            "model": alert.model,
            "conversation_id": alert.conversation_id,
            "count": alert.count,
            "score": round(alert.top_score, 6),
            "threshold": round(alert.threshold, 6),
            "units": alert.units,
            "first_message": alert.first_message,
            "top_message": alert.top_message,
            "top_messages": top_messages(connection, alert.id, _TOP),
            "opened_at": alert.opened_at.isoformat(timespec="seconds"),
            "last_seen_at": alert.last_seen_at.isoformat(timespec="seconds"),
            **({"by": by} if by is not None else {}),
        },
    }
    connection.execute(
        insert(outbox).values(due_at=func.now() + hold) if hold else insert(outbox),
        [
            {
                "id": uuid.uuid4(),
                "alert_id": alert.id,
                "destination": name,
                "event": event,
                "body": body,
                "routes": list(routes) if routes else None,
            }
            for name, routes in to.items()
        ],
    )
    if not hold:
        notify(connection)


def notified_destinations(
    connection: Connection, alert_id: uuid.UUID, *, resolved: bool = True
) -> dict[str, Sequence[str] | None]:
    """The destinations with events of an alert in the outbox, sent or pending, with the routes of the last one: those
    that are notified of its end, and no others. `resolved=False` leaves out those whose last event says that it is
    resolved."""
    last = func.row_number().over(partition_by=outbox.c.destination, order_by=desc(outbox.c.seq)).label("age")
    columns = (outbox.c.destination, outbox.c.event, outbox.c.routes, last)
    per_destination = select(*columns).where(outbox.c.alert_id == alert_id).subquery()
    query = select(per_destination.c.destination, per_destination.c.routes).where(per_destination.c.age == 1)
    if not resolved:
        query = query.where(per_destination.c.event != "alert.resolved")
    return {row.destination: row.routes for row in connection.execute(query.order_by(per_destination.c.destination))}


def event_after_silence(connection: Connection, alert_id: uuid.UUID) -> EventName:
    """The event that notifies of an alert whose silence is over: reopened where its opening was notified before."""
    return "alert.reopened" if notified_destinations(connection, alert_id) else "alert.opened"


def top_messages(connection: Connection, alert_id: uuid.UUID, limit: int) -> list[dict[str, Any]]:
    """An alert's messages with the highest scores: coordinates, ids and scores, and what decided those."""
    c, told = alert_messages.c, scores.c
    same = [told[name] == c[name] for name in ("source", "partition", "offset", "sub", "day")]
    decided = (
        select(told.reading, told.top_turn, told.turn_new)
        .where(*same, told.probe == alerts.c.probe)
        .order_by(told.created_at.desc())
        .limit(1)
        .lateral("decided")
    )
    query = (
        select(alert_messages, decided.c.reading, decided.c.top_turn, decided.c.turn_new)
        .select_from(alert_messages.join(alerts, alerts.c.id == c.alert_id).outerjoin(decided, true()))
        .where(c.alert_id == alert_id)
        .order_by(desc(c.score), c.source, c.partition, c.offset, c.sub)
        .limit(limit)
    )
    return [
        message_reference(
            Coordinates(r.source, r.partition, r.offset, r.sub),
            r.message_id,
            r.score,
            evidence(r.reading, r.top_turn, r.turn_new),
        )
        for r in connection.execute(query)
    ]


def message_reference(
    at: Coordinates, message_id: str | None, score: float, evidence: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A message as alerts refer to it: its coordinates (`sub` only where it is not 0), its id, the value that the rule
    measures, and what decided it (`reading`, `turn` from 0, `turn_new`) where that is known."""
    sub = {"sub": at.sub} if at.sub else {}
    place = {"source": at.source, "partition": at.partition, "offset": at.offset, **sub}
    return {**place, "id": message_id, "score": round(score, 6), **(evidence or {})}
