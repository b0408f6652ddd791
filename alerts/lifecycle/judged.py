"""What a judge's verdict does to the alerts that hold a message, where their rule has `judge_resolves`.

Contract: `lower` is called in the transaction that recorded `harmless` about a message that its probe flagged. A live
alert is resolved once the judge called every one of its messages harmless: not one that somebody has acknowledged, nor
one with a message that was not judged, or is no longer stored. What was not sent of it yet is withdrawn, so that with
the rule's `judge_holds` nobody is paged; who was notified is notified of its end. `release` lets go what was held, when
the judge called a message harmful or gave no verdict.

Alerts are locked before their messages are looked at, so that of two verdicts at once the later one sees both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, select, update

from alerts.lifecycle.actions import resolve
from alerts.lifecycle.audit import Actor
from alerts.rules.model import Flagged, ThresholdRule
from storage.schema import alert_messages, alerts, outbox, scores

_COORDINATES = ("source", "partition", "offset", "sub")
# In no notification yet.
_UNSENT = and_(outbox.c.page_id.is_(None), outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None))


def lower(connection: Connection, flagged: Flagged, rules: Sequence[ThresholdRule], actor: Actor) -> int:
    """Resolve the alerts of such rules all of whose messages are harmless; returns how many."""
    number = 0
    for alert in _holding(connection, flagged, [rule.name for rule in rules if rule.judge_resolves]):
        if alert.state != "acknowledged" and _all_harmless(connection, alert):
            connection.execute(delete(outbox).where(outbox.c.alert_id == alert.id, _UNSENT))
            resolve(connection, alert.id, actor)
            number += 1
    return number


def release(connection: Connection, flagged: Flagged, rules: Sequence[ThresholdRule]) -> None:
    """Send what is held of the alerts with this message."""
    for alert in _holding(connection, flagged, [rule.name for rule in rules if rule.judge_holds]):
        held = and_(outbox.c.alert_id == alert.id, _UNSENT, outbox.c.due_at > func.now())
        connection.execute(update(outbox).where(held).values(due_at=func.now()))


def _holding(connection: Connection, flagged: Flagged, rules: Sequence[str]) -> Sequence[Row[Any]]:
    """The live alerts of these rules that have the message, locked in the order in which all lock them."""
    if not rules:
        return ()
    at = flagged.coordinates
    named = {"source": at.source, "partition": at.partition, "offset": at.offset, "sub": at.sub}
    here = and_(*(alert_messages.c[name] == value for name, value in named.items()))
    if flagged.day is not None:
        here = and_(here, alert_messages.c.day == flagged.day)
    query = (
        select(alerts)
        .where(
            alerts.c.kind == "threshold",
            alerts.c.rule.in_(rules),
            alerts.c.probe == flagged.probe,
            alerts.c.state != "resolved",
            alerts.c.id.in_(select(alert_messages.c.alert_id).where(here)),
        )
        .order_by(alerts.c.dedup_key.collate("C"))
        .with_for_update()
    )
    return connection.execute(query).all()


def _all_harmless(connection: Connection, alert: Row[Any]) -> bool:
    same = and_(*(scores.c[name] == alert_messages.c[name] for name in (*_COORDINATES, "day")))
    of_probe = and_(same, scores.c.probe == alert.probe)
    judged = exists().where(of_probe, scores.c.judge == "harmless")
    otherwise = exists().where(of_probe, scores.c.judge.is_distinct_from("harmless"))
    query = select(func.count(), func.count().filter(judged, ~otherwise)).where(alert_messages.c.alert_id == alert.id)
    stored, harmless = connection.execute(query).one()
    # Messages that retention removed are counted in the alert, and nobody knows what they were.
    return bool(stored == harmless == alert._mapping["count"])
