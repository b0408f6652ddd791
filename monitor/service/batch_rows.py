"""A message on its way through the worker, and the rows that are written of it.

Contract: pure functions: records in, rows for the tables out; a record may hold many messages. No prompt text gets into
a row unless privacy is `full`. Needs no model: `Outcome` is what a scorer returns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

from alerts.rules.model import Flagged
from monitor.stream.formats import otlp
from monitor.stream.formats.awry import PROMPT_NOT_READ
from monitor.stream.formats.litellm import CUT_SHORT
from monitor.stream.formats.reading import BESIDE_CONTENT, DUPLICATE_KEYS
from monitor.stream.parse import Parser, read_messages
from monitor.stream.record import Record
from monitor.stream.wire import Invalid, WireMessage
from probes.model.render import TEXT_LEFT_OUT
from storage.attributes import allowed, bounded
from storage.coordinates import Coordinates
from storage.sources import CONFLICT, Place
from storage.writer import AnswerRow, MessageRow, ScoreRow, WindowRow

if TYPE_CHECKING:
    from monitor.readings.schema import Reading
    from monitor.service.mitigation import Mitigation
    from probes.capture.trajectory import Trajectory
    from probes.card import Probe

# Notes of what was not read whole.
_NOT_WHOLE = {
    DUPLICATE_KEYS: "duplicate",
    CUT_SHORT: "cut",
    PROMPT_NOT_READ: "beside",
    BESIDE_CONTENT: "beside",
    otlp.BESIDE: "beside",
    TEXT_LEFT_OUT: "template",
}

Privacy = Literal["none", "sha256", "full"]


@dataclass(frozen=True)
class ProbeScore:
    """One probe's score, in class gaps; `heads` are (layer, head, score) of a head-level probe. `judge` is what its row
    says of the judge at first: `waiting`, `not asked` with a reason, or None outside the uncertain band."""

    probe: Probe
    score: float
    heads: tuple[tuple[int, int, float], ...] = ()
    # Which reading of the message it comes from (None: the message as it is); (turn, score) of the turns that the probe
    # reads where there are several, and what they say together; the turn with the highest score, where one decided.
    reading: str | None = None
    turns: tuple[tuple[int, float], ...] = ()
    trajectory: Trajectory | None = None
    top_turn: int | None = None
    turn_new: bool | None = None
    judge: str | None = None
    judge_reason: str | None = None

    @property
    def flagged(self) -> bool:
        return self.score > self.probe.card.threshold


@dataclass(frozen=True)
class WindowScore:
    """Scores of one window of an over-long message by the name of the probe; it begins at a token of the text."""

    window: int
    first_token: int
    tokens: int
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one message. `rendered` and `notes` say how the model's template took it, `special_tokens` counts
    control tokens in its content, `partial` says why it was not read whole, `unreadable` is the share of its text that
    the tokenizer can make no sense of."""

    status: Literal["scored", "truncated", "skipped", "invalid", "failed"]
    scores: tuple[ProbeScore, ...] = ()
    tokens: int | None = None
    reason: str | None = None
    rendered: Literal["template", "adapted"] | None = None
    notes: tuple[str, ...] = ()
    special_tokens: int = 0
    windows: tuple[WindowScore, ...] = ()
    partial: tuple[str, ...] = ()
    unreadable: float | None = None
    second_tokens: int = 0


# Of a message that was not scored.
_NO_OUTCOME = Outcome("skipped")


