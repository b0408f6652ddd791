"""One record's way through the worker, as values: what was read, what was found, and the rows and lines of both.

Pure functions: records in, rows for the tables and lines for the outputs out. No prompt text gets into a verdict or a
dead letter, nor into a row unless privacy is `full`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal

from alerts.rules.model import Flagged
from monitor.service.outcomes import Outcome
from monitor.stream.record import Record
from monitor.stream.sinks import Line
from monitor.stream.wire import Invalid, WireMessage, parse
from storage.writer import AnswerRow, MessageRow, ScoreRow

if TYPE_CHECKING:
    from monitor.service.mitigation import Mitigated

Privacy = Literal["none", "sha256", "full"]


@dataclass(frozen=True)
class Item:
    """A record, what it says, what became of it, and its answers where some were written."""

    record: Record
    sha256: str
    parsed: WireMessage | Invalid
    outcome: Outcome | None = None
    mitigated: Mitigated | None = None

    @property
    def status(self) -> str:
        """What the row says, unless another payload is known at these coordinates."""
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


def read(one: Record) -> Item:
    """Parse a record; an over-size one is skipped unread."""
    if one.payload is None:
        reason = f"{one.size} bytes, over max_message_bytes"
        digest = hashlib.sha256(f"over-size:{one.size}".encode()).hexdigest()
        return Item(one, digest, Invalid(reason), Outcome("skipped", reason=reason))
    return Item(one, one.sha256 or hashlib.sha256(one.payload).hexdigest(), parse(one.payload, one.headers))


def day_of(item: Item, now: datetime) -> date:
    """The record's own day; the sender's `timestamp` is kept, but decides nothing."""
    return (item.record.recorded or now).astimezone(UTC).date()


def message_row(item: Item, privacy: Privacy, now: datetime) -> MessageRow:
    """The row of `messages`."""
    parsed, at, day = item.parsed, item.record.at, day_of(item, now)
    if isinstance(parsed, Invalid):
        return MessageRow(at, item.sha256, day, item.status, item.reason, parsed.message_id)
    return MessageRow(
        at,
        item.sha256,
        day,
        item.status,
        item.reason,
        message_id=parsed.id,
        tenant=parsed.tenant,
        user_id=parsed.user,
        model=parsed.model,
        conversation_id=parsed.conversation_id,
        sent_at=parsed.timestamp,
        tokens=item.outcome.tokens if item.outcome is not None else None,
        text=parsed.stored_text if privacy == "full" else None,
        text_sha256=None if privacy == "none" else parsed.text_sha256,
        attributes=parsed.kept_attributes or None,
    )


def score_rows(item: Item, shadow: Collection[str] = ()) -> list[ScoreRow]:
    """One row of `scores` a probe; those of `shadow` page nobody."""
    return [
        ScoreRow(
            item.record.at,
            s.probe.name,
            s.probe.card.version,
            s.score,
            s.probe.card.threshold,
            s.flagged,
            s.heads,
            shadow=s.probe.name in shadow,
        )
        for s in (item.outcome.scores if item.outcome is not None else ())
    ]


def answer_rows(item: Item, privacy: Privacy) -> list[AnswerRow]:
    """Rows of `answers`: the mitigated one, and the plain one where it was asked for."""
    found = item.mitigated
    if found is None:
        return []
    rows = []
    for kind, text, recipe in (("mitigated", found.mitigated, found.recipe), ("plain", found.plain, None)):
        if text is not None:
            digest = hashlib.sha256(text.text.encode("utf-8", "replace")).hexdigest()
            rows.append(
                AnswerRow(
                    item.record.at,
                    kind,
                    text.tokens,
                    recipe,
                    text=text.text if privacy == "full" else None,
                    text_sha256=None if privacy == "none" else digest,
                )
            )
    return rows


def flagged(item: Item, score: ScoreRow, model: str, now: datetime) -> Flagged:
    """What a rule sees of a score above its threshold; `model` stands in where the message names none."""
    known = item.parsed if isinstance(item.parsed, WireMessage) else None
    at = item.record.at
    return Flagged(
        probe=score.probe,
        score=score.score,
        threshold=score.threshold,
        tenant=known.tenant if known else None,
        model=(known.model if known else None) or model,
        coordinates=(at.source, at.partition, at.offset),
        message_id=item.message_id,
        conversation_id=known.conversation_id if known else None,
        day=day_of(item, now),
    )


def verdict(item: Item) -> Line:
    """Ids, scores and the decision: `flag`, `pass`, or `unscored` for what went by unseen."""
    decision = "unscored" if not (item.outcome and item.outcome.scores) else "flag" if item.flagged else "pass"
    return _line(item, {"status": item.status, "decision": decision, **_scores(item)})


def answer(item: Item) -> Line:
    """The mitigated answer, and the plain one where it was asked for."""
    found = item.mitigated
    assert found is not None  # noqa: S101 - only called for items that have one
    value = {**_scores(item), "flagged": item.flagged, "recipe": found.recipe, "mitigated": found.mitigated.text}
    return _line(item, value | ({"plain": found.plain.text} if found.plain is not None else {}))


def dead_letter(item: Item) -> Line:
    """Where the message is and why it could not be scored; its payload stays where it is."""
    record = item.record
    value: dict[str, object] = {
        "status": item.status,
        "reason": item.reason,
        "payload_sha256": item.sha256,
        "size": record.size,
        "recorded_at": record.recorded.isoformat() if record.recorded else None,
    }
    headers = (
        ("awry_original_topic", record.at.source.encode("utf-8", "replace")),
        ("awry_original_partition", str(record.at.partition).encode()),
        ("awry_original_offset", str(record.at.offset).encode()),
        ("awry_status", item.status.encode()),
        ("awry_error", _error_class(item).encode("utf-8", "replace")),
    )
    return _line(item, value, headers)


def is_dead(item: Item) -> bool:
    """Whether a human has to look: it is no message, or the model broke on it."""
    return item.status in ("invalid", "failed")


def _line(item: Item, value: dict[str, object], headers: Sequence[tuple[str, bytes]] = ()) -> Line:
    at = item.record.at
    place = {"id": item.message_id, "source": at.source, "partition": at.partition, "offset": at.offset}
    traces = tuple((name, raw) for name, raw in item.record.headers if name == "traceparent" and raw is not None)
    return Line(place | value, item.message_id, (*headers, *traces))


def _scores(item: Item) -> dict[str, object]:
    return {"scores": {s.probe.name: round(s.score, 6) for s in item.outcome.scores} if item.outcome else {}}


def _error_class(item: Item) -> str:
    """`RuntimeError` of `scoring failed: RuntimeError`; of an invalid message, the field that is wrong."""
    reason = item.reason or ""
    return reason.rpartition(": ")[2] if item.status == "failed" else reason.partition(":")[0]
