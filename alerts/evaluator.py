"""Evaluates rate and monitor rules: measures them, opens and resolves their alerts, and expires silences.

Contract: `evaluate(engine, rules, destinations)` may run in any number of processes at once: one evaluates, the others
return at once; and should two evaluate (the first was frozen for so long that its lock is gone), a key's state and its
one live alert are locked row by row. All times are the database's; only time that was observed counts towards a rule's
`for` and `clear_for`, at most `MAX_OBSERVED` per evaluation.

A rate or monitor alert is resolved when its rule is clear again. One that a person resolves before that stays quiet
until the rule was clear once, or its severity increases. A rule that cannot be measured leaves its alerts as they are,
and so does one that is clear only because the monitor is blind (`alerts.rules.blind`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import filterfalse
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, OperationalError

from alerts.errors import class_of
from alerts.lifecycle.actions import resolve
from alerts.lifecycle.audit import by_rule
from alerts.lifecycle.breach import Breach
from alerts.lifecycle.expiry import end_silences, resolve_quiet
from alerts.lifecycle.former_keys import measured_under_former_keys
from alerts.lifecycle.inhibited import mark_inhibited
from alerts.lifecycle.lifecycle import Opened, record_breaches
from alerts.routing.routing import Destinations
from alerts.rules.blind import about_seeing, blindness, may_clear
from alerts.rules.hysteresis import ConditionState, Limits, observed_seconds, step
from alerts.rules.model import MonitorRule, RateRule, Rules, max_severity
from alerts.rules.queries import Measured, Subject, flagged_messages, measure_monitor, measure_rate
from storage.coordinates import clean
from storage.locks import SharedLock, lock_names, try_lock
from storage.schema import alerts, rule_states

MAX_OBSERVED = timedelta(minutes=1)
_STATEMENT_SECONDS = 20

Rule = RateRule | MonitorRule


@dataclass
class Evaluated:
    """What one evaluation did. `would_open`: (probe, severity) of alerts that rules in shadow would have opened;
    `excepted`: of those that an exception kept from opening; `blind`: why nothing is resolved for want of messages;
    `values`: what was measured, by rule and subject; `failed`: rules that could not be evaluated, with the class of the
    error."""

    opened: list[Opened] = field(default_factory=list)
    resolved: int = 0
    unsilenced: int = 0
    would_open: list[tuple[str | None, str]] = field(default_factory=list)
    excepted: list[tuple[str | None, str]] = field(default_factory=list)
    blind: Sequence[str] = ()
    values: dict[tuple[str, Subject], float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def evaluate(engine: Engine, rules: Rules, destinations: Destinations) -> Evaluated | None:
    """Evaluate once; None while another process evaluates."""
    with _exclusive(engine) as exclusive:
        if not exclusive:
            return None
        evaluated = Evaluated(unsilenced=end_silences(engine, destinations))
        measured_rules: tuple[Rule, ...] = (*rules.monitor, *rules.rate)
        # Those on not seeing come first: what they find decides what a low value of the others means.
        for group in (filter(about_seeing, measured_rules), filterfalse(about_seeing, measured_rules)):
            evaluated.blind = _blindness(engine, rules)
            for rule in group:
                try:
                    _evaluate_rule(engine, rule, destinations, evaluated)
                except Exception as error:  # an error in one rule must not stop the others
                    evaluated.failed[rule.name] = class_of(error)
        evaluated.resolved += resolve_quiet(engine, rules.threshold, _why_held(evaluated.blind))
        mark_inhibited(engine, destinations)
        _delete_other_states(engine, [rule.name for rule in measured_rules])
        return evaluated


def _blindness(engine: Engine, rules: Rules) -> tuple[str, ...]:
    with engine.connect() as connection:
        return blindness(connection, rules)


def _why_held(blind: Sequence[str]) -> str | None:
    return f"the monitor is blind: {', '.join(blind)}" if blind else None


def _evaluate_rule(engine: Engine, rule: Rule, destinations: Destinations, evaluated: Evaluated) -> None:
    now, measured = _measure(engine, rule)
    evaluated.values |= {(rule.name, value.subject): value.value for value in measured}
    for value in sorted(measured, key=lambda value: value.dedup_key):
        try:
            with engine.begin() as connection:
                _advance(connection, rule, value, now, destinations, evaluated)
        except OperationalError:  # no database, for the other keys either
            raise
        except Exception as error:
            evaluated.failed[rule.name] = class_of(error)


@contextmanager
def _exclusive(engine: Engine) -> Iterator[bool]:
    """Whether no other process evaluates. The server ends this transaction when the process freezes inside it."""
    with engine.connect() as connection:
        try:
            yield try_lock(connection, SharedLock.RULES)
        finally:
            try:
                connection.rollback()
            except DBAPIError:
                connection.invalidate()


def _measure(engine: Engine, rule: Rule) -> tuple[datetime, list[Measured]]:
    """The values of a rule, and 0 for every group with a state and without a value."""
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL statement_timeout = '{_STATEMENT_SECONDS}s'"))
        now = connection.execute(select(func.now())).scalar_one()
        if isinstance(rule, MonitorRule):
            return now, measure_monitor(connection, rule)
        measured = measured_under_former_keys(connection, rule, measure_rate(connection, rule))
        keys = {value.dedup_key for value in measured}
        for row in connection.execute(select(rule_states).where(rule_states.c.rule == rule.name)):
            if row.dedup_key not in keys:
                measured.append(Measured(row.dedup_key, Subject(**row.subject), 0.0))
        return now, measured


def _advance(
    connection: Connection,
    rule: Rule,
    measured: Measured,
    now: datetime,
    destinations: Destinations,
    evaluated: Evaluated,
) -> None:
    """Advance one key's state, and open or resolve its alert."""
    lock_names(connection, [(f"awry rule {measured.dedup_key}", 0)])
    query = select(rule_states).where(rule_states.c.dedup_key == measured.dedup_key)
    state = connection.execute(query).one_or_none()
    before = ConditionState(state.phase, state.held_seconds) if state is not None else None
    if before is not None and before.phase != "pending":
        waits = measured.value <= rule.clear_limit and not may_clear(rule, evaluated.blind)
        _tell_what_it_waits_for(connection, state, evaluated.blind if waits else ())
        if waits:
            return
    elapsed = observed_seconds(state.evaluated_at, now, MAX_OBSERVED) if state is not None else 0.0
    limits = Limits(rule.limit, rule.clear_limit, rule.for_, rule.clear_for)
    after, event = step(before, measured.value, elapsed, limits)
    severity, alert_id = rule.grade(measured.value), state.alert_id if state is not None else None
    highest = max_severity(state.severity, severity) if state is not None and state.severity else severity
    if rule.shadow or rule.excepted(asdict(measured.subject), severity):
        if event == "fired":
            unseen = evaluated.would_open if rule.shadow else evaluated.excepted
            unseen.append((measured.subject.probe, severity))
    elif event == "fired" or (after == ConditionState("firing") and _needs_breach(connection, state, highest)):
        # A rule that fired in shadow has no alert yet: it fires now.
        breach = _breach(connection, rule, measured, severity, fired=event == "fired" or alert_id is None)
        evaluated.opened += record_breaches(connection, [breach], destinations)
        alert_id = _live_id(connection, measured.dedup_key)
    if after is None:
        connection.execute(delete(rule_states).where(rule_states.c.dedup_key == measured.dedup_key))
        # Also if the rule is in shadow by now: destinations that were notified of its alert are notified of its end.
        live = _live_id(connection, measured.dedup_key, lock=True) if event == "cleared" else None
        if live is not None:
            resolve(connection, live, by_rule(rule.name))
            evaluated.resolved += 1
        return
    values: Mapping[str, Any] = {
        "rule": rule.name,
        "phase": after.phase,
        "held_seconds": after.seconds,
        "severity": highest if after.phase != "pending" else None,
        "alert_id": alert_id,
        "subject": asdict(measured.subject),
        "evaluated_at": now,
    }
    upsert = insert(rule_states).values(dedup_key=measured.dedup_key, **values)
    connection.execute(upsert.on_conflict_do_update(index_elements=[rule_states.c.dedup_key], set_=dict(values)))


