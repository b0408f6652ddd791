"""Opening and counting alerts, in the transaction that wrote the scores.

Contract: `record(connection, flagged, destinations, rules)` is called with scores that are new, so that redelivery
counts nothing twice. At most one alert a dedup key is live, whatever the number of workers; a destination gets one
outbox row when the alert opens or reopens and one more each time it gets graver. An acknowledged or silenced alert
counts on; a silenced one sends nothing, until it is graver than when it was silenced. Rules in shadow open nothing:
`would_alert` says what they would have done.

Keys are taken in one order everywhere, so that two workers never wait for each other in a ring. Times are the
database's.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

from sqlalchemy import Connection, Row, desc, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from alerts.lifecycle.audit import by_rule, leave
from alerts.lifecycle.enqueue import message, news_after_silence, tell
from alerts.lifecycle.silences import Silence, longest, opening
from alerts.lifecycle.states import EventName, Sighting, sighting
from alerts.rules.model import Flagged, ThresholdRule, worse
from storage.bulk import insert_rows
from storage.schema import alert_messages, alerts
from storage.writer import clean

# The predicate of the index, literally: as a bound parameter, PostgreSQL no longer finds the index once the driver has
# prepared the statement and its plan has become a generic one.
_LIVE = text("state <> 'resolved'")
TAKE_KEY = text("SELECT pg_advisory_xact_lock(hashtextextended('awry alert ' || :key, 0))")


@dataclass(frozen=True)
class Opened:
    """An alert that was opened, reopened or made graver; `suppressed`: a silence kept it from being told."""

    alert_id: uuid.UUID
    event: str
    dedup_key: str
    severity: str
    probe: str | None
    suppressed: bool = False


@dataclass(frozen=True)
class Breach:
    """A rule's condition holds for one dedup key: how gravely, by which value in which units, of whom, and which
    messages it newly concerns (columns of `alert_messages`, the alert's id left out)."""

    dedup_key: str
    rule: str
    kind: str
    severity: str
    value: float
    limit: float
    units: str
    count: int
    probe: str | None = None
    tenant: str | None = None
    model: str | None = None
    conversation_id: str | None = None
    messages: Sequence[dict[str, Any]] = ()
    reopen_within: timedelta = timedelta()


def record(
    connection: Connection,
    flagged: Sequence[Flagged],
    destinations: Sequence[str],
    rules: Sequence[ThresholdRule] = (ThresholdRule(),),
) -> list[Opened]:
    """Open or count the alerts of newly flagged scores and leave their outbox rows. Returns what is new."""
    found = [_breach(rule, group) for rule, group in _groups(flagged, [r for r in rules if not r.shadow])]
    return breach(connection, found, destinations)


def would_alert(
    flagged: Sequence[Flagged], rules: Sequence[ThresholdRule], quiet: Collection[str] = ()
) -> list[tuple[str, str]]:
    """(probe, severity) of each alert that probes in `quiet`, or rules in shadow, would have opened or counted."""
    by_probes = _groups([one for one in flagged if one.probe in quiet], rules)
    by_rules = _groups([one for one in flagged if one.probe not in quiet], [rule for rule in rules if rule.shadow])
    return [(group[0].probe, _severity(rule, group)) for rule, group in by_probes + by_rules]


def breach(connection: Connection, found: Sequence[Breach], destinations: Sequence[str]) -> list[Opened]:
    """Open, reopen or count the alerts of these breaches, tell what is new, and return it."""
    if not found:
        return []
    silences = opening(connection)
    changed = [_one(connection, b, silences) for b in sorted(found, key=lambda b: b.dedup_key)]
    insert_rows(connection, alert_messages, [m | {"alert_id": row.id} for row, b, _ in changed for m in b.messages])
    new = []
    for row, _, seen in changed:
        if seen.event is not None:
            event = seen.event
            if seen.silence_over:
                event = news_after_silence(connection, row.id)
            if not seen.suppressed:
                tell(connection, row, event, destinations)
            new.append(Opened(row.id, event, row.dedup_key, row.severity, row.probe, seen.suppressed))
    return new


def _one(connection: Connection, one: Breach, silences: Sequence[Silence]) -> tuple[Row[Any], Breach, Sighting]:
    row, before, seen = _live(connection, one, silences)
    changes: dict[str, Any] = {
        "count": alerts.c.count + one.count,
        # Never back: the clock may have jumped.
        "last_seen_at": func.greatest(alerts.c.last_seen_at, func.now()),
        "state": seen.state,
        "severity": seen.severity,
    }
    if one.value > row.top_score:
        changes |= {"top_score": one.value, "threshold": one.limit}
    top = _top(one) if one.messages else None
    if top is not None and (row.top_message is None or top["score"] > row.top_message["score"]):
        changes["top_message"] = top
    after = connection.execute(update(alerts).where(alerts.c.id == row.id).values(changes).returning(alerts)).one()
    now = {"state": after.state, "severity": after.severity}
    if before != now:
        action = (seen.event or "alert.unsilenced").removeprefix("alert.")
        leave(connection, by_rule(one.rule), action, alert_id=row.id, before=before, after=now)
    return after, one, seen


def _live(
    connection: Connection, one: Breach, silences: Sequence[Silence]
) -> tuple[Row[Any], dict[str, Any] | None, Sighting]:
    """The alert of this key that is not resolved, locked; its state and severity before; and what is new of it."""
    over = func.coalesce(alerts.c.silenced_until <= func.now(), False).label("silence_over")
    live = select(alerts, over).where(alerts.c.dedup_key == one.dedup_key, _LIVE).with_for_update()
    row = connection.execute(live).one_or_none()
    while row is None:
        # Opening and reopening a key exclude each other.
        connection.execute(TAKE_KEY, {"key": one.dedup_key})
        # Somebody else may have opened it before the lock was ours.
        row = connection.execute(live).one_or_none()
        if row is not None:
            break
        whose = {name: getattr(one, name) for name in ("dedup_key", "rule", "probe", "tenant", "model", "severity")}
        hush = longest(silences, whose)
        before = _reopen(connection, one, hush)
        if before is None:
            connection.execute(
                insert(alerts)
                .values(whose | _new_values(one) | _silenced(hush, one.severity))
                .on_conflict_do_nothing(index_elements=[alerts.c.dedup_key], index_where=_LIVE)
            )
        row = connection.execute(live).one_or_none()
        if row is not None:
            event: EventName = "alert.reopened" if before else "alert.opened"
            return row, before, Sighting(row.state, one.severity, event, suppressed=hush is not None)
    seen = sighting(
        row.state,
        row.severity,
        one.severity,
        acknowledged=row.acknowledged_at is not None,
        silenced_severity=row.silenced_severity,
        silence_over=row.silence_over,
    )
    return row, {"state": row.state, "severity": row.severity}, seen


def _reopen(connection: Connection, one: Breach, hush: Silence | None) -> dict[str, Any] | None:
    """Open the key's last alert again where it was resolved so recently; None where it stays closed. One that was
    judged does: the judgement is of what it held."""
    if not one.reopen_within:
        return None
    last = connection.execute(
        select(alerts.c.id, alerts.c.verdict, alerts.c.severity)
        .where(
            alerts.c.dedup_key == one.dedup_key,
            alerts.c.state == "resolved",
            alerts.c.resolved_at > func.now() - one.reopen_within,
        )
        .order_by(desc(alerts.c.resolved_at))
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if last is None or last.verdict is not None:
        return None
    values = reopened_values() | {"severity": one.severity} | _silenced(hush, one.severity)
    connection.execute(update(alerts).where(alerts.c.id == last.id).values(values))
    return {"state": "resolved", "severity": last.severity}


def reopened_values() -> dict[str, Any]:
    """What reopening changes in the row."""
    return {
        "state": "open",
        "reopened": alerts.c.reopened + 1,
        "resolved_at": None,
        "resolved_by": None,
        "acknowledged_at": None,
        "acknowledged_by": None,
        "silenced_at": None,
        "silenced_until": None,
        "silenced_severity": None,
    }


def _silenced(hush: Silence | None, severity: str) -> dict[str, Any]:
    if hush is None:
        return {}
    return {
        "state": "silenced",
        "silenced_at": func.now(),
        "silenced_until": hush.ends_at,
        "silenced_severity": severity,
    }


def _new_values(one: Breach) -> dict[str, Any]:
    first = one.messages[0] if one.messages else None
    return {
        "id": uuid.uuid4(),
        "kind": one.kind,
        "conversation_id": one.conversation_id,
        "state": "open",
        "count": 0,
        "top_score": one.value,
        "threshold": one.limit,
        "units": one.units,
        "first_message": _named(first) if first else None,
        "top_message": _top(one) if first else None,
    }


def _top(one: Breach) -> dict[str, Any]:
    return _named(max(one.messages, key=lambda m: cast(float, m["score"])))


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return message(row["source"], row["partition"], row["offset"], row["message_id"], row["score"])


def _groups(flagged: Sequence[Flagged], rules: Sequence[ThresholdRule]) -> list[tuple[ThresholdRule, list[Flagged]]]:
    groups: dict[tuple[int, str], list[Flagged]] = {}
    for one in flagged:
        for number, rule in enumerate(rules):
            if rule.concerns(one):
                groups.setdefault((number, clean(rule.dedup_key(one))), []).append(one)
    return [(rules[number], group) for (number, _), group in groups.items()]


def _severity(rule: ThresholdRule, group: Sequence[Flagged]) -> str:
    severity: str = "warning"
    for one in group:
        severity = worse(severity, rule.severity_of(one))
    return severity


def _breach(rule: ThresholdRule, group: Sequence[Flagged]) -> Breach:
    first, top = group[0], max(group, key=lambda f: f.score)
    today = datetime.now(UTC).date()
    return Breach(
        dedup_key=clean(rule.dedup_key(first)),
        rule=rule.name,
        kind="threshold",
        severity=_severity(rule, group),
        value=top.score,
        limit=top.threshold,
        units="class gaps",
        count=len(group),
        probe=first.probe,
        tenant=clean(first.tenant) if "tenant" in rule.per else None,
        model=clean(first.model) if "model" in rule.per else None,
        conversation_id=clean(first.conversation_id) if "conversation" in rule.per else None,
        messages=[_row(one, one.day or today) for one in group],
        reopen_within=rule.reopen_within,
    )


def _row(one: Flagged, day: date) -> dict[str, Any]:
    source, partition, offset = one.coordinates
    return {
        "source": clean(source),
        "partition": partition,
        "offset": offset,
        "day": day,
        "message_id": clean(one.message_id),
        "score": one.score,
    }
