"""Opening and counting alerts, in the transaction that wrote the scores.

Contract: `record_flagged(connection, flagged, destinations, rules)` is called with scores that are new, so that
redelivery counts nothing twice. At most one alert a dedup key is live, whatever the number of workers; a destination
gets one outbox row when the alert opens or reopens and one more each time its severity increases. An acknowledged or
silenced alert continues to count; a silenced one sends nothing, until it is more severe than when it was silenced.
A repeat of what an alert was resolved for (`alerts.lifecycle.repeats`) counts there: it stays resolved, and nothing is
sent. Rules in shadow open nothing: `would_alert` returns what they would have opened.

Keys are locked in one order everywhere, so that two workers never deadlock. Times are the database's.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Row, desc, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from alerts.lifecycle.audit import by_rule, write_audit_row
from alerts.lifecycle.breach import Breach, Repeats, breach_of, groups_of, severity_of
from alerts.lifecycle.enqueue import enqueue, event_after_silence, message_reference
from alerts.lifecycle.former_keys import with_former_keys
from alerts.lifecycle.repeats import find_repeats
from alerts.lifecycle.silences import Silence, lock_for_opening, longest_matching
from alerts.lifecycle.states import BreachOutcome, EventName, after_breach
from alerts.routing.routing import Destinations
from alerts.rules.model import Flagged, ThresholdRule
from storage.bulk import insert_rows
from storage.coordinates import Coordinates
from storage.locks import lock_names
from storage.schema import alert_messages, alerts

# The predicate of the index, literally: as a bound parameter, PostgreSQL no longer finds the index once the driver has
# prepared the statement and its plan has become a generic one.
_LIVE = text("state <> 'resolved'")


@dataclass(frozen=True)
class Opened:
    """An alert that opened, reopened or became more severe; `suppressed`: a silence kept it from being notified."""

    alert_id: uuid.UUID
    event: str
    dedup_key: str
    severity: str
    probe: str | None
    suppressed: bool = False


def record_flagged(
    connection: Connection,
    flagged: Sequence[Flagged],
    destinations: Destinations,
    rules: Sequence[ThresholdRule] = (ThresholdRule(),),
) -> list[Opened]:
    """Open or count the alerts of newly flagged scores and enqueue their events. Returns what changed."""
    groups = with_former_keys(connection, groups_of(flagged, [r for r in rules if not r.shadow]))
    repeats = find_repeats(connection, groups)
    breaches = [breach_of(rule, key, group, repeats) for rule, key, group in groups]
    return record_breaches(connection, breaches, destinations)


def would_alert(
    flagged: Sequence[Flagged], rules: Sequence[ThresholdRule], quiet: Collection[str] = ()
) -> list[tuple[str, str]]:
    """(probe, severity) of each alert that probes in `quiet`, or rules in shadow, would have opened or counted."""
    by_probes = groups_of([score for score in flagged if score.probe in quiet], rules)
    shadow_rules = [rule for rule in rules if rule.shadow]
    by_rules = groups_of([score for score in flagged if score.probe not in quiet], shadow_rules)
    return [(group[0].probe, severity_of(rule, group)) for rule, _, group in by_probes + by_rules]


def excepted_alerts(flagged: Sequence[Flagged], rules: Sequence[ThresholdRule]) -> list[tuple[str, str]]:
    """(probe, severity) of each score that an exception kept from a rule."""
    return [(score.probe, rule.severity_of(score)) for score in flagged for rule in rules if rule.excepts(score)]


def record_breaches(connection: Connection, breaches: Sequence[Breach], destinations: Destinations) -> list[Opened]:
    """Open, reopen or count the alerts of these breaches, enqueue what changed, and return it."""
    if not breaches:
        return []
    silences = lock_for_opening(connection)
    in_order = sorted(breaches, key=lambda breach: breach.dedup_key)
    recorded, members = [], []
    for breach in in_order:
        if breach.repeats:
            # Before any row of the key, as reopening does it: several of its alerts may be locked now.
            lock_key(connection, breach.dedup_key)
        # A monitor rule that continues to fire counts nothing, and is a breach all the same.
        if breach.count or not breach.repeats:
            row, outcome = _record_breach(connection, breach, silences)
            recorded.append((row, outcome, breach.hold))
            members += _members(row.id, breach.messages)
        for repeats in sorted(breach.repeats, key=lambda repeats: repeats.alert_id):
            members += _count_repeats(connection, repeats)
    insert_rows(connection, alert_messages, members)
    changed = []
    for row, outcome, hold in recorded:
        if outcome.event is not None:
            event = outcome.event
            if outcome.silence_over:
                event = event_after_silence(connection, row.id)
            if not outcome.suppressed:
                enqueue(connection, row, event, destinations, hold=hold)
            changed.append(Opened(row.id, event, row.dedup_key, row.severity, row.probe, outcome.suppressed))
    return changed


def _record_breach(
    connection: Connection, breach: Breach, silences: Sequence[Silence]
) -> tuple[Row[Any], BreachOutcome]:
    """The alert of a breach after it was opened or counted, and what changed."""
    row, before, outcome = _live(connection, breach, silences)
    changes = _counted(row, breach.count, breach) | {"state": outcome.state, "severity": outcome.severity}
    if outcome.event is not None and breach.kind == "monitor":
        changes["tenant"] = breach.tenant
    after = connection.execute(update(alerts).where(alerts.c.id == row.id).values(changes).returning(alerts)).one()
    now = {"state": after.state, "severity": after.severity}
    if before != now:
        action = (outcome.event or "alert.unsilenced").removeprefix("alert.")
        write_audit_row(connection, by_rule(breach.rule), action, alert_id=row.id, before=before, after=now)
    return after, outcome


def _count_repeats(connection: Connection, repeats: Repeats) -> list[dict[str, Any]]:
    """Count messages for a resolved alert, whose state stays as it is; the rows of its messages."""
    row = connection.execute(select(alerts).where(alerts.c.id == repeats.alert_id).with_for_update()).one_or_none()
    if row is None:  # deleted in this moment, with what it was about
        return []
    changes = _counted(row, len(repeats.messages), repeats)
    connection.execute(update(alerts).where(alerts.c.id == row.id).values(changes))
    return _members(row.id, repeats.messages)


def _members(alert_id: uuid.UUID, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `alert_messages`; what decided a score is in `scores`."""
    return [{**{k: v for k, v in each.items() if k != "evidence"}, "alert_id": alert_id} for each in messages]