def _tell_what_it_waits_for(connection: Connection, state: Row[Any] | None, blind: Sequence[str]) -> None:
    """Its alert says why it is not resolved, or no longer."""
    if state is not None and state.alert_id is not None:
        why = _why_held(blind)
        changed = update(alerts).where(alerts.c.id == state.alert_id, alerts.c.held_open.is_distinct_from(why))
        connection.execute(changed.where(alerts.c.state != "resolved").values(held_open=why))


def _breach(connection: Connection, rule: Rule, measured: Measured, severity: str, *, fired: bool) -> Breach:
    rate = isinstance(rule, RateRule)
    messages = (
        flagged_messages(connection, rule, measured.subject, measured.dedup_key) if isinstance(rule, RateRule) else []
    )
    return Breach(
        dedup_key=clean(measured.dedup_key),
        rule=rule.name,
        kind="rate" if rate else "monitor",
        severity=severity,
        value=measured.value,
        limit=float(rule.flagged) if isinstance(rule, RateRule) else rule.limit,
        units=rule.units,
        count=len(messages) if rate else int(fired),
        **asdict(measured.subject),
        messages=messages,
        reopen_within=rule.reopen_within,
    )


def _needs_breach(connection: Connection, state: Row[Any] | None, highest: str) -> bool:
    """Whether a rule that continues to fire is a breach of its alert: it fired in shadow until now, its alert is live,
    or it is more severe than when a person resolved that."""
    if state is None:
        return False
    if state.alert_id is None:
        return True
    alert_state = connection.execute(select(alerts.c.state).where(alerts.c.id == state.alert_id)).scalar()
    return alert_state not in (None, "resolved") or highest != state.severity


def _live_id(connection: Connection, key: str, *, lock: bool = False) -> uuid.UUID | None:
    """The live alert of a key. With `lock` nobody resolves it before the transaction ends."""
    live = select(alerts.c.id).where(alerts.c.dedup_key == key, alerts.c.state != "resolved")
    return connection.execute(live.with_for_update() if lock else live).scalar()


def _delete_other_states(engine: Engine, names: Sequence[str]) -> None:
    """Delete the states of all rules but these: they were removed."""
    with engine.begin() as connection:
        connection.execute(delete(rule_states).where(rule_states.c.rule.not_in(names)))
