"""Opening and counting alerts, in the transaction that wrote the scores.

Contract: `record(connection, flagged, destinations)` is called with scores that are new, so that redelivery counts
nothing twice. At most one alert a dedup key is live, whatever the number of workers; a destination gets one outbox
row when the alert opens and one more each time it gets graver. An acknowledged or silenced alert counts on; a
silenced one sends nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from alerts.rules import Flagged, ThresholdRule, worse
from storage.schema import alerts, outbox
from storage.writer import clean

# The predicate of the index, literally: as a bound parameter, PostgreSQL no longer finds the index once the driver has
# prepared the statement and its plan has become a generic one.
_LIVE = text("state <> 'resolved'")


@dataclass(frozen=True)
class Opened:
    """An alert that this batch opened or made graver."""

    alert_id: uuid.UUID
    event: str
    dedup_key: str
    severity: str
    probe: str


def record(
    connection: Connection,
    flagged: Sequence[Flagged],
    destinations: Sequence[str],
    rule: ThresholdRule = ThresholdRule(),  # noqa: B008 - frozen
) -> list[Opened]:
    """Open or count the alerts of newly flagged scores and leave their outbox rows. Returns what is worth telling."""
    groups: dict[str, list[Flagged]] = {}
    for one in flagged:
        groups.setdefault(clean(rule.dedup_key(one)), []).append(one)
    told = []
    # In one order everywhere, so that two workers never wait for each other in a ring.
    for key in sorted(groups):
        told += _record_one(connection, key, groups[key], destinations, rule)
    return told


def _record_one(
    connection: Connection,
    key: str,
    group: Sequence[Flagged],
    destinations: Sequence[str],
    rule: ThresholdRule,
) -> list[Opened]:
    first, top = group[0], max(group, key=lambda f: f.score)
    severity = rule.severity(top)
    row, new = _live_alert(connection, key, first, top, severity, rule)
    graver = not new and worse(row.severity, severity) != row.severity
    changes: dict[str, Any] = {"count": alerts.c.count + len(group), "last_seen_at": func.now()}
    if graver:
        changes["severity"] = severity
    if top.score > row.top_score:
        changes |= {"top_score": top.score, "top_message": _message(top)}
    after = connection.execute(update(alerts).where(alerts.c.id == row.id).values(changes).returning(alerts)).one()
    if after.state == "silenced" or not (new or graver):
        return []
    event = "alert.opened" if new else "alert.worsened"
    _enqueue(connection, after, event, destinations)
    return [Opened(after.id, event, key, after.severity, after.probe)]


def _live_alert(
    connection: Connection, key: str, first: Flagged, top: Flagged, severity: str, rule: ThresholdRule
) -> tuple[Row[Any], bool]:
    """The alert of this key that is not resolved, locked; made with count 0 when there is none."""
    values = {
        "id": uuid.uuid4(),
        "dedup_key": key,
        "rule": rule.name,
        "probe": first.probe,
        "tenant": clean(first.tenant),
        "model": clean(first.model),
        "severity": severity,
        "state": "open",
        "count": 0,
        "top_score": top.score,
        "threshold": first.threshold,
        "first_message": _message(first),
        "top_message": _message(top),
    }
    live = select(alerts).where(alerts.c.dedup_key == key, alerts.c.state != "resolved").with_for_update()
    while True:
        made = connection.execute(
            insert(alerts)
            .values(values)
            .on_conflict_do_nothing(index_elements=[alerts.c.dedup_key], index_where=_LIVE)
            .returning(alerts.c.id)
        ).scalar()
        row = connection.execute(live).one_or_none()
        # Resolved by somebody between the two statements: try again.
        if row is not None:
            return row, made is not None


def _message(flagged: Flagged) -> dict[str, Any]:
    source, partition, offset = flagged.coordinates
    return {
        "source": clean(source),
        "partition": partition,
        "offset": offset,
        "id": clean(flagged.message_id),
        "score": round(flagged.score, 6),
    }


def _enqueue(connection: Connection, alert: Row[Any], event: str, destinations: Sequence[str]) -> None:
    if not destinations:
        return
    body = {
        "type": event,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "alert_id": str(alert.id),
            "dedup_key": alert.dedup_key,
            "rule": alert.rule,
            "severity": alert.severity,
            "probe": alert.probe,
            "tenant": alert.tenant,
            "model": alert.model,
            "count": alert.count,
            "score": round(alert.top_score, 6),
            "threshold": round(alert.threshold, 6),
            "units": "class gaps",
            "first_message": alert.first_message,
            "top_message": alert.top_message,
        },
    }
    connection.execute(
        insert(outbox),
        [
            {"id": uuid.uuid4(), "alert_id": alert.id, "destination": name, "event": event, "body": body}
            for name in destinations
        ],
    )
