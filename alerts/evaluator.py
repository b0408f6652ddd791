"""The periodic look: rate and monitor rules measured, their alerts opened and resolved, silences ended.

Contract: `evaluate(engine, rules, destinations)` may run anywhere, any number at once: one works, the others return at
once; and where two do work (the first was frozen so long that its lock is gone), a key's state and its one live alert
are locked row by row. All times are the database's; how long a condition has held is what was watched, at most
`MOST_WATCHED` a look.

A rate or monitor alert is resolved when its rule is clear again. One that a person resolves before that stays quiet
until the rule was clear once, or it gets graver. A rule that cannot be measured leaves its alerts as they are.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, OperationalError

from alerts.errors import class_of
from alerts.lifecycle.actions import resolve
from alerts.lifecycle.audit import by_rule
from alerts.lifecycle.expiry import end_silences, resolve_quiet
from alerts.lifecycle.lifecycle import Breach, Opened, breach
from alerts.rules.hysteresis import Held, Limits, step, watched
from alerts.rules.model import MonitorRule, RateRule, Rules, worse
from alerts.rules.queries import Measured, Subject, flagged_messages, measure_monitor, measure_rate
from storage.schema import alerts, rule_states
from storage.writer import clean

MOST_WATCHED = timedelta(minutes=1)
# Any number will do, as long as every awry uses the same one.
_LOCK = 0x41575252
_STATEMENT_SECONDS = 20
_TAKE_STATE = text("SELECT pg_advisory_xact_lock(hashtextextended('awry rule ' || :key, 0))")
FLAGGED_UNITS = "flagged messages"

Rule = RateRule | MonitorRule


@dataclass
class Evaluated:
    """What one look did. `would`: (probe, severity) that rules in shadow would have opened; `values`: what was
    measured, by rule and subject; `failed`: rules that could not be evaluated, and the class of the error."""

    opened: list[Opened] = field(default_factory=list)
    resolved: int = 0
    unsilenced: int = 0
    would: list[tuple[str | None, str]] = field(default_factory=list)
    values: dict[tuple[str, Subject], float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def evaluate(engine: Engine, rules: Rules, destinations: Sequence[str]) -> Evaluated | None:
    """One look; None when somebody else is at it."""
    with _alone(engine) as alone:
        if not alone:
            return None
        done = Evaluated(unsilenced=end_silences(engine, destinations), resolved=resolve_quiet(engine, rules.threshold))
        held: tuple[Rule, ...] = (*rules.rate, *rules.monitor)
        for rule in held:
            try:
                _look(engine, rule, destinations, done)
            except Exception as error:  # what is wrong with one rule must not blind the others
                done.failed[rule.name] = class_of(error)
        _forget(engine, [rule.name for rule in held])
        return done


def _look(engine: Engine, rule: Rule, destinations: Sequence[str], done: Evaluated) -> None:
    now, measured = _measure(engine, rule)
    done.values |= {(rule.name, one.subject): one.value for one in measured}
    for one in sorted(measured, key=lambda m: m.dedup_key):
        try:
            with engine.begin() as connection:
                _advance(connection, rule, one, now, destinations, done)
        except OperationalError:  # the database is away, for the other keys as well
            raise
        except Exception as error:
            done.failed[rule.name] = class_of(error)


@contextmanager
def _alone(engine: Engine) -> Iterator[bool]:
    """Whether nobody else evaluates. The server ends this transaction when the process freezes inside it."""
    with engine.connect() as connection:
        try:
            query = text("SELECT pg_try_advisory_xact_lock(:key)")
            yield bool(connection.execute(query, {"key": _LOCK}).scalar())
        finally:
            try:
                connection.rollback()
            except DBAPIError:
                connection.invalidate()


def _measure(engine: Engine, rule: Rule) -> tuple[datetime, list[Measured]]:
    """The values of a rule, and 0 for every group that it remembers and that has none any more."""
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL statement_timeout = '{_STATEMENT_SECONDS}s'"))
        now = connection.execute(select(func.now())).scalar_one()
        if isinstance(rule, MonitorRule):
            return now, measure_monitor(connection, rule)
        measured = measure_rate(connection, rule)
        found = {one.dedup_key for one in measured}
        for row in connection.execute(select(rule_states).where(rule_states.c.rule == rule.name)):
            if row.dedup_key not in found:
                measured.append(Measured(row.dedup_key, Subject(**row.subject), 0.0))
        return now, measured


def _advance(
    connection: Connection, rule: Rule, one: Measured, now: datetime, destinations: Sequence[str], done: Evaluated
) -> None:
    """One key's state after a look, and what follows for its alert."""
    connection.execute(_TAKE_STATE, {"key": one.dedup_key})
    query = select(rule_states).where(rule_states.c.dedup_key == one.dedup_key)
    state = connection.execute(query).one_or_none()
    held = Held(state.phase, state.held_seconds) if state is not None else None
    elapsed = watched(state.evaluated_at, now, MOST_WATCHED) if state is not None else 0.0
    after, event = step(held, one.value, elapsed, Limits(rule.limit, rule.clear_limit, rule.for_, rule.clear_for))
    severity, alert_id = rule.grade(one.value), state.alert_id if state is not None else None
    gravest = worse(state.severity, severity) if state is not None and state.severity else severity
    if rule.shadow:
        if event == "fired":
            done.would.append((one.subject.probe, severity))
    elif event == "fired" or (after == Held("firing") and _speaks(connection, state, gravest)):
        # One that fired in shadow has no alert yet: it fires now.
        found = _breach(connection, rule, one, severity, fired=event == "fired" or alert_id is None)
        done.opened += breach(connection, [found], destinations)
        alert_id = _live_id(connection, one.dedup_key)
    if after is None:
        connection.execute(delete(rule_states).where(rule_states.c.dedup_key == one.dedup_key))
        # Also where the rule is in shadow by now: who was told of its alert is told of its end.
        live = _live_id(connection, one.dedup_key, lock=True) if event == "cleared" else None
        if live is not None:
            resolve(connection, live, by_rule(rule.name))
            done.resolved += 1
        return
    values: Mapping[str, Any] = {
        "rule": rule.name,
        "phase": after.phase,
        "held_seconds": after.seconds,
        "severity": gravest if after.phase != "pending" else None,
        "alert_id": alert_id,
        "subject": asdict(one.subject),
        "evaluated_at": now,
    }
    kept = insert(rule_states).values(dedup_key=one.dedup_key, **values)
    connection.execute(kept.on_conflict_do_update(index_elements=[rule_states.c.dedup_key], set_=dict(values)))


