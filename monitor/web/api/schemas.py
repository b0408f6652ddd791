"""Response bodies: the API's contract with programs. Only the fields named here are sent, whatever columns are added.

Contract: ids, names, scores, states, times, and comments that people wrote about alerts; never message text. Scores and
thresholds of probes are in class gaps; an alert has its own `units`.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from alerts.lifecycle.actions import Verdict
from alerts.lifecycle.states import State
from alerts.rules.model import Severity

Kind = Literal["threshold", "rate", "monitor"]
Status = Literal["scored", "truncated", "skipped", "invalid", "failed"]
Judge = Literal["waiting", "harmful", "harmless", "failed", "not asked"]
_DIGEST = "which card scored; empty where it is not known: from before cards had digests"
_SUB = "which message of its record, from 0; 0 for a record that is one message"


class MessageScore(BaseModel):
    """A message of an alert: its coordinates, its id, its score."""

    source: str
    partition: int
    offset: int
    sub: int = Field(0, description=_SUB)
    id: str | None = Field(None, description="the `id` of the message as it was sent")
    score: float
    reading: str | None = Field(None, description="how it was read where that decided the score; null: as it is")
    turn: int | None = Field(None, description="the turn with the highest value, from 0")
    turn_new: bool | None = Field(None, description="whether that turn is new in this message")


class Alert(BaseModel):
    """The present state of an alert."""

    id: uuid.UUID
    dedup_key: str = Field(description="at most one alert with a given key is unresolved")
    rule: str
    kind: Kind
    probe: str | None = Field(description="null for a rule about the monitor itself, as are the messages")
    tenant: str | None
    model: str | None
    conversation_id: str | None
    severity: Severity
    state: State
    count: int
    score: float = Field(description="the highest value measured, in `units`")
    threshold: float
    units: str
    first_message: MessageScore | None
    top_message: MessageScore | None = Field(description="the message with the highest score")
    opened_at: datetime
    last_seen_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    silenced_until: datetime | None = Field(description="null unless the alert is silenced")
    resolved_at: datetime | None
    resolved_by: str | None
    reopened: int = Field(description="number of times it was reopened")
    verdict: Verdict | None
    verdict_at: datetime | None
    verdict_by: str | None
    inhibited_by: list[uuid.UUID] = Field(description="the live alerts that hold its notifications, by inhibit rules")
    held_open: str | None = Field(description="why its rule does not resolve it, though nothing is measured any more")


class AlertPage(BaseModel):
    """A page of alerts, the newest first."""

    alerts: list[Alert]
    next: str | None = Field(description="cursor of the next page; null on the last page")


class Change(BaseModel):
    """A row of the audit."""

    at: datetime
    who: str
    via: str = Field(description="cli, api, page (the web pages), or rule (awry itself)")
    origin: str | None = Field(description="host name or address")
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Delivery(BaseModel):
    """An event of an alert in the outbox of one destination."""

    destination: str
    event: str
    created_at: datetime
    attempts: int
    delivered_at: datetime | None
    dead_at: datetime | None = Field(description="when delivery was given up")
    last_error: str | None
    held_by: str | None = Field(description="what holds it on purpose: a time interval, an alert that inhibits it")


class AlertDetail(Alert):
    """An alert with its messages, history and deliveries."""

    messages: list[MessageScore] = Field(description="the messages with the highest scores, ten at most")
    history: list[Change] = Field(description="oldest first")
    deliveries: list[Delivery] = Field(description="oldest first")


class Silence(BaseModel):
    """An active silence. Matchers are names, or patterns with `*`; null matches everything."""

    id: uuid.UUID
    dedup_key: str | None
    rule: str | None
    probe: str | None
    tenant: str | None
    model: str | None
    up_to: Severity = Field(description="more severe alerts are not silenced")
    starts_at: datetime
    ends_at: datetime
    comment: str
    created_by: str


class SilenceMade(BaseModel):
    """A silence that was created."""

    id: uuid.UUID
    ends_at: datetime
    alerts: list[uuid.UUID] = Field(description="live alerts that it silenced")


class SilenceEnded(BaseModel):
    """A silence that was ended."""

    id: uuid.UUID
    alerts: list[uuid.UUID] = Field(description="alerts that are no longer silenced, as no other silence matches them")


class Share(BaseModel):
    """A share with its exact (Clopper-Pearson) 95 % confidence interval."""

    value: float
    low: float
    high: float
    n: int


class Precision(BaseModel):
    """Judged alerts of one rule and probe. Authorised tests count as true positives."""

    rule: str
    probe: str | None
    true: int
    authorised_test: int
    false: int
    not_judged: int
    precision: Share | None = Field(description="null if none was judged")


class ProbeScore(BaseModel):
    """One probe's score of a message."""

    probe: str
    version: int
    digest: str = Field(description=_DIGEST)
    score: float
    threshold: float
    flagged: bool
    reading: str | None = Field(description="how it was read where that decided the score; null: as it is")
    turn_scores: list[float | None] | None = Field(description="the highest value of each turn, from turn 0")
    top_turn: int | None = Field(description="the turn with the highest of them; null where they were read joined")
    turn_new: bool | None = Field(description="whether that turn is new in this message")
    trajectory: float | None = Field(description="the running maximum over the turns, with decay")
    path_length: float | None = Field(description="the sum of the changes from turn to turn")
    judge: Judge | None = Field(
        description="what the judge, a language model, says of the message; `flagged` stays the probe's; null: it was "
        "not to be asked, since the score is outside of its band or there is no judge"
    )
    judge_by: str | None = Field(description="the judge that was asked; null as long as none was")
    judge_at: datetime | None = Field(
        description="when that was stored; null while the message waits, and where it was not to wait from the start"
    )
    judge_reason: str | None = Field(
        description="in fixed words, such as `confidence 0.80`, `same text as before`, `timeout`, `budget spent`"
    )


