"""Read-only queries for labels from alerts: the messages of alerts that reviewers judged, and their stored texts.

Contract: a verdict is about the messages that its alert had by then; what was added later is not judged by it. Times
are the database's.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, select, tuple_

from storage.coordinates import Coordinates
from storage.schema import alert_messages, alerts, messages

_PLACE = ("source", "partition", "offset", "sub")
_SCORED = messages.c.status.in_(("scored", "truncated"))


@dataclass(frozen=True)
class JudgedMessage:
    """A message of a judged alert; one of several alerts comes once for each. `stored` is whether its text is."""

    at: Coordinates
    day: date
    alert_id: uuid.UUID
    verdict: str
    probe: str | None
    message_id: str | None
    conversation_id: str | None
    text_sha256: str | None
    stored: bool


def messages_of_judged_alerts(connection: Connection, since: timedelta, probe: str | None) -> list[JudgedMessage]:
    """Those of alerts that were judged since then, of this probe or of all, in the order of the stream."""
    a, m = alert_messages.c, messages.c
    same = and_(*(m[name] == a[name] for name in (*_PLACE, "day")), _SCORED)
    query = (
        select(
            *(a[name] for name in _PLACE),
            a.day,
            alerts.c.id,
            alerts.c.verdict,
            alerts.c.probe,
            a.message_id,
            m.conversation_id,
            m.text_sha256,
            m.text.is_not(None),
        )
        .select_from(alert_messages.join(alerts, alerts.c.id == a.alert_id).outerjoin(messages, same))
        .where(alerts.c.verdict.is_not(None), alerts.c.verdict_at > func.now() - since)
        .where(a.added_at <= alerts.c.verdict_at)
        .order_by(*(a[name] for name in _PLACE), alerts.c.verdict_at, alerts.c.id)
    )
    if probe is not None:
        query = query.where(alerts.c.probe == probe)
    # A row is its coordinates, then the fields in their order.
    rows = (tuple(row) for row in connection.execute(query))
    return [JudgedMessage(Coordinates(*row[:4]), *row[4:]) for row in rows]


def stored_texts(connection: Connection, wanted: Sequence[tuple[Coordinates, date]]) -> dict[Coordinates, Any]:
    """The stored texts of scored messages, by their coordinates and days."""
    m = messages.c
    keys = [(at.source, at.partition, at.offset, at.sub, day) for at, day in wanted]
    query = select(*(m[name] for name in _PLACE), m.text).where(
        tuple_(*(m[name] for name in (*_PLACE, "day"))).in_(keys), _SCORED, m.text.is_not(None)
    )
    return {Coordinates(*row[:4]): row[4] for row in connection.execute(query)}
