"""What the tables say: read-only questions that the command line, the demo and the page ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine, Row, desc, func, literal, select, tuple_

from storage.known import known_messages, score_counts
from storage.schema import alerts, answers, destinations, messages, outbox, scores
from storage.writer import Coordinates


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
            r.message_id,
            r.tenant,
            r.score,
            r.threshold,
            r.flagged,
            r.text,
        )
        for r in connection.execute(query)
    ]


def already_scored(
    connection: Connection, payloads: Sequence[tuple[Coordinates, str]], probes: Sequence[str]
) -> set[tuple[Coordinates, str]]:
    """Which (coordinates, payload hash) need no work: not to be scored, or scored by every one of `probes`."""
    asked = set(payloads)
    done, days = set(), {}
    for row in known_messages(connection, ((at.source, at.partition, at.offset) for at, _ in asked)):
        payload = (Coordinates(row.source, row.partition, row.offset), row.payload_sha256)
        if payload in asked and row.status in ("invalid", "skipped"):
            done.add(payload)
        elif payload in asked and row.status != "failed":
            days[payload] = row.day
    if not days:
        return done
    # Scores have their message's day, so only these days' partitions are asked.
    span = (min(days.values()), max(days.values()))
    counts = score_counts(connection, ((at.source, at.partition, at.offset) for at, _ in days), span, probes)
    wanted = len(set(probes))
    return done | {(at, h) for at, h in days if counts.get((at.source, at.partition, at.offset), 0) >= wanted}


def stored_answers(connection: Connection, source: str, kind: str) -> dict[Coordinates, str]:
    """Texts of stored answers of one kind."""
    query = select(answers).where(answers.c.source == source, answers.c.kind == kind, answers.c.text.is_not(None))
    return {Coordinates(r.source, r.partition, r.offset): r.text for r in connection.execute(query)}


@dataclass(frozen=True)
class StoredMessage:
    """A message whose text was kept."""

    source: str
    partition: int
    offset: int
    payload_sha256: str
    day: date
    message_id: str
    tenant: str | None
    user_id: str | None
    model: str | None
    conversation_id: str | None
    attributes: dict[str, Any] | None
    text: dict[str, Any]


def stored_messages(engine: Engine, since: date, page: int = 500) -> Iterator[StoredMessage]:
    """Every scored message with its text from a day on, oldest day first, read in pages of its own transactions."""
    columns = [messages.c[f.name] for f in fields(StoredMessage)]
    key = (messages.c.day, messages.c.source, messages.c.partition, messages.c.offset, messages.c.payload_sha256)
    query = (
        select(*columns)
        .where(messages.c.day >= since, messages.c.text.is_not(None), messages.c.status.in_(("scored", "truncated")))
        .order_by(*key)
        .limit(page)
    )
    last: Row[Any] | None = None
    while True:
        after = query if last is None else query.where(tuple_(*key) > tuple_(*(literal(last._mapping[k]) for k in key)))
        with engine.connect() as connection:
            rows = connection.execute(after).all()
        yield from (StoredMessage(*row) for row in rows)
        if len(rows) < page:
            return
        last = rows[-1]


def list_alerts(
    connection: Connection, state: str | None = None, limit: int = 50, **named: str | None
) -> list[dict[str, Any]]:
    """Alerts, newest first; `named` are columns and what they must be, None where anything will do."""
    query = select(alerts).order_by(desc(alerts.c.last_seen_at)).limit(limit)
    for name, value in {"state": state, **named}.items():
        if value is not None:
            query = query.where(alerts.c[name] == value)
    return [dict(r) for r in connection.execute(query).mappings()]


def live_alert_counts(connection: Connection) -> dict[tuple[str, ...], int]:
    """Number of alerts that are not resolved, by (state, severity)."""
    query = (
        select(alerts.c.state, alerts.c.severity, func.count())
        .where(alerts.c.state != "resolved")
        .group_by(alerts.c.state, alerts.c.severity)
    )
    return {(state, severity): int(n) for state, severity, n in connection.execute(query)}


_BY_OUTCOME = (
    func.count().filter(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None)).label("pending"),
    func.count().filter(outbox.c.delivered_at.is_not(None)).label("delivered"),
    func.count().filter(outbox.c.dead_at.is_not(None)).label("dead"),
)


def outbox_counts(connection: Connection) -> dict[str, int]:
    """Deliveries by state: pending, delivered, dead."""
    return dict(connection.execute(select(*_BY_OUTCOME)).mappings().one())


def destination_counts(connection: Connection) -> dict[str, dict[str, int]]:
    """The same by destination; one that has no events is left out."""
    query = select(outbox.c.destination, *_BY_OUTCOME).group_by(outbox.c.destination)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return {row.pop("destination"): row for row in rows}


def oldest_pending_seconds(connection: Connection) -> float:
    """Age of the oldest event that is neither delivered nor given up; 0 when there is none."""
    oldest = select(func.min(outbox.c.created_at)).where(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None))
    age = func.extract("epoch", func.now() - oldest.scalar_subquery())
    return max(0.0, float(connection.execute(select(age)).scalar() or 0.0))


def destination_states(connection: Connection) -> list[dict[str, Any]]:
    """What the sending loops remember of each destination."""
    query = select(destinations).order_by(destinations.c.name)
    return [dict(row) for row in connection.execute(query).mappings()]
