"""What the API answers with: its promise to programs. Only what is named here goes out, so no column slips through.

Contract: ids, names, scores, states and times, and what people wrote about alerts; never a message's text. Scores and
thresholds of probes are in class gaps; an alert says its own `units`.
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


class MessageScore(BaseModel):
    """A message that an alert holds: its coordinates, its id, its score."""

    source: str
    partition: int
    offset: int
    id: str | None = Field(description="the id that the message brought")
    score: float


class Alert(BaseModel):
    """An alert as it is now."""

    id: uuid.UUID
    dedup_key: str = Field(description="at most one alert of a key is not resolved")
    rule: str
    kind: Kind
    probe: str | None = Field(description="null for a rule on the monitor itself, as are the messages")
    tenant: str | None
    model: str | None
    conversation_id: str | None
    severity: Severity
    state: State
    count: int
    score: float = Field(description="what was measured at its worst, in `units`")
    threshold: float
    units: str
    first_message: MessageScore | None
    top_message: MessageScore | None = Field(description="the one with the highest score")
    opened_at: datetime
    last_seen_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    silenced_until: datetime | None = Field(description="while it is silenced")
    resolved_at: datetime | None
    resolved_by: str | None
    reopened: int = Field(description="how many times")
    verdict: Verdict | None
    verdict_at: datetime | None
    verdict_by: str | None


class AlertPage(BaseModel):
    """Some alerts, the newest first."""

    alerts: list[Alert]
    next: str | None = Field(description="cursor of the next page; null when there is none")


class Change(BaseModel):
    """One row of the audit."""

    at: datetime
    who: str
    via: str = Field(description="cli, api, page, or rule for awry itself")
    origin: str | None = Field(description="a machine, or an address")
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Delivery(BaseModel):
    """What was, or will be, sent about an alert."""

    destination: str
    event: str
    created_at: datetime
    attempts: int
    delivered_at: datetime | None
    dead_at: datetime | None = Field(description="when it was given up")
    last_error: str | None


class AlertDetail(Alert):
    """An alert with what belongs to it."""

    messages: list[MessageScore] = Field(description="those with the highest scores, ten at most")
    history: list[Change] = Field(description="oldest first")
    deliveries: list[Delivery] = Field(description="oldest first")


class Silence(BaseModel):
    """A silence that holds. Matchers are names, or patterns with `*`; null matches all."""

    id: uuid.UUID
    dedup_key: str | None
    rule: str | None
    probe: str | None
    tenant: str | None
    model: str | None
    up_to: Severity = Field(description="graver alerts are not silenced")
    starts_at: datetime
    ends_at: datetime
    comment: str
    created_by: str


class SilenceMade(BaseModel):
    """A silence that was made."""

    id: uuid.UUID
    ends_at: datetime
    alerts: list[uuid.UUID] = Field(description="live alerts that it silenced just now")


class SilenceEnded(BaseModel):
    """A silence that is over."""

    id: uuid.UUID
    alerts: list[uuid.UUID] = Field(description="alerts that no other silence covers: they speak up again")


class Share(BaseModel):
    """A share with its exact 95 % binomial interval."""

    value: float
    low: float
    high: float
    n: int


class Precision(BaseModel):
    """How many alerts of one rule and probe were right. Authorised tests are: the probe saw what was there."""

    rule: str
    probe: str | None
    true: int
    authorised_test: int
    false: int
    not_judged: int
    precision: Share | None = Field(description="null when none was judged")


class ProbeScore(BaseModel):
    """One probe's score of a message."""

    probe: str
    version: int
    score: float
    threshold: float
    flagged: bool


class HoldingAlert(BaseModel):
    """An alert that holds a message."""

    id: uuid.UUID
    dedup_key: str
    rule: str
    severity: Severity
    state: State


class Message(BaseModel):
    """What became of a message, never what it says. Each message has one status, and why it has no score."""

    source: str
    partition: int
    offset: int
    day: date
    status: Status
    reason: str | None
    message_id: str | None
    tenant: str | None
    user_id: str | None
    model: str | None
    conversation_id: str | None
    sent_at: datetime | None
    ingested_at: datetime
    tokens: int | None
    conflicts: int = Field(description="other payloads that came at these coordinates: none of them was scored")
    scores: list[ProbeScore]
    alerts: list[HoldingAlert]


class ProbeCard(BaseModel):
    """A probe that has scored here, with its card but for the reference texts."""

    name: str
    version: int
    registered_at: datetime
    card: dict[str, Any]


class Counts(BaseModel):
    """Events by what became of them."""

    pending: int
    delivered: int
    dead: int = Field(description="given up")


class Destination(BaseModel):
    """What is known of a destination."""

    name: str
    events: Counts
    failures: int = Field(description="since the last success")
    held_until: datetime | None = Field(description="nothing is sent before")
    disabled_at: datetime | None = Field(description="when the receiver said that it is gone")
    last_error: str | None


class Deliveries(BaseModel):
    """The outbox in numbers."""

    events: Counts
    oldest_pending_seconds: float
    destinations: list[Destination]