@dataclass(frozen=True)
class ProcessedMessage:
    """A message of a record: where it is, what was parsed, its outcome once it is scored, and its mitigated reply where
    one was generated. `at` has the name of the stream until `placed`; `conflict`: other content is known there;
    `labelled`: its row says whose it is."""

    record: Record
    at: Coordinates
    sha256: str
    parsed: WireMessage | Invalid
    outcome: Outcome | None = None
    mitigation: Mitigation | None = None
    conflict: bool = False
    labelled: bool = True

    @property
    def place(self) -> Place:
        """What decides on its source name."""
        at = self.record.at
        return Place(at.source, at.partition, at.offset, self.record.log, self.sha256)

    def placed(self, source: str) -> ProcessedMessage:
        """Under its source name. A message without an id gets one of its coordinates."""
        parsed = self.parsed
        named = not isinstance(parsed, WireMessage) or parsed.id is not None
        if named and source == self.at.source:
            return self
        at = replace(self.at, source=source)
        if isinstance(parsed, WireMessage) and (parsed.id is None or parsed.id == str(self.at)):
            parsed = replace(parsed, id=str(at))
        return replace(self, at=at, parsed=parsed)

    @property
    def status(self) -> str:
        """The status of its row."""
        if self.conflict:
            return "failed"
        if self.outcome is not None:
            return self.outcome.status
        return self.parsed.status if isinstance(self.parsed, Invalid) else "failed"

    @property
    def reason(self) -> str | None:
        if self.conflict:
            return CONFLICT
        if self.outcome is not None:
            return self.outcome.reason
        return self.parsed.reason if isinstance(self.parsed, Invalid) else None

    @property
    def message_id(self) -> str | None:
        return self.parsed.id if isinstance(self.parsed, WireMessage) else self.parsed.message_id

    @property
    def reading(self) -> Reading | None:
        """What an engine has read itself."""
        return self.parsed.reading

    @property
    def scores(self) -> tuple[ProbeScore, ...]:
        """Its scores; none in a conflict, where they belong to no row."""
        return self.outcome.scores if self.outcome is not None and not self.conflict else ()

    @property
    def flagged(self) -> bool:
        return any(s.flagged for s in self.scores)

    @property
    def partial(self) -> tuple[str, ...]:
        """Why it was not read whole: `length`, `media`, `duplicate` (a field that is there twice), `cut` (by the
        gateway), `beside` (text where another one was read), `template` (which left text out in every form)."""
        if not self.scores or self.outcome is None:
            return ()
        notes = (*self.parsed.notes, *self.outcome.notes)
        noted = dict.fromkeys(why for note, why in _NOT_WHOLE.items() if note in notes) if notes else {}
        return (*self.outcome.partial, *noted)

    @property
    def decision(self) -> Literal["flag", "partial", "pass", "unscored"]:
        """What a verdict says. One that was not read whole is never a plain `pass`."""
        if not self.scores:
            return "unscored"
        return "flag" if self.flagged else "partial" if self.partial else "pass"


def parse_record(record: Record, parser: Parser) -> list[ProcessedMessage]:
    """The messages of a record; an over-size one is skipped unread, a tombstone is none."""
    if record.tombstone:
        return []
    if record.payload is None:
        reason = f"{record.size} bytes, over max_message_bytes"
        digest = hashlib.sha256(f"over-size:{record.size}".encode()).hexdigest()
        return [ProcessedMessage(record, record.at, digest, Invalid(reason, status="skipped"))]
    digest = record.sha256 or hashlib.sha256(record.payload).hexdigest()
    at = record.at
    messages = read_messages(record, parser).messages or ()
    return [
        # A record of the tables has its sub-index already.
        ProcessedMessage(record, replace(at, sub=number) if number else at, digest, parsed)
        for number, parsed in enumerate(messages)
    ]


def day_of(processed: ProcessedMessage, now: datetime) -> date:
    """The record's own day; the sender's `timestamp` is kept, but decides nothing."""
    return (processed.record.recorded or now).astimezone(UTC).date()