class WindowScore(BaseModel):
    """One probe's score of one window of an over-long message; it flags nothing."""

    probe: str
    digest: str = Field(description=_DIGEST)
    window: int
    first_token: int = Field(description="where the window begins")
    tokens: int
    score: float


class HoldingAlert(BaseModel):
    """An alert that counts a message."""

    id: uuid.UUID
    dedup_key: str
    rule: str
    severity: Severity
    state: State


class _OfMessage(BaseModel):
    """Where a message is, what became of it, and whose it is."""

    source: str
    partition: int
    offset: int
    sub: int = Field(description=_SUB)
    day: date
    status: Status
    reason: str | None
    message_id: str | None
    tenant: str | None
    user_id: str | None
    model: str | None
    conversation_id: str | None


class Message(_OfMessage):
    """Status and scores of a message, without its text. `reason` says why it has no score."""

    trace_id: str | None
    sent_at: datetime | None = Field(description="null also where it is outside the years 1 to 9999")
    sent_at_stored: str | None = Field(description="such a time as it is stored, else null")
    ingested_at: datetime
    tokens: int | None
    format: str | None = Field(description="the format that it was read as")
    rendered: Literal["template", "adapted"] | None = Field(
        description="`adapted` where the model's chat template refused the conversation as it was"
    )
    notes: list[str] = Field(description="what was adapted or dropped, in fixed words")
    unread: dict[str, int] = Field(description="parts without text by kind, such as images")
    special_tokens: int = Field(description="control tokens of the model in the content")
    partial: str | None = Field(description="why it was not read whole: `length`, `media` or `length,media`")
    windows: int | None = Field(description="in how many windows it was read, where it was too long")
    unreadable: float | None = Field(description="share of the text that the tokenizer can make no sense of")
    second_tokens: int | None = Field(description="tokens of its second readings")
    conflicts: int = Field(description="other payloads received at these coordinates; none of them was scored")
    scores: list[ProbeScore]
    window_scores: list[WindowScore]
    alerts: list[HoldingAlert]


class FoundScore(BaseModel):
    """One probe's score of a message that was found."""

    probe: str
    version: int
    digest: str = Field(description=_DIGEST)
    score: float
    threshold: float
    flagged: bool


class FoundMessage(_OfMessage):
    """A message that was found, without its text."""

    ingested_at: datetime
    scores: list[FoundScore] = Field(description="the highest above its threshold first")


class MessagePage(BaseModel):
    """A page of messages, the latest first."""

    messages: list[FoundMessage]
    next: str | None = Field(description="cursor of the next page; null on the last page")


class ProbeCard(BaseModel):
    """A probe that has scored messages, with its card except the reference texts."""

    name: str
    version: int
    digest: str = Field(description="what the card is known by; several cards may share name and version")
    registered_at: datetime
    card: dict[str, Any]


class Counts(BaseModel):
    """Numbers of events by delivery state."""

    pending: int
    delivered: int
    dead: int = Field(description="delivery was given up")


class Destination(BaseModel):
    """The delivery state of a destination."""

    name: str
    events: Counts
    failures: int = Field(description="consecutive failures since the last success")
    held_until: datetime | None = Field(description="nothing is sent before this time")
    disabled_at: datetime | None = Field(description="when the receiver answered that it is gone")
    last_error: str | None


class Deliveries(BaseModel):
    """The outbox in numbers: all events, and by destination."""

    events: Counts
    oldest_pending_seconds: float
    destinations: list[Destination]