def _breach(connection: Connection, rule: Rule, one: Measured, severity: str, *, fired: bool) -> Breach:
    rate = isinstance(rule, RateRule)
    found = flagged_messages(connection, rule, one.subject, one.dedup_key) if isinstance(rule, RateRule) else []
    return Breach(
        dedup_key=clean(one.dedup_key),
        rule=rule.name,
        kind="rate" if rate else "monitor",
        severity=severity,
        value=one.value,
        limit=float(rule.flagged) if isinstance(rule, RateRule) else rule.limit,
        units=FLAGGED_UNITS if isinstance(rule, RateRule) else rule.units,
        count=len(found) if rate else int(fired),
        **asdict(one.subject),
        messages=found,
        reopen_within=rule.reopen_within,
    )


def _speaks(connection: Connection, state: Row[Any] | None, gravest: str) -> bool:
    """Whether a rule that fires on has something to say: it fired in shadow until now, its alert lives, or it is graver
    than when a person resolved that."""
    if state is None:
        return False
    if state.alert_id is None:
        return True
    alive = connection.execute(select(alerts.c.state).where(alerts.c.id == state.alert_id)).scalar()
    return alive not in (None, "resolved") or gravest != state.severity


def _live_id(connection: Connection, key: str, *, lock: bool = False) -> uuid.UUID | None:
    """With `lock` nobody resolves it before the transaction ends."""
    live = select(alerts.c.id).where(alerts.c.dedup_key == key, alerts.c.state != "resolved")
    return connection.execute(live.with_for_update() if lock else live).scalar()


def _forget(engine: Engine, names: Sequence[str]) -> None:
    """States of rules that are no more."""
    with engine.begin() as connection:
        connection.execute(delete(rule_states).where(rule_states.c.rule.not_in(names)))
