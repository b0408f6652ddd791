"""A record on its way through the worker, and the rows and lines that are written of it.

Contract: pure functions: records in, rows for the tables and lines for the outputs out. No prompt text gets into a
verdict or a dead letter, nor into a row unless privacy is `full`. Needs no model: `Outcome` is what a scorer returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal

from alerts.rules.model import Flagged
from monitor.stream.record import Record
from monitor.stream.sinks import Line
from monitor.stream.wire import Invalid, WireMessage, parse
from storage.writer import AnswerRow, MessageRow, ScoreRow

if TYPE_CHECKING:
    from monitor.service.mitigation import Mitigation
    from probes.card import Probe

Privacy = Literal["none", "sha256", "full"]


@dataclass(frozen=True)
class ProbeScore:
    """One probe's score, in class gaps; `heads` are (layer, head, score) of a head-level probe."""

    probe: Probe
    score: float
    heads: tuple[tuple[int, int, float], ...] = ()

    @property
    def flagged(self) -> bool:
        return self.score > self.probe.card.threshold


@dataclass(frozen=True)
class Outcome:
    """What became of one message."""

    status: Literal["scored", "truncated", "skipped", "failed"]
    scores: tuple[ProbeScore, ...] = ()
    tokens: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ProcessedRecord:
    """A record, its parsed message, its outcome once it is scored, and its mitigated reply where one was generated."""

    record: Record
    sha256: str
    parsed: WireMessage | Invalid
    outcome: Outcome | None = None
    mitigation: Mitigation | None = None

    @property
    def status(self) -> str:
        """The status of its row, unless another payload is known at these coordinates."""
        return self.outcome.status if self.outcome is not None else "invalid"

    @property
    def reason(self) -> str | None:
        if self.outcome is not None:
            return self.outcome.reason
        return self.parsed.reason if isinstance(self.parsed, Invalid) else None

    @property
    def message_id(self) -> str | None:
        return self.parsed.id if isinstance(self.parsed, WireMessage) else self.parsed.message_id

    @property
    def flagged(self) -> bool:
        return self.outcome is not None and any(s.flagged for s in self.outcome.scores)


def parse_record(record: Record) -> ProcessedRecord:
    """Parse a record; an over-size one is skipped unread."""
    if record.payload is None:
        reason = f"{record.size} bytes, over max_message_bytes"
        digest = hashlib.sha256(f"over-size:{record.size}".encode()).hexdigest()
        return ProcessedRecord(record, digest, Invalid(reason), Outcome("skipped", reason=reason))
    digest = record.sha256 or hashlib.sha256(record.payload).hexdigest()
    return ProcessedRecord(record, digest, parse(record.payload, record.headers))


def day_of(processed: ProcessedRecord, now: datetime) -> date:
    """The record's own day; the sender's `timestamp` is kept, but decides nothing."""
    return (processed.record.recorded or now).astimezone(UTC).date()


def message_row(processed: ProcessedRecord, privacy: Privacy, now: datetime) -> MessageRow:
    """The row of `messages`."""
    parsed, at, day = processed.parsed, processed.record.at, day_of(processed, now)
    if isinstance(parsed, Invalid):
        return MessageRow(at, processed.sha256, day, processed.status, processed.reason, parsed.message_id)
    return MessageRow(
        at,
        processed.sha256,
        day,
        processed.status,
        processed.reason,
        message_id=parsed.id,
        tenant=parsed.tenant,
        user_id=parsed.user,
        model=parsed.model,
        conversation_id=parsed.conversation_id,
        sent_at=parsed.timestamp,
        tokens=processed.outcome.tokens if processed.outcome is not None else None,
        text=parsed.stored_text if privacy == "full" else None,
        text_sha256=None if privacy == "none" else parsed.text_sha256,
        attributes=parsed.kept_attributes or None,
    )


def score_rows(processed: ProcessedRecord, shadow: Collection[str] = ()) -> list[ScoreRow]:
    """One row of `scores` a probe; those of `shadow` open no alerts."""
    return [
        ScoreRow(
            processed.record.at,
            s.probe.name,
            s.probe.card.version,
            s.score,
            s.probe.card.threshold,
            s.flagged,
            s.heads,
            shadow=s.probe.name in shadow,
        )
        for s in (processed.outcome.scores if processed.outcome is not None else ())
    ]


