"""Read-only queries on messages and their scores.

Contract: a message is named by its coordinates. There is more than one row where other content came at known
coordinates of a source without logs: the first is the one that was scored; scores, heads, answers and alerts are its.
`text` is there where the owner chose `privacy=full` when it was stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, and_, case, func, literal, select, tuple_

from storage.coordinates import Coordinates
from storage.head_layouts import head_rows
from storage.known import ERASED, SAMPLED, ScoredBy, score_counts
from storage.schema import (
    alert_messages,
    alerts,
    answers,
    erased_messages,
    head_scores,
    messages,
    score_histograms,
    scores,
    window_scores,
)
from storage.sources import KnownMessages, Place, place

# The format of a message that a serving engine has read itself (`monitor.readings`).
_READING = "reading"


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


def scored_messages(
    connection: Connection, probe: str, source: str | None = None, digest: str | None = None
) -> list[ScoredMessage]:
    """Scores of a probe in the order of the stream: of one digest, or with None of all cards of its name."""
    on = (
        (messages.c.source == scores.c.source)
        & (messages.c.partition == scores.c.partition)
        & (messages.c.offset == scores.c.offset)
        & (messages.c.sub == scores.c.sub)
        & (messages.c.status.in_(("scored", "truncated")))
    )
    query = (
        select(scores, messages.c.message_id, messages.c.tenant, messages.c.text)
        .join(messages, on)
        .where(scores.c.probe == probe)
        .order_by(scores.c.source, scores.c.partition, scores.c.offset, scores.c.sub)
    )
    if source is not None:
        query = query.where(scores.c.source == source)
    if digest is not None:
        query = query.where(scores.c.probe_digest == digest)
    return [
        ScoredMessage(
            Coordinates(r.source, r.partition, r.offset, r.sub),
            r.message_id,
            r.tenant,
            r.score,
            r.threshold,
            r.flagged,
            r.text,
        )
        for r in connection.execute(query)
    ]


def scores_by_digest(connection: Connection, probe: str) -> dict[str, int]:
    """Number of scores of a probe's name by the digest of the card; '' where it is unknown."""
    c = scores.c
    query = select(c.probe_digest, func.count()).where(c.probe == probe).group_by(c.probe_digest)
    return {digest: int(n) for digest, n in connection.execute(query)}


@dataclass(frozen=True)
class MessageDetail:
    """Rows as mappings of their columns; `others` are later payloads at the same coordinates, which were not scored.
    `heads` has a row for each head (`storage.head_layouts`)."""

    message: dict[str, Any]
    others: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    heads: list[dict[str, Any]]
    windows: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    alerts: list[dict[str, Any]]


def message_detail(connection: Connection, at: Coordinates) -> MessageDetail | None:
    """Everything about one message; None where its coordinates are unknown."""
    first = case((messages.c.status.in_(("scored", "truncated")), 0), else_=1)
    query = select(messages).where(_at(messages, at)).order_by(first, messages.c.ingested_at, messages.c.payload_sha256)
    rows = _rows(connection, query)
    if not rows:
        return None

    def of(table: Table, *order: Any) -> list[dict[str, Any]]:
        # The day names the partition.
        here = and_(_at(table, at), table.c.day == rows[0]["day"])
        return _rows(connection, select(table).where(here).order_by(*order))

    # Alerts refer to the message that was scored; the day is indexed there.
    same_message = and_(_at(alert_messages, at), alert_messages.c.day == rows[0]["day"])
    holding = select(alert_messages.c.alert_id).where(same_message)
    return MessageDetail(
        rows[0],
        rows[1:],
        of(scores, (scores.c.score - scores.c.threshold).desc(), scores.c.created_at.desc()),
        head_rows(connection, and_(_at(head_scores, at), head_scores.c.day == rows[0]["day"])),
        of(window_scores, window_scores.c.probe, window_scores.c.probe_digest, window_scores.c.window),
        of(answers, answers.c.kind.desc()),
        _rows(connection, select(alerts).where(alerts.c.id.in_(holding)).order_by(alerts.c.last_seen_at.desc())),
    )


