"""The one writer of messages, scores and answers: idempotent on message coordinates.

Contract: `write_batch(connection, batch)` runs in the caller's transaction and returns the score rows that are new,
so that alerts count each score once whatever is delivered again. Writing the same batch twice adds no row. Both hold
whatever day the caller gives: a known message keeps the day it was first written with. Writers of one (source,
partition) exclude each other, since no key of the tables spans the days.

Rows carry final coordinates: `storage.sources.place` gives records that come with a log their source name, so that no
two payloads share coordinates; its `known` is passed on. Without a log there is nothing to tell two payloads at the
same coordinates apart by: the later one becomes a visible `failed` row, and gets no score.

A probe is known by its digest: another version of it scores the same message again, in a row of its own. Where the
digest of a stored score is unknown (it is from before there was one), name and version stand for it, so that no alert
counts the score twice; only a score in shadow, which opens no alert, is then stored again.

What was erased (`storage.erase`) is not written again: a tombstone at its coordinates has its payload's hash.

The writer creates no partitions: call `storage.partitions.Days` with the days before a batch. A message that retention
has dropped is new when it is delivered again.

Strings that PostgreSQL cannot hold are changed on the way in: NUL becomes U+2400, a lone surrogate U+FFFD.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from storage.bulk import insert_new, insert_rows
from storage.coordinates import Coordinates, clean
from storage.head_layouts import Layout, layout_id, store
from storage.known import ERASED, SAMPLED_OUT, erased_payloads, scored_before_digests
from storage.schema import answers, head_scores, messages, probes, scores, window_scores
from storage.sources import CONFLICT, KnownMessages, Place, lock_streams, place

# A message that failed, that an older version could not read, or that was sampled out, and is scored now: everything
# but its key and times.
_KEPT = ("source", "partition", "offset", "sub", "payload_sha256", "day", "ingested_at")
_UPDATE_OF_FAILED = (
    tuple(c.name for c in messages.columns if c.name not in _KEPT),
    f"(old.status IN ('failed', 'invalid') OR old.reason = '{SAMPLED_OUT}' AND excluded.status <> 'skipped') "
    "AND excluded.status NOT IN ('failed', 'invalid')",
)


@dataclass(frozen=True)
class MessageRow:
    """A row of `messages`. `text` is None unless privacy is `full`."""

    at: Coordinates
    payload_sha256: str
    day: date
    status: str
    reason: str | None = None
    message_id: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    model: str | None = None
    conversation_id: str | None = None
    sent_at: datetime | None = None
    tokens: int | None = None
    text: dict[str, Any] | None = None
    text_sha256: str | None = None
    attributes: dict[str, Any] | None = None
    format: str | None = None
    trace_id: str | None = None
    # `template` or `adapted`; `notes` are in closed wording, `unread` counts parts without text by kind.
    rendered: str | None = None
    notes: tuple[str, ...] = ()
    unread: dict[str, int] = field(default_factory=dict)
    special_tokens: int = 0
    partial: str | None = None
    windows: int | None = None
    # The share of its text that the tokenizer can make no sense of; tokens of its second readings.
    unreadable: float | None = None
    second_tokens: int | None = None


@dataclass(frozen=True)
class ScoreRow:
    """One probe's score of one message, in class gaps. `heads` are (layer, head, score) for head-level probes. What
    the fields of readings and turns mean is said in `storage.schema`; `judge` is 'waiting' where one will be asked."""

    at: Coordinates
    probe: str
    probe_version: int
    score: float
    threshold: float
    flagged: bool
    heads: tuple[tuple[int, int, float], ...] = ()
    # Of a probe in shadow mode, or of a replay: opens no alert.
    shadow: bool = False
    probe_digest: str = ""
    reading: str | None = None
    turn_scores: tuple[float | None, ...] | None = None
    top_turn: int | None = None
    turn_new: bool | None = None
    trajectory: float | None = None
    path_length: float | None = None
    judge: str | None = None
    judge_reason: str | None = None


@dataclass(frozen=True)
class AnswerRow:
    """A row of `answers`: a generated reply; `kind` is plain or mitigated."""

    at: Coordinates
    kind: str
    tokens: int
    recipe: str | None = None
    text: str | None = None
    text_sha256: str | None = None


@dataclass(frozen=True)
class WindowRow:
    """One probe's score of one window of an over-long message, in class gaps; it flags nothing."""

    at: Coordinates
    probe: str
    window: int
    first_token: int
    tokens: int
    score: float
    probe_digest: str = ""


