"""What the tables say: read-only questions that the command line, the demo and the page ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, desc, func, select, tuple_

from storage.schema import alerts, answers, messages, outbox, scores
from storage.writer import Coordinates, clean


@dataclass(frozen=True)
class ScoredMessage:
    """One message's score under one probe, with what is known of the message."""

    at: Coordinates
    message_id: str | None
    tenant: str | None
    score: float
    threshold: float
    flagged: bool
    text: dict[str, Any] | None


def status_counts(connection: Connection, source: str | None = None) -> dict[str, int]:
    """Number of messages by status."""
    query = select(messages.c.status, func.count()).group_by(messages.c.status)
    if source is not None:
        query = query.where(messages.c.source == source)
    return {status: int(n) for status, n in connection.execute(query)}


def scored_messages(connection: Connection, probe: str, source: str | None = None) -> list[ScoredMessage]:
    """All scores of a probe in the order of the stream."""
    on = (
        (messages.c.source == scores.c.source)
        & (messages.c.partition == scores.c.partition)
        & (messages.c.offset == scores.c.offset)
        & (messages.c.status.in_(("scored", "truncated")))
    )
    query = (
        select(scores, messages.c.message_id, messages.c.tenant, messages.c.text)
        .join(messages, on)
        .where(scores.c.probe == probe)
        .order_by(scores.c.source, scores.c.partition, scores.c.offset)
    )
    if source is not None:
        query = query.where(scores.c.source == source)
    return [
        ScoredMessage(
            Coordinates(r.source, r.partition, r.offset),
            r.message_id, r.tenant, r.score, r.threshold, r.flagged, r.text,
        )
        for r in connection.execute(query)
    ]  # fmt: skip


def already_scored(
    connection: Connection, payloads: Sequence[tuple[Coordinates, str]], probes: Sequence[str]
) -> set[tuple[Coordinates, str]]:
    """Which (coordinates, payload hash) need no work: not to be scored, or scored by every one of `probes`."""
    if not payloads:
        return set()
    place = (messages.c.source, messages.c.partition, messages.c.offset)
    scored = (
        select(func.count())
        .where(
            scores.c.source == messages.c.source,
            scores.c.partition == messages.c.partition,
            scores.c.offset == messages.c.offset,
            scores.c.probe.in_(probes),
        )
        .scalar_subquery()
    )
    done = messages.c.status.in_(("invalid", "skipped")) | (scored >= len(set(probes)))
    keys = [(clean(at.source), at.partition, at.offset, sha256) for at, sha256 in payloads]
    rows = connection.execute(
        select(*place, messages.c.payload_sha256)
        .where(tuple_(*place, messages.c.payload_sha256).in_(keys))
        .where(done & (messages.c.status != "failed"))
    )
    return {(Coordinates(r.source, r.partition, r.offset), r.payload_sha256) for r in rows}


def stored_answers(connection: Connection, source: str, kind: str) -> dict[Coordinates, str]:
    """Texts of stored answers of one kind."""
    query = select(answers).where(answers.c.source == source, answers.c.kind == kind, answers.c.text.is_not(None))
    return {Coordinates(r.source, r.partition, r.offset): r.text for r in connection.execute(query)}


def list_alerts(connection: Connection, state: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Alerts, newest first."""
    query = select(alerts).order_by(desc(alerts.c.last_seen_at)).limit(limit)
    if state is not None:
        query = query.where(alerts.c.state == state)
    return [dict(r) for r in connection.execute(query).mappings()]


def outbox_counts(connection: Connection) -> dict[str, int]:
    """Deliveries by state: pending, delivered, dead."""
    query = select(
        func.count().filter(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None)),
        func.count().filter(outbox.c.delivered_at.is_not(None)),
        func.count().filter(outbox.c.dead_at.is_not(None)),
    )
    pending, delivered, dead = connection.execute(query).one()
    return {"pending": pending, "delivered": delivered, "dead": dead}