def answer_rows(processed: ProcessedRecord, privacy: Privacy) -> list[AnswerRow]:
    """Rows of `answers`: the mitigated reply, and the plain one where it was asked for."""
    mitigation = processed.mitigation
    if mitigation is None:
        return []
    rows = []
    replies = (("mitigated", mitigation.mitigated, mitigation.recipe), ("plain", mitigation.plain, None))
    for kind, reply, recipe in replies:
        if reply is not None:
            digest = hashlib.sha256(reply.text.encode("utf-8", "replace")).hexdigest()
            rows.append(
                AnswerRow(
                    processed.record.at,
                    kind,
                    reply.tokens,
                    recipe,
                    text=reply.text if privacy == "full" else None,
                    text_sha256=None if privacy == "none" else digest,
                )
            )
    return rows


def flagged_score(processed: ProcessedRecord, score: ScoreRow, model: str, now: datetime) -> Flagged:
    """What a rule sees of a score above its threshold; `model` is used where the message names none."""
    message = processed.parsed if isinstance(processed.parsed, WireMessage) else None
    return Flagged(
        probe=score.probe,
        score=score.score,
        threshold=score.threshold,
        tenant=message.tenant if message else None,
        model=(message.model if message else None) or model,
        coordinates=processed.record.at,
        message_id=processed.message_id,
        conversation_id=message.conversation_id if message else None,
        day=day_of(processed, now),
    )


def verdict_line(processed: ProcessedRecord) -> Line:
    """Ids, scores and the decision: `flag`, `pass`, or `unscored` (fail open)."""
    scored = processed.outcome is not None and processed.outcome.scores
    decision = "unscored" if not scored else "flag" if processed.flagged else "pass"
    return _line(processed, {"status": processed.status, "decision": decision, **_scores(processed)})


def answer_line(processed: ProcessedRecord) -> Line:
    """The mitigated reply, and the plain one where it was asked for."""
    mitigation = processed.mitigation
    assert mitigation is not None  # noqa: S101 - only called for records that have one
    value = {
        **_scores(processed),
        "flagged": processed.flagged,
        "recipe": mitigation.recipe,
        "mitigated": mitigation.mitigated.text,
    }
    return _line(processed, value | ({"plain": mitigation.plain.text} if mitigation.plain is not None else {}))


def dead_letter_line(processed: ProcessedRecord) -> Line:
    """Coordinates of the message and why it could not be scored; the payload is not copied."""
    record = processed.record
    value: dict[str, object] = {
        "status": processed.status,
        "reason": processed.reason,
        "payload_sha256": processed.sha256,
        "size": record.size,
        "recorded_at": record.recorded.isoformat() if record.recorded else None,
    }
    headers = (
        ("awry_original_topic", record.at.source.encode("utf-8", "replace")),
        ("awry_original_partition", str(record.at.partition).encode()),
        ("awry_original_offset", str(record.at.offset).encode()),
        ("awry_status", processed.status.encode()),
        ("awry_error", _error_class(processed).encode("utf-8", "replace")),
    )
    return _line(processed, value, headers)


def is_dead_letter(processed: ProcessedRecord) -> bool:
    """Whether a human has to look: it is not a valid message, or scoring it failed."""
    return processed.status in ("invalid", "failed")


def _line(processed: ProcessedRecord, value: dict[str, object], headers: Sequence[tuple[str, bytes]] = ()) -> Line:
    at = processed.record.at
    identity = {"id": processed.message_id, "source": at.source, "partition": at.partition, "offset": at.offset}
    traces = tuple((name, raw) for name, raw in processed.record.headers if name == "traceparent" and raw is not None)
    return Line(identity | value, processed.message_id, (*headers, *traces))


def _scores(processed: ProcessedRecord) -> dict[str, object]:
    return {"scores": {s.probe.name: round(s.score, 6) for s in processed.outcome.scores} if processed.outcome else {}}


def _error_class(processed: ProcessedRecord) -> str:
    """`RuntimeError` of `scoring failed: RuntimeError`; of an invalid message, the field that is wrong."""
    reason = processed.reason or ""
    return reason.rpartition(": ")[2] if processed.status == "failed" else reason.partition(":")[0]