@dataclass
class BatchRows:
    """All rows of one batch."""

    messages: list[MessageRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
    answers: list[AnswerRow] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)


@dataclass(frozen=True)
class Written:
    """What a batch added: the number of messages, coordinates that hold another payload, the new scores; and what was
    left out, since it was erased, by coordinates and payload hash."""

    messages: int
    conflicts: frozenset[Coordinates]
    scores: tuple[ScoreRow, ...]
    erased: frozenset[tuple[Coordinates, str]] = frozenset()


def write_batch(
    connection: Connection,
    batch: BatchRows,
    known: KnownMessages | None = None,
) -> Written:
    """Write one batch in the caller's transaction. `known` is what `place` found in this transaction, under the locks
    of the streams; without it both are done here."""
    if known is None:
        known = {}
        if batch.messages:
            lock_streams(connection, ((row.at.source, row.at.partition) for row in batch.messages))
            known = place(connection, [Place(*_key(r.at)[:3], None, r.payload_sha256) for r in batch.messages]).known
    first = {
        Coordinates(*key, sub): (each.payload_sha256, each.day) for key, found in known.items() for sub, each in found
    }
    # By key: a message that comes twice within a batch is one row, which PostgreSQL refuses to touch twice.
    rows: dict[tuple[Coordinates, str], dict[str, Any]] = {}
    conflicting = set()
    for message in batch.messages:
        original = first.setdefault(message.at, (message.payload_sha256, message.day))
        values = _message_values(message, original[1])
        if original[0] != message.payload_sha256:
            conflicting.add(message.at)
            values |= {"status": "failed", "reason": CONFLICT}
        rows.setdefault((message.at, message.payload_sha256), values)
    erased = _erased(connection, rows.keys(), known, conflicting)
    kept = [values for payload, values in rows.items() if payload not in erased]
    added = insert_rows(connection, messages, kept, update=_UPDATE_OF_FAILED)
    days = {at: day for at, (_, day) in first.items()}
    gone = conflicting | {at for at, _ in erased}
    valid = list({(s.at, s.probe, s.probe_digest): s for s in batch.scores if s.at not in gone}.values())
    valid = _without_scored_before(connection, valid, known)
    key = ("source", "partition", "offset", "sub", "probe", "probe_digest")
    new = {tuple(r) for r in insert_new(connection, scores, [_score_values(s, days) for s in valid], key)}
    fresh = tuple(s for s in valid if (*_key(s.at), s.probe, s.probe_digest) in new)
    _write_heads(connection, fresh, days)
    insert_rows(connection, answers, [_answer_values(a, days) for a in batch.answers if a.at not in gone])
    insert_rows(connection, window_scores, [_window_values(w, days) for w in batch.windows if w.at not in gone])
    return Written(added, frozenset(conflicting), fresh, erased)


def register_probe(
    connection: Connection, digest: str, name: str, version: int, sha256: str, card: dict[str, Any]
) -> None:
    """Store a probe's card; one of a known digest stays as it is."""
    row = {"digest": digest, "name": name, "version": version, "safetensors_sha256": sha256, "card": card}
    connection.execute(insert(probes).values(row).on_conflict_do_nothing())


def _erased(
    connection: Connection,
    payloads: Iterable[tuple[Coordinates, str]],
    known: KnownMessages,
    conflicting: set[Coordinates],
) -> frozenset[tuple[Coordinates, str]]:
    """Which of these payloads were erased. Conflicts belong to no log, so `known` leaves them out."""
    gone = {
        (Coordinates(*key, sub), each.payload_sha256)
        for key, found in known.items()
        for sub, each in found
        if each.status == ERASED
    }
    if conflicting:
        found = erased_payloads(connection, (_key(at)[:3] for at in conflicting))
        gone |= {(Coordinates(*row[:4]), row[4]) for row in found}
    return frozenset(payload for payload in payloads if payload in gone) if gone else frozenset()


