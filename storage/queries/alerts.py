"""Read-only queries on alerts, their verdicts and their history, and on silences."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, desc, func, select

from storage.coordinates import Coordinates
from storage.schema import alert_messages, alerts, audit, outbox, silences


def list_alerts(
    connection: Connection, state: str | None = None, limit: int = 50, **named: str | None
) -> list[dict[str, Any]]:
    """Alerts, newest first; `named` are columns and what they must be, None where anything will do."""
    query = select(alerts).order_by(desc(alerts.c.last_seen_at)).limit(limit)
    for name, value in {"state": state, **named}.items():
        if value is not None:
            query = query.where(alerts.c[name] == value)
    return [dict(r) for r in connection.execute(query).mappings()]


def live_alert_counts(connection: Connection) -> dict[tuple[str, ...], int]:
    """Number of alerts that are not resolved, by (state, severity)."""
    query = (
        select(alerts.c.state, alerts.c.severity, func.count())
        .where(alerts.c.state != "resolved")
        .group_by(alerts.c.state, alerts.c.severity)
    )
    return {(state, severity): int(n) for state, severity, n in connection.execute(query)}


def verdict_counts(connection: Connection) -> dict[tuple[str, str | None], dict[str | None, int]]:
    """By (rule, probe): number of alerts by verdict; None: not judged."""
    query = select(alerts.c.rule, alerts.c.probe, alerts.c.verdict, func.count())
    counts: dict[tuple[str, str | None], dict[str | None, int]] = {}
    grouped = query.group_by(alerts.c.rule, alerts.c.probe, alerts.c.verdict).order_by(alerts.c.rule, alerts.c.probe)
    for rule, probe, verdict, n in connection.execute(grouped):
        counts.setdefault((rule, probe), {})[verdict] = int(n)
    return counts


def judged_messages(connection: Connection, probe: str, verdicts: tuple[str, ...]) -> set[Coordinates]:
    """Messages of this probe's alerts with one of `verdicts`, without those added after the verdict."""
    coordinates = tuple(alert_messages.c[name] for name in ("source", "partition", "offset", "sub"))
    query = (
        select(*coordinates)
        .join(alerts, alerts.c.id == alert_messages.c.alert_id)
        .where(alerts.c.probe == probe, alerts.c.verdict.in_(verdicts))
        .where(alert_messages.c.added_at <= alerts.c.verdict_at)
    )
    return {Coordinates(*row) for row in connection.execute(query)}


def alert_by_id(connection: Connection, alert_id: uuid.UUID) -> dict[str, Any] | None:
    """One alert."""
    row = connection.execute(select(alerts).where(alerts.c.id == alert_id)).mappings().one_or_none()
    return dict(row) if row is not None else None


def alert_history(connection: Connection, alert_id: uuid.UUID) -> list[dict[str, Any]]:
    """The audit of an alert, oldest first."""
    query = select(audit).where(audit.c.alert_id == alert_id).order_by(audit.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def alert_deliveries(connection: Connection, alert_id: uuid.UUID) -> list[dict[str, Any]]:
    """What was, or will be, sent about an alert, oldest first."""
    columns = (
        "destination",
        "event",
        "created_at",
        "attempts",
        "delivered_at",
        "dead_at",
        "last_error",
        "held_by",
        "routes",
    )
    query = select(*(outbox.c[name] for name in columns)).where(outbox.c.alert_id == alert_id)
    return [dict(row) for row in connection.execute(query.order_by(outbox.c.created_at)).mappings()]


def active_silences(connection: Connection) -> list[dict[str, Any]]:
    """Silences that hold, the first to end first."""
    query = select(silences).where(silences.c.ends_at > func.now()).order_by(silences.c.ends_at)
    return [dict(row) for row in connection.execute(query).mappings()]
