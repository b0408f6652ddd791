"""Expires silences, and resolves alerts of threshold rules that nothing was added to for long.

Contract: each alert is changed in a transaction of its own, after a second check under its lock; any number of
processes may do it at once. When a silence ends, its alert is notified if it counted messages meanwhile and is not
acknowledged.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, select, true, update

from alerts.lifecycle.actions import resolve, transition
from alerts.lifecycle.audit import by_rule
from alerts.lifecycle.enqueue import enqueue, event_after_silence
from alerts.routing.routing import Destinations
from alerts.rules.model import ThresholdRule
from storage.schema import alerts


def end_silences(engine: Engine, destinations: Destinations) -> int:
    """Unsilence alerts whose silence is over; returns how many."""
    is_over = and_(alerts.c.state == "silenced", alerts.c.silenced_until <= func.now())

    def unsilence(connection: Connection, alert_id: uuid.UUID) -> None:
        row = transition(connection, alert_id, "unsilence", by_rule("silence"), {})
        if row.state == "open" and row.last_seen_at >= row.silenced_at:
            enqueue(connection, row, event_after_silence(connection, alert_id), destinations)

    return _each(engine, is_over, unsilence)


def resolve_quiet(engine: Engine, rules: Sequence[ThresholdRule], held_by: str | None = None) -> int:
    """Resolve alerts of threshold rules with no new message for the rule's `resolve_after`; returns how many. With
    `held_by` none is resolved, and each that would be says why."""
    number = 0
    for rule in rules:
        if rule.resolve_after is not None:
            quiet = and_(
                alerts.c.rule == rule.name,
                alerts.c.kind == "threshold",
                alerts.c.state != "resolved",
                alerts.c.last_seen_at < func.now() - rule.resolve_after,
            )
            if held_by is None:
                number += _each(engine, quiet, partial(resolve, actor=by_rule(rule.name)))
            else:
                not_told = and_(quiet, alerts.c.held_open.is_distinct_from(held_by))
                _each(engine, not_told, partial(_hold_open, why=held_by))
    _each(engine, and_(alerts.c.held_open.is_not(None), _is_over(held_by)), partial(_hold_open, why=None))
    return number


def _is_over(held_by: str | None) -> ColumnElement[bool]:
    """Of threshold alerts; those of other rules are held, and let go, with their rule."""
    return and_(alerts.c.kind == "threshold", true() if held_by is None else alerts.c.state == "resolved")


def _hold_open(connection: Connection, alert_id: uuid.UUID, why: str | None) -> None:
    connection.execute(update(alerts).where(alerts.c.id == alert_id).values(held_open=why))


def _each(engine: Engine, condition: ColumnElement[bool], work: Callable[[Connection, uuid.UUID], object]) -> int:
    with engine.connect() as connection:
        ids = connection.execute(select(alerts.c.id).where(condition).order_by(alerts.c.dedup_key)).scalars().all()
    number = 0
    for alert_id in ids:
        with engine.begin() as connection:
            still = select(alerts.c.id).where(alerts.c.id == alert_id, condition).with_for_update()
            if connection.execute(still).scalar() is not None:
                work(connection, alert_id)
                number += 1
    return number
