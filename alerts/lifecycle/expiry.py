"""What time alone does to alerts: silences end, and what has been quiet for long is over.

Contract: each alert is changed in a transaction of its own, after a second look under its lock; any number of
processes may do it at once. A silence that ends is told where the alert was seen behind it and nobody has it in hand.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, select

from alerts.lifecycle.actions import move, resolve
from alerts.lifecycle.audit import by_rule
from alerts.lifecycle.enqueue import news_after_silence, tell
from alerts.rules.model import ThresholdRule
from storage.schema import alerts


def end_silences(engine: Engine, destinations: Sequence[str]) -> int:
    """Number of alerts whose silence was over."""
    over = and_(alerts.c.state == "silenced", alerts.c.silenced_until <= func.now())

    def work(connection: Connection, alert_id: uuid.UUID) -> None:
        row = move(connection, alert_id, "unsilence", by_rule("silence"), {})
        if row.state == "open" and row.last_seen_at >= row.silenced_at:
            tell(connection, row, news_after_silence(connection, alert_id), destinations)

    return _each(engine, over, work)


def resolve_quiet(engine: Engine, rules: Sequence[ThresholdRule]) -> int:
    """Number of alerts of threshold rules that nothing was seen of for the rule's `resolve_after`."""
    done = 0
    for rule in rules:
        if rule.resolve_after is not None:
            quiet = and_(
                alerts.c.rule == rule.name,
                alerts.c.kind == "threshold",
                alerts.c.state != "resolved",
                alerts.c.last_seen_at < func.now() - rule.resolve_after,
            )
            done += _each(engine, quiet, partial(resolve, actor=by_rule(rule.name)))
    return done


def _each(engine: Engine, condition: ColumnElement[bool], work: Callable[[Connection, uuid.UUID], object]) -> int:
    with engine.connect() as connection:
        found = connection.execute(select(alerts.c.id).where(condition).order_by(alerts.c.dedup_key)).scalars().all()
    done = 0
    for alert_id in found:
        with engine.begin() as connection:
            still = select(alerts.c.id).where(alerts.c.id == alert_id, condition).with_for_update()
            if connection.execute(still).scalar() is not None:
                work(connection, alert_id)
                done += 1
    return done
