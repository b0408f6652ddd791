"""Everything that the tables hold of one message or one probe. Read-only.

Contract: a message is named by its coordinates. There is more than one row where other content came at known
coordinates (a recreated topic): the first is the one that was scored, and scores, heads, answers and alerts are its.
`text` is there where the owner chose `privacy=full` when it was stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, and_, case, func, select

from storage.schema import alert_messages, alerts, answers, head_scores, messages, score_histograms, scores
from storage.writer import Coordinates


@dataclass(frozen=True)
class MessageDetail:
    """Rows as mappings of their columns; `others` is content that came later at the same place, and was not scored."""

    message: dict[str, Any]
    others: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    heads: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    alerts: list[dict[str, Any]]


def message_detail(connection: Connection, at: Coordinates) -> MessageDetail | None:
    """What is known of the message; None where nothing is."""
    first = case((messages.c.status.in_(("scored", "truncated")), 0), else_=1)
    query = select(messages).where(_at(messages, at)).order_by(first, messages.c.ingested_at, messages.c.payload_sha256)
    found = _rows(connection, query)
    if not found:
        return None

    def of(table: Table, *order: Any) -> list[dict[str, Any]]:
        # The day names the partition.
        here = and_(_at(table, at), table.c.day == found[0]["day"])
        return _rows(connection, select(table).where(here).order_by(*order))

    # Alerts hold what was scored; the day is indexed there.
    held = and_(_at(alert_messages, at), alert_messages.c.day == found[0]["day"])
    holding = select(alert_messages.c.alert_id).where(held)
    return MessageDetail(
        found[0],
        found[1:],
        of(scores, (scores.c.score - scores.c.threshold).desc()),
        of(head_scores, head_scores.c.probe, head_scores.c.layer, head_scores.c.head),
        of(answers, answers.c.kind.desc()),
        _rows(connection, select(alerts).where(alerts.c.id.in_(holding)).order_by(alerts.c.last_seen_at.desc())),
    )


def histogram(connection: Connection, probe: str, version: int, days: int = 1) -> dict[int, int]:
    """Number of scores by bin (tenths of a class gap) of the last days; empty bins are left out."""
    c = score_histograms.c
    query = (
        select(c.bin, func.sum(c.n))
        .where(c.probe == probe, c.probe_version == version, c.bucket > func.now() - func.make_interval(0, 0, 0, days))
        .group_by(c.bin)
        .order_by(c.bin)
    )
    return {int(bin_): int(n) for bin_, n in connection.execute(query)}


def _at(table: Table, at: Coordinates) -> Any:
    return and_(table.c.source == at.source, table.c.partition == at.partition, table.c.offset == at.offset)


def _rows(connection: Connection, query: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]
