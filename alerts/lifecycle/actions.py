"""People's actions on alerts: acknowledge, silence, resolve, reopen, judge. Each change writes an audit row.

Contract: every function works in the caller's transaction, locks what it changes, and raises UnknownAlertError or
TransitionError where the action is not possible. Destinations that were notified of an alert are notified of its
acknowledgement and its end; silences and verdicts are not notified. Times are the database's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, func, insert, select, update

from alerts.errors import TransitionError, UnknownAlertError
from alerts.ids import by_digits, only
from alerts.lifecycle.audit import Actor, write_audit_row
from alerts.lifecycle.enqueue import enqueue, notified_destinations
from alerts.lifecycle.lifecycle import lock_key, reopened_values
from alerts.lifecycle.silences import MATCHERS, active, as_silence, lock_for_silencing, longest_matching
from alerts.lifecycle.states import Action, EventName, next_state
from alerts.rules.durations import format_duration
from alerts.rules.model import Severity
from storage.coordinates import clean
from storage.schema import alerts, silences

Verdict = Literal["true", "false", "authorised_test"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

MAX_SILENCE = timedelta(days=90)


@dataclass(frozen=True)
class Silenced:
    """A silence that was created, and the live alerts that it silenced."""

    id: uuid.UUID
    ends_at: datetime
    alerts: tuple[uuid.UUID, ...]


def find_alert(connection: Connection, written: str) -> uuid.UUID:
    """An alert by its id, the first digits of it, or the dedup key of a live one."""
    ids = by_digits(connection, alerts.c.id, written)
    if not ids:
        live = select(alerts.c.id).where(alerts.c.dedup_key == written, alerts.c.state != "resolved")
        ids = connection.execute(live).scalars().all()
    return only(ids, "alert", written, "awry alerts list")


def find_silence(connection: Connection, written: str) -> uuid.UUID:
    """A silence by its id, or the first digits of it."""
    return only(by_digits(connection, silences.c.id, written), "silence", written, "awry alerts silences")


def acknowledge(connection: Connection, alert_id: uuid.UUID, actor: Actor) -> Row[Any]:
    """Stop notifications of an alert until its severity increases."""
    by = {"acknowledged_at": func.now(), "acknowledged_by": clean(actor.who)}
    return transition(connection, alert_id, "acknowledge", actor, by, event="alert.acknowledged")


def resolve(connection: Connection, alert_id: uuid.UUID, actor: Actor) -> Row[Any]:
    """Resolve an alert."""
    by = {"resolved_at": func.now(), "resolved_by": clean(actor.who)}
    return transition(connection, alert_id, "resolve", actor, by, event="alert.resolved")


def reopen(connection: Connection, alert_id: uuid.UUID, actor: Actor) -> Row[Any]:
    """Open a resolved alert again. Its verdict is dropped, since further messages may be added to it."""
    key = connection.execute(select(alerts.c.dedup_key).where(alerts.c.id == alert_id)).scalar()
    if key is not None:
        lock_key(connection, key)
        live = select(alerts.c.id).where(alerts.c.dedup_key == key, alerts.c.state != "resolved")
        live_id = connection.execute(live).scalar()
        if live_id is not None and live_id != alert_id:
            raise TransitionError(f"reopen: {live_id} is live under the same key")
    no_verdict = {"verdict": None, "verdict_at": None, "verdict_by": None}
    return transition(connection, alert_id, "reopen", actor, reopened_values() | no_verdict, event="alert.reopened")


def judge(
    connection: Connection, alert_id: uuid.UUID, verdict: Verdict, actor: Actor, note: str | None = None
) -> Row[Any]:
    """Record a reviewer's verdict on the messages that the alert has by now; the last one counts. The state stays."""
    before = _locked(connection, alert_id)
    after = connection.execute(
        update(alerts)
        .where(alerts.c.id == alert_id)
        .values(verdict=verdict, verdict_at=func.now(), verdict_by=clean(actor.who))
        .returning(alerts)
    ).one()
    was = {"verdict": before.verdict, "by": before.verdict_by} if before.verdict else None
    now = {"verdict": verdict, **({"note": note} if note else {})}
    write_audit_row(connection, actor, "verdict", alert_id=alert_id, before=was, after=now)
    return after


def silence_alert(
    connection: Connection, alert_id: uuid.UUID, lasting: timedelta, actor: Actor, comment: str = ""
) -> Silenced:
    """Silence this alert and later ones with its key, up to the severity that it has now."""
    # Before the row: opening an alert takes this lock first, too.
    lock_for_silencing(connection)
    row = _locked(connection, alert_id)
    if row.state == "resolved":
        raise TransitionError("silence: the alert is resolved; silence what comes by rule, probe, tenant or model")
    return silence(connection, {"dedup_key": row.dedup_key}, lasting, actor, comment, row.severity)