def _without_scored_before(connection: Connection, rows: list[ScoreRow], known: KnownMessages) -> list[ScoreRow]:
    """Without live scores of messages that the same name and version scored when there were no digests."""
    again = [r for r in rows if r.probe_digest and not r.shadow and _key(r.at)[:3] in known]
    if not again:
        return rows
    done = scored_before_digests(connection, (_key(r.at)[:3] for r in again))
    return [r for r in rows if r.shadow or not r.probe_digest or (*_key(r.at), r.probe, r.probe_version) not in done]


def _key(at: Coordinates) -> tuple[str, int, int, int]:
    return (at.source, at.partition, at.offset, at.sub)


def _coordinates(at: Coordinates, day: date | None) -> dict[str, Any]:
    source, partition, offset, sub = _key(at)
    return {"source": source, "partition": partition, "offset": offset, "sub": sub, "day": day}


def _message_values(row: MessageRow, day: date) -> dict[str, Any]:
    return {
        **_coordinates(row.at, day),
        "payload_sha256": row.payload_sha256,
        "status": row.status,
        "tokens": row.tokens,
        "sent_at": row.sent_at,
        "text_sha256": row.text_sha256,
        "text": clean(row.text),
        "attributes": clean(row.attributes),
        "reason": clean(row.reason),
        "message_id": clean(row.message_id),
        "tenant": clean(row.tenant),
        "user_id": clean(row.user_id),
        "model": clean(row.model),
        "conversation_id": clean(row.conversation_id),
        "format": row.format,
        "trace_id": clean(row.trace_id),
        "rendered": row.rendered,
        "notes": list(row.notes) or None,
        "unread": row.unread or None,
        "special_tokens": row.special_tokens or None,
        "partial": row.partial,
        "windows": row.windows,
        "unreadable": row.unreadable,
        "second_tokens": row.second_tokens,
    }


def _score_values(row: ScoreRow, days: dict[Coordinates, date]) -> dict[str, Any]:
    return {
        **_coordinates(row.at, days[row.at]),
        "probe": row.probe,
        "probe_version": row.probe_version,
        "score": row.score,
        "threshold": row.threshold,
        "flagged": row.flagged,
        "shadow": row.shadow or None,
        "probe_digest": row.probe_digest,
        "reading": row.reading,
        "turn_scores": list(row.turn_scores) if row.turn_scores is not None else None,
        "top_turn": row.top_turn,
        "turn_new": row.turn_new,
        "trajectory": row.trajectory,
        "path_length": row.path_length,
        "judge": row.judge,
        "judge_reason": row.judge_reason,
    }


def _write_heads(connection: Connection, rows: Iterable[ScoreRow], days: dict[Coordinates, date]) -> None:
    """One array a score whose probe reads heads."""
    values = []
    layouts: set[Layout] = set()
    for row in rows:
        if not row.heads:
            continue
        layers, heads, numbers = zip(*row.heads, strict=True)
        layouts.add((layers, heads))
        of = {"probe": row.probe, "probe_digest": row.probe_digest, "layout": layout_id(layers, heads)}
        values.append({**_coordinates(row.at, days[row.at]), **of, "scores": numbers})
    store(connection, layouts)
    insert_rows(connection, head_scores, values)


def _answer_values(row: AnswerRow, days: dict[Coordinates, date]) -> dict[str, Any]:
    return {
        **_coordinates(row.at, days[row.at]),
        "kind": row.kind,
        "tokens": row.tokens,
        "recipe": row.recipe,
        "text": clean(row.text),
        "text_sha256": row.text_sha256,
    }


def _window_values(row: WindowRow, days: dict[Coordinates, date]) -> dict[str, Any]:
    return {
        **_coordinates(row.at, days[row.at]),
        "probe": row.probe,
        "probe_digest": row.probe_digest,
        "window": row.window,
        "first_token": row.first_token,
        "tokens": row.tokens,
        "score": row.score,
    }
