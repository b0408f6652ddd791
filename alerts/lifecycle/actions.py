"""What people do with alerts: acknowledge, silence, resolve, reopen, judge. Each change leaves an audit row.

Contract: every function works in the caller's transaction, locks what it changes, and raises UnknownAlertError or
TransitionError where it cannot be done. Who was told of an alert is told of its acknowledgement and its end; a silence
and a verdict are nobody's business outside. Times are the database's.
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
from alerts.lifecycle.audit import Actor, leave
from alerts.lifecycle.enqueue import tell, told
from alerts.lifecycle.lifecycle import TAKE_KEY, reopened_values
from alerts.lifecycle.silences import MATCHERS, active, as_silence, longest, silencing
from alerts.lifecycle.states import Action, EventName, moved
from alerts.rules.durations import format_duration
from alerts.rules.model import Severity
from storage.schema import alerts, silences
from storage.writer import clean

Verdict = Literal["true", "false", "authorised_test"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

LONGEST_SILENCE = timedelta(days=90)


@dataclass(frozen=True)
class Silenced:
    """A silence that was made, and the live alerts that it covers."""

    id: uuid.UUID
    ends_at: datetime
    alerts: tuple[uuid.UUID, ...]


def find_alert(connection: Connection, written: str) -> uuid.UUID:
    """An alert by its id, the first digits of it, or the dedup key of a live one."""
    found = by_digits(connection, alerts.c.id, written)
    if not found:
        live = select(alerts.c.id).where(alerts.c.dedup_key == written, alerts.c.state != "resolved")
        found = connection.execute(live).scalars().all()
    return only(found, "alert", written, "awry alerts list")


def find_silence(connection: Connection, written: str) -> uuid.UUID:
    """A silence by its id, or the first digits of it."""
    return only(by_digits(connection, silences.c.id, written), "silence", written, "awry alerts silences")


def acknowledge(connection: Connection, alert_id: uuid.UUID, actor: Actor) -> Row[Any]:
    """Somebody has it in hand: nothing more is sent, until it gets graver."""
    by = {"acknowledged_at": func.now(), "acknowledged_by": clean(actor.who)}
    return move(connection, alert_id, "acknowledge", actor, by, event="alert.acknowledged")


def resolve(connection: Connection, alert_id: uuid.UUID, actor: Actor) -> Row[Any]:
    """It is over."""
    by = {"resolved_at": func.now(), "resolved_by": clean(actor.who)}
    return move(connection, alert_id, "resolve", actor, by, event="alert.resolved")


def reopen(connection: Connection, alert_id: uuid.UUID, actor: Actor) -> Row[Any]:
    """It was not over. A verdict that it had is dropped, since more will come to it."""
    key = connection.execute(select(alerts.c.dedup_key).where(alerts.c.id == alert_id)).scalar()
    if key is not None:
        connection.execute(TAKE_KEY, {"key": key})
        live = select(alerts.c.id).where(alerts.c.dedup_key == key, alerts.c.state != "resolved")
        other = connection.execute(live).scalar()
        if other is not None and other != alert_id:
            raise TransitionError(f"reopen: {other} is live under the same key")
    forgotten = {"verdict": None, "verdict_at": None, "verdict_by": None}
    return move(connection, alert_id, "reopen", actor, reopened_values() | forgotten, event="alert.reopened")


def judge(
    connection: Connection, alert_id: uuid.UUID, verdict: Verdict, actor: Actor, note: str | None = None
) -> Row[Any]:
    """A reviewer's verdict on what the alert holds by now; the last one counts. It changes no state."""
    before = _locked(connection, alert_id)
    after = connection.execute(
        update(alerts)
        .where(alerts.c.id == alert_id)
        .values(verdict=verdict, verdict_at=func.now(), verdict_by=clean(actor.who))
        .returning(alerts)
    ).one()
    was = {"verdict": before.verdict, "by": before.verdict_by} if before.verdict else None
    now = {"verdict": verdict, **({"note": note} if note else {})}
    leave(connection, actor, "verdict", alert_id=alert_id, before=was, after=now)
    return after