def _counted(row: Row[Any], count: int, new: Breach | Repeats) -> dict[str, Any]:
    """The columns that `count` new messages change."""
    changes: dict[str, Any] = {
        "count": alerts.c.count + count,
        # Never earlier: the clock may have been set back.
        "last_seen_at": func.greatest(alerts.c.last_seen_at, func.now()),
    }
    if new.value > row.top_score:
        changes |= {"top_score": new.value, "threshold": new.limit}
    top = _top(new.messages) if new.messages else None
    if top is not None and (row.top_message is None or top["score"] > row.top_message["score"]):
        changes["top_message"] = top
    return changes


def _live(
    connection: Connection, breach: Breach, silences: Sequence[Silence]
) -> tuple[Row[Any], dict[str, Any] | None, BreachOutcome]:
    """The live alert of the breach's key, locked and opened if there was none; its state and severity before; and what
    the breach changes."""
    silence_over = func.coalesce(alerts.c.silenced_until <= func.now(), False).label("silence_over")
    live = select(alerts, silence_over).where(alerts.c.dedup_key == breach.dedup_key, _LIVE).with_for_update()
    row = connection.execute(live).one_or_none()
    while row is None:
        # Opening and reopening a key exclude each other.
        lock_key(connection, breach.dedup_key)
        # Another worker may have opened it before this one had the lock.
        row = connection.execute(live).one_or_none()
        if row is not None:
            break
        names = ("dedup_key", "rule", "kind", "probe", "tenant", "model", "severity")
        labels = {name: getattr(breach, name) for name in names}
        silence = longest_matching(silences, labels)
        before = _reopen(connection, breach, silence)
        if before is None:
            connection.execute(
                insert(alerts)
                .values(labels | _new_values(breach) | _silenced(silence, breach.severity))
                .on_conflict_do_nothing(index_elements=[alerts.c.dedup_key], index_where=_LIVE)
            )
        row = connection.execute(live).one_or_none()
        if row is not None:
            event: EventName = "alert.reopened" if before else "alert.opened"
            return row, before, BreachOutcome(row.state, breach.severity, event, suppressed=silence is not None)
    outcome = after_breach(
        row.state,
        row.severity,
        breach.severity,
        acknowledged=row.acknowledged_at is not None,
        silenced_severity=row.silenced_severity,
        silence_over=row.silence_over,
    )
    return row, {"state": row.state, "severity": row.severity}, outcome


def _reopen(connection: Connection, breach: Breach, silence: Silence | None) -> dict[str, Any] | None:
    """Open the key's last alert again if it was resolved within `reopen_within`; None if it stays resolved. One with a
    verdict does: the verdict is on the messages that it had."""
    if not breach.reopen_within:
        return None
    last = connection.execute(
        select(alerts.c.id, alerts.c.verdict, alerts.c.severity)
        .where(
            alerts.c.dedup_key == breach.dedup_key,
            alerts.c.state == "resolved",
            alerts.c.resolved_at > func.now() - breach.reopen_within,
        )
        .order_by(desc(alerts.c.resolved_at))
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if last is None or last.verdict is not None:
        return None
    values = reopened_values() | {"severity": breach.severity} | _silenced(silence, breach.severity)
    connection.execute(update(alerts).where(alerts.c.id == last.id).values(values))
    return {"state": "resolved", "severity": last.severity}


def lock_key(connection: Connection, key: str) -> None:
    """Opening and reopening an alert of this key exclude each other until the transaction ends."""
    lock_names(connection, [(f"awry alert {key}", 0)])


def reopened_values() -> dict[str, Any]:
    """The columns that reopening changes."""
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
        "held_open": None,
    }


def _silenced(silence: Silence | None, severity: str) -> dict[str, Any]:
    if silence is None:
        return {}
    return {
        "state": "silenced",
        "silenced_at": func.now(),
        "silenced_until": silence.ends_at,
        "silenced_severity": severity,
    }


def _new_values(breach: Breach) -> dict[str, Any]:
    first = breach.messages[0] if breach.messages else None
    return {
        "id": uuid.uuid4(),
        "conversation_id": breach.conversation_id,
        "state": "open",
        "count": 0,
        "top_score": breach.value,
        "threshold": breach.limit,
        "units": breach.units,
        "first_message": _reference(first) if first else None,
        "top_message": _top(breach.messages) if first else None,
    }


def _top(messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return _reference(max(messages, key=lambda m: cast(float, m["score"])))


def _reference(row: dict[str, Any]) -> dict[str, Any]:
    at = Coordinates(row["source"], row["partition"], row["offset"], row["sub"])
    return message_reference(at, row["message_id"], row["score"], row.get("evidence"))