def message_row(
    processed: ProcessedMessage, privacy: Privacy, now: datetime, attribute_keys: Collection[str] = ()
) -> MessageRow:
    """The row of `messages`. Under privacy `sha256` and `none` only listed attributes and `attribute_keys` are kept."""
    parsed, outcome = processed.parsed, processed.outcome or _NO_OUTCOME
    day = day_of(processed, now)
    if not processed.labelled:
        return MessageRow(processed.at, processed.sha256, day, processed.status, processed.reason)
    own: dict[str, Any] = {}
    if isinstance(parsed, WireMessage):
        kept = bounded(parsed.attributes) if privacy == "full" else allowed(parsed.attributes, attribute_keys)
        own = {
            "sent_at": parsed.timestamp,
            "trace_id": parsed.trace_id,
            "text": parsed.stored_text if privacy == "full" and parsed.reading is None else None,
            # A reading has no text, whose hash would be that of another without one.
            "text_sha256": None if privacy == "none" or parsed.reading is not None else parsed.text_sha256,
            "attributes": kept or None,
        }
    return MessageRow(
        processed.at,
        processed.sha256,
        day,
        processed.status,
        processed.reason,
        message_id=processed.message_id,
        tenant=parsed.tenant,
        user_id=parsed.user,
        model=parsed.model,
        conversation_id=parsed.conversation_id,
        format=parsed.format,
        unread=parsed.unread,
        notes=parsed.notes + outcome.notes,
        tokens=outcome.tokens,
        rendered=outcome.rendered,
        special_tokens=outcome.special_tokens,
        partial=",".join(processed.partial) or None,
        windows=len(outcome.windows) or None,
        unreadable=outcome.unreadable,
        second_tokens=outcome.second_tokens or None,
        **own,
    )


def score_rows(processed: ProcessedMessage, shadow: Collection[str] = ()) -> list[ScoreRow]:
    """One row of `scores` a probe; those of `shadow` open no alerts."""
    rows = []
    for s in processed.scores:
        path = s.trajectory
        rows.append(
            ScoreRow(
                processed.at,
                s.probe.name,
                s.probe.card.version,
                s.score,
                s.probe.card.threshold,
                s.flagged,
                s.heads,
                shadow=s.probe.name in shadow,
                probe_digest=s.probe.digest,
                reading=s.reading,
                turn_scores=_by_turn(s.turns) if path is not None else None,
                top_turn=s.top_turn,
                turn_new=s.turn_new,
                trajectory=path.level if path is not None else None,
                path_length=path.path_length if path is not None else None,
                judge=s.judge,
                judge_reason=s.judge_reason,
            )
        )
    return rows


def _by_turn(scores: Sequence[tuple[int, float]]) -> tuple[float | None, ...]:
    """One a turn up to the last that has a score, None where one has none."""
    known = dict(scores)
    return tuple(known.get(turn) for turn in range(max(known) + 1))


def window_rows(processed: ProcessedMessage) -> list[WindowRow]:
    """One row of `window_scores` a probe and window."""
    if processed.outcome is None or not processed.outcome.windows:
        return []
    digests = {s.probe.name: s.probe.digest for s in processed.outcome.scores}
    return [
        WindowRow(processed.at, probe, each.window, each.first_token, each.tokens, score, digests[probe])
        for each in processed.outcome.windows
        for probe, score in each.scores
    ]


def answer_rows(processed: ProcessedMessage, privacy: Privacy) -> list[AnswerRow]:
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
                    processed.at,
                    kind,
                    reply.tokens,
                    recipe,
                    text=reply.text if privacy == "full" else None,
                    text_sha256=None if privacy == "none" else digest,
                )
            )
    return rows


def flagged_score(processed: ProcessedMessage, score: ScoreRow, model: str, day: date) -> Flagged:
    """What a rule sees of a score; `model` is used where the message names none; the row's day."""
    message = processed.parsed if isinstance(processed.parsed, WireMessage) else None
    return Flagged(
        probe=score.probe,
        score=score.score,
        threshold=score.threshold,
        tenant=message.tenant if message else None,
        model=(message.model if message else None) or model,
        coordinates=processed.at,
        message_id=processed.message_id,
        conversation_id=message.conversation_id if message else None,
        day=day,
        waiting=score.judge == "waiting",
        flagged=score.flagged,
        trajectory=score.trajectory,
        path_length=score.path_length,
        reading=score.reading,
        turn=score.top_turn,
        turn_new=score.turn_new,
    )