def silence_alert(
    connection: Connection, alert_id: uuid.UUID, lasting: timedelta, actor: Actor, comment: str = ""
) -> Silenced:
    """Silence this alert and those that come under its key, unless they are graver than it is now."""
    # Before the row: whoever opens alerts has this lock first, too.
    silencing(connection)
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
    """Silence all alerts that match: `matchers` are patterns by rule, probe, tenant or model, or one dedup key."""
    if not matchers or not set(matchers) <= set(MATCHERS):
        raise TransitionError(f"silence: match by some of {', '.join(MATCHERS)}")
    if not timedelta() < lasting <= LONGEST_SILENCE:
        raise TransitionError(f"silence: it must last from 1s to {format_duration(LONGEST_SILENCE)}")
    silencing(connection)
    cleaned = {name: clean(pattern) for name, pattern in matchers.items()}
    values = {"severity": severity, "comment": clean(comment)[:1000], "created_by": clean(actor.who)}
    made = connection.execute(
        insert(silences)
        .values(cleaned | values | {"id": uuid.uuid4(), "ends_at": func.now() + lasting})
        .returning(silences)
    ).one()
    said = cleaned | {"severity": severity, "ends_at": made.ends_at.isoformat(timespec="seconds")}
    leave(connection, actor, "silence", silence_id=made.id, after=said | ({"comment": comment} if comment else {}))
    one = as_silence(made)
    covered = []
    for row in _live(connection):
        if one.covers(row._mapping) and not (row.state == "silenced" and row.silenced_until >= one.ends_at):
            covered.append(row.id)
            kept = row.silenced_severity if row.state == "silenced" else row.severity
            changes = {"silenced_at": func.now(), "silenced_until": one.ends_at, "silenced_severity": kept}
            move(connection, row.id, "silence", actor, changes, silence_id=one.id)
    return Silenced(one.id, one.ends_at, tuple(covered))


def end_silence(connection: Connection, silence_id: uuid.UUID, actor: Actor) -> list[uuid.UUID]:
    """End a silence early. The alerts that no other one covers, which are returned, speak up at awry's next look."""
    silencing(connection)
    ended = connection.execute(
        update(silences)
        .where(silences.c.id == silence_id, silences.c.ends_at > func.now())
        .values(ends_at=func.now())
        .returning(silences)
    ).one_or_none()
    if ended is None:
        raise UnknownAlertError(f"silence: {silence_id} is not known, or over; see awry alerts silences")
    leave(connection, actor, "end silence", silence_id=silence_id)
    others, back = active(connection), []
    for row in _live(connection):
        if row.state == "silenced" and as_silence(ended).covers(row._mapping):
            other = longest(others, row._mapping)
            until = other.ends_at if other is not None else func.now()
            connection.execute(update(alerts).where(alerts.c.id == row.id).values(silenced_until=until))
            back += [row.id] if other is None else []
    return back


def move(
    connection: Connection,
    alert_id: uuid.UUID,
    action: Action,
    actor: Actor,
    changes: Mapping[str, Any],
    *,
    event: EventName | None = None,
    silence_id: uuid.UUID | None = None,
) -> Row[Any]:
    """One transition, with its audit row, told to who was told before."""
    before = _locked(connection, alert_id)
    state = moved(before.state, action, acknowledged=before.acknowledged_at is not None)
    after = connection.execute(
        update(alerts).where(alerts.c.id == alert_id).values({**changes, "state": state}).returning(alerts)
    ).one()
    leave(
        connection,
        actor,
        action,
        alert_id=alert_id,
        silence_id=silence_id,
        before={"state": before.state, "severity": before.severity},
        after={"state": state, "severity": after.severity},
    )
    if event is not None:
        # One that reopened behind a silence is still resolved for the world.
        to = told(connection, alert_id, resolved=event == "alert.reopened")
        tell(connection, after, event, to, by=actor.who)
    return after


def _locked(connection: Connection, alert_id: uuid.UUID) -> Row[Any]:
    row = connection.execute(select(alerts).where(alerts.c.id == alert_id).with_for_update()).one_or_none()
    if row is None:
        raise UnknownAlertError(f"alert: {alert_id} is not known; see awry alerts list")
    return row


def _live(connection: Connection) -> Sequence[Row[Any]]:
    """All live alerts, locked in the order that everybody takes them in."""
    live = select(alerts).where(alerts.c.state != "resolved").order_by(alerts.c.dedup_key.collate("C"))
    return connection.execute(live.with_for_update()).all()