def same_message_elsewhere(connection: Connection, message: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of a reading, which has no text: the row of the same message as a gateway has logged it, one with its text first;
    None of other messages, and where there is no such row. It has the same id, and the same tenant where the reading
    names one."""
    if message["format"] != _READING or message["message_id"] is None:
        return None
    c = messages.c
    same = [c.message_id == message["message_id"], c.format.is_distinct_from(_READING)]
    if message["tenant"] is not None:
        same.append(c.tenant == message["tenant"])
    query = select(c.source, c.partition, c.offset, c.sub, c.status, c.text.is_not(None).label("has_text"))
    found = _rows(connection, query.where(*same).order_by(c.text.is_(None), c.ingested_at.desc()).limit(1))
    return found[0] if found else None


def is_erased(connection: Connection, at: Coordinates) -> bool:
    """Whether a message with these coordinates was erased."""
    return bool(connection.execute(select(select(erased_messages).where(_at(erased_messages, at)).exists())).scalar())


def histogram(connection: Connection, probe: str, digest: str, days: int = 1) -> dict[int, int]:
    """Number of one card's scores by bin (tenths of a class gap) of the last days; empty bins are left out."""
    c = score_histograms.c
    query = (
        select(c.bin, func.sum(c.n))
        .where(c.probe == probe, c.probe_digest == digest, c.bucket > func.now() - func.make_interval(0, 0, 0, days))
        .group_by(c.bin)
        .order_by(c.bin)
    )
    return {int(bin_): int(n) for bin_, n in connection.execute(query)}


def already_scored(
    connection: Connection,
    payloads: Sequence[tuple[Coordinates, str]],
    probes: Sequence[ScoredBy],
    readable: Collection[tuple[Coordinates, str]] = (),
    known: KnownMessages | None = None,
    *,
    sampled_again: bool = False,
) -> set[tuple[Coordinates, str]]:
    """Which (coordinates, payload hash) need no work: erased, not to be scored, or scored by every one of `probes`.
    What is `readable` now and was invalid, to an older version, needs some; so does, with `sampled_again`, what was
    sampled out. `known` is what `place` found already."""
    requested = set(payloads)
    if known is None:
        known = place(connection, [Place(at.source, at.partition, at.offset, None, sha) for at, sha in requested]).known
    done, days = set(), {}
    for key, found in known.items():
        for sub, each in found:
            payload = (Coordinates(*key, sub), each.payload_sha256)
            if payload not in requested or each.status == "failed":
                continue
            if each.status == SAMPLED and sampled_again:
                continue
            if each.status in ("skipped", SAMPLED, ERASED) or (each.status == "invalid" and payload not in readable):
                done.add(payload)
            elif each.status != "invalid":
                days[payload] = each.day
    if not days:
        return done
    # Scores have their message's day, so only these days' partitions are searched.
    span = (min(days.values()), max(days.values()))
    counts = score_counts(connection, ((at.source, at.partition, at.offset) for at, _ in days), span, probes)
    wanted = len({probe.name for probe in probes})
    return done | {(at, h) for at, h in days if counts.get((at.source, at.partition, at.offset, at.sub), 0) >= wanted}


def stored_answers(connection: Connection, source: str, kind: str) -> dict[Coordinates, str]:
    """Texts of stored answers of one kind."""
    query = select(answers).where(answers.c.source == source, answers.c.kind == kind, answers.c.text.is_not(None))
    return {Coordinates(r.source, r.partition, r.offset, r.sub): r.text for r in connection.execute(query)}


@dataclass(frozen=True)
class StoredMessage:
    """A message whose text is stored."""

    source: str
    partition: int
    offset: int
    sub: int
    payload_sha256: str
    day: date
    message_id: str
    tenant: str | None
    user_id: str | None
    model: str | None
    conversation_id: str | None
    trace_id: str | None
    attributes: dict[str, Any] | None
    text: dict[str, Any]


def stored_messages(engine: Engine, since: date, page: int = 500) -> Iterator[StoredMessage]:
    """Every scored message with its text from a day on, oldest day first, read in pages of its own transactions."""
    columns = [messages.c[f.name] for f in fields(StoredMessage)]
    key = tuple(messages.c[name] for name in ("day", "source", "partition", "offset", "sub", "payload_sha256"))
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


def _at(table: Table, at: Coordinates) -> Any:
    place = {"source": at.source, "partition": at.partition, "offset": at.offset, "sub": at.sub}
    return and_(*(table.c[name] == value for name, value in place.items()))


def _rows(connection: Connection, query: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]
