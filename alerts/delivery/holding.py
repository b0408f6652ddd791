"""What holds an event in the outbox: a time interval of its routes, an alert that inhibits its alert, a silence.

Contract: `let_go` gets pending events of one group and returns those that may be sent, in the order in which they
happened. The others stay pending, say in `held_by` what holds them, and are looked at again after RECHECK: a changed
configuration needs no more. When an event of an alert may be sent, so may its earlier ones. An alert that was resolved
while all of its events were held is over before anybody was told of it: its events are removed, with an audit row, as
Alertmanager sends nothing then. What was told before is told of its end, when that is no longer held.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, select, update

from alerts.lifecycle.audit import by_rule, write_audit_row
from alerts.routing.inhibition import LiveAlert, inhibitors
from alerts.routing.live import live_alerts
from alerts.routing.matchers import labels_of
from alerts.routing.routing import Routing
from storage.schema import alerts, outbox

# No later than a row may be due without being taken for one from before a clock was set back.
RECHECK = timedelta(seconds=30)
_UNFORMED = and_(outbox.c.page_id.is_(None), outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None))


def let_go(
    connection: Connection, name: str, routing: Routing, rows: Sequence[Row[Any]], now: datetime
) -> list[Row[Any]]:
    """The events of a destination's group that may be sent now."""
    if not routing.holds and not any(row.held_by for row in rows):
        return list(rows)
    rows = _with_earlier(connection, name, rows)
    states = _states(connection, rows)
    live = live_alerts(connection) if routing.inhibit_rules else []
    reasons = {row.id: _reason(routing, row, states, live, now) for row in rows}
    by_alert: dict[uuid.UUID, list[Row[Any]]] = {}
    for row in rows:
        by_alert.setdefault(row.alert_id, []).append(row)
    free, held = list[Row[Any]](), list[Row[Any]]()
    for events in by_alert.values():
        last = max((i for i, row in enumerate(events) if reasons[row.id] is None), default=-1)
        free += events[: last + 1]
        held += events[last + 1 :]
    _hold(connection, held, reasons, now)
    over = _over_before_told(connection, name, free)
    for alert_id, events in over.items():
        _remove(connection, name, alert_id, events)
    return sorted((row for row in free if row.alert_id not in over), key=lambda row: row.seq)


def _with_earlier(connection: Connection, name: str, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """These, and the events of the same alerts that wait for their next look."""
    found = {row.id: row for row in rows}
    query = select(outbox).where(
        outbox.c.alert_id.in_({row.alert_id for row in rows}),
        outbox.c.destination == name,
        outbox.c.held_by.is_not(None),
        outbox.c.id.not_in(found),
        _UNFORMED,
    )
    found |= {row.id: row for row in connection.execute(query.with_for_update(skip_locked=True))}
    return sorted(found.values(), key=lambda row: row.seq)


def _states(connection: Connection, rows: Iterable[Row[Any]]) -> dict[uuid.UUID, str]:
    query = select(alerts.c.id, alerts.c.state).where(alerts.c.id.in_({row.alert_id for row in rows}))
    return {row.id: row.state for row in connection.execute(query)}


def _reason(
    routing: Routing,
    row: Row[Any],
    states: Mapping[uuid.UUID, str],
    live: Sequence[LiveAlert],
    now: datetime,
) -> str | None:
    muted = routing.held(row.routes, now)
    if muted is not None:
        return muted.by if muted.until is None else f"{muted.by}, until {muted.until:%Y-%m-%d %H:%M} UTC"
    sources = inhibitors(routing.inhibit_rules, live, row.alert_id, labels_of(row.body["data"])) if live else []
    if sources:
        return f"inhibited by alert {str(sources[0].id)[:8]}"
    # Silenced since: what was held until now waits for the end of that, too.
    return "silenced" if row.held_by and states.get(row.alert_id) == "silenced" else None


def _hold(
    connection: Connection, rows: Sequence[Row[Any]], reasons: Mapping[uuid.UUID, str | None], now: datetime
) -> None:
    by_reason: dict[str | None, list[uuid.UUID]] = {}
    for row in rows:
        by_reason.setdefault(reasons[row.id], []).append(row.id)
    for reason, ids in by_reason.items():
        connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(held_by=reason, due_at=now + RECHECK))


def _over_before_told(connection: Connection, name: str, free: Iterable[Row[Any]]) -> dict[uuid.UUID, list[Row[Any]]]:
    """Alerts that were resolved while held, of which this destination got nothing: their events."""
    by_alert: dict[uuid.UUID, list[Row[Any]]] = {}
    for row in free:
        by_alert.setdefault(row.alert_id, []).append(row)
    over = {
        alert_id: events
        for alert_id, events in by_alert.items()
        if events[-1].event == "alert.resolved" and any(row.held_by for row in events)
    }
    told = select(outbox.c.alert_id).where(
        outbox.c.alert_id.in_(over), outbox.c.destination == name, outbox.c.page_id.is_not(None)
    )
    for alert_id in connection.execute(told).scalars() if over else ():
        over.pop(alert_id, None)
    return over


def _remove(connection: Connection, name: str, alert_id: uuid.UUID, events: Sequence[Row[Any]]) -> None:
    held_by = next(row.held_by for row in events if row.held_by)
    connection.execute(delete(outbox).where(outbox.c.id.in_([row.id for row in events])))
    after = {"destination": name, "events": len(events), "held_by": held_by}
    write_audit_row(connection, by_rule("routing"), "not notified", alert_id=alert_id, after=after)