def silence(
    connection: Connection,
    matchers: Mapping[str, str],
    lasting: timedelta,
    actor: Actor,
    comment: str = "",
    severity: Severity = "critical",
) -> Silenced:
    """Silence all alerts that match: `matchers` are patterns by rule, probe, tenant or model, or one dedup key; nothing
    above `severity`."""
    if not matchers or not set(matchers) <= set(MATCHERS):
        raise TransitionError(f"silence: match by some of {', '.join(MATCHERS)}")
    if not timedelta() < lasting <= MAX_SILENCE:
        raise TransitionError(f"silence: it must last from 1s to {format_duration(MAX_SILENCE)}")
    lock_for_silencing(connection)
    cleaned = {name: clean(pattern) for name, pattern in matchers.items()}
    values = {"severity": severity, "comment": clean(comment)[:1000], "created_by": clean(actor.who)}
    row = connection.execute(
        insert(silences)
        .values(cleaned | values | {"id": uuid.uuid4(), "ends_at": func.now() + lasting})
        .returning(silences)
    ).one()
    audited = cleaned | {"severity": severity, "ends_at": row.ends_at.isoformat(timespec="seconds")}
    audited |= {"comment": comment} if comment else {}
    write_audit_row(connection, actor, "silence", silence_id=row.id, after=audited)
    created = as_silence(row)
    silenced = []
    for alert in _live(connection):
        was_silenced = alert.state == "silenced"
        if created.matches(alert._mapping) and not (was_silenced and alert.silenced_until >= created.ends_at):
            silenced.append(alert.id)
            up_to = alert.silenced_severity if was_silenced else alert.severity
            changes = {"silenced_at": func.now(), "silenced_until": created.ends_at, "silenced_severity": up_to}
            transition(connection, alert.id, "silence", actor, changes, silence_id=created.id)
    return Silenced(created.id, created.ends_at, tuple(silenced))


def end_silence(connection: Connection, silence_id: uuid.UUID, actor: Actor) -> list[uuid.UUID]:
    """End a silence early. Returns the alerts that no other silence matches: the next evaluation unsilences them."""
    lock_for_silencing(connection)
    ended = connection.execute(
        update(silences)
        .where(silences.c.id == silence_id, silences.c.ends_at > func.now())
        .values(ends_at=func.now())
        .returning(silences)
    ).one_or_none()
    if ended is None:
        raise UnknownAlertError(f"silence: {silence_id} is not known, or over; see awry alerts silences")
    write_audit_row(connection, actor, "end silence", silence_id=silence_id)
    others, unsilenced = active(connection), []
    for alert in _live(connection):
        if alert.state == "silenced" and as_silence(ended).matches(alert._mapping):
            other = longest_matching(others, alert._mapping)
            until = other.ends_at if other is not None else func.now()
            connection.execute(update(alerts).where(alerts.c.id == alert.id).values(silenced_until=until))
            unsilenced += [alert.id] if other is None else []
    return unsilenced


def transition(
    connection: Connection,
    alert_id: uuid.UUID,
    action: Action,
    actor: Actor,
    changes: Mapping[str, Any],
    *,
    event: EventName | None = None,
    silence_id: uuid.UUID | None = None,
) -> Row[Any]:
    """Change an alert's state, write its audit row, and enqueue `event` for the destinations notified before."""
    before = _locked(connection, alert_id)
    state = next_state(before.state, action, acknowledged=before.acknowledged_at is not None)
    after = connection.execute(
        update(alerts).where(alerts.c.id == alert_id).values({**changes, "state": state}).returning(alerts)
    ).one()
    write_audit_row(
        connection,
        actor,
        action,
        alert_id=alert_id,
        silence_id=silence_id,
        before={"state": before.state, "severity": before.severity},
        after={"state": state, "severity": after.severity},
    )
    if event is not None:
        # An alert that reopened during a silence is still resolved for its destinations.
        notified = notified_destinations(connection, alert_id, resolved=event == "alert.reopened")
        enqueue(connection, after, event, notified, by=actor.who)
    return after


def _locked(connection: Connection, alert_id: uuid.UUID) -> Row[Any]:
    row = connection.execute(select(alerts).where(alerts.c.id == alert_id).with_for_update()).one_or_none()
    if row is None:
        raise UnknownAlertError(f"alert: {alert_id} is not known; see awry alerts list")
    return row


def _live(connection: Connection) -> Sequence[Row[Any]]:
    """All live alerts, locked in the one order in which they are always locked."""
    live = select(alerts).where(alerts.c.state != "resolved").order_by(alerts.c.dedup_key.collate("C"))
    return connection.execute(live.with_for_update()).all()
