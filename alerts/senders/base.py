"""What every sender shares: the notification that it gets, the kinds of events, and the error that it raises."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

EventKind = Literal["firing", "acknowledged", "resolved", "other"]
Fault = Literal["destination", "notification", "gone"]

_EVENT_KINDS: dict[str, EventKind] = {
    "alert.opened": "firing",
    "alert.reopened": "firing",
    "alert.worsened": "firing",
    "alert.acknowledged": "acknowledged",
    "alert.resolved": "resolved",
}


def kind_of_event(event: str) -> EventKind:
    """Whether an event says that an alert fires, was acknowledged or was resolved."""
    return _EVENT_KINDS.get(event, "other")


@dataclass(frozen=True)
class Notification:
    """What is sent to a destination: one or more events of alerts. `id` is the idempotency key; `id` and `body` are the
    same on every attempt.

    `event` is the name of the event (`alert.opened`, ...), that of the most severe alert where there are several.
    """

    id: uuid.UUID
    destination: str
    event: str
    body: dict[str, Any]
    attempts: int
    created_at: datetime


class DeliveryError(Exception):
    """An attempt that failed.

    `fault`: the destination's (no other notification would arrive either), the notification's (it was rejected, others
    may be accepted), or the destination is gone for good. `retry_after`: seconds that the receiver asked for.
    """

    def __init__(self, message: str, *, fault: Fault = "destination", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.retry_after = retry_after


class Sender(Protocol):
    """Sends one notification, or raises DeliveryError. Any other exception is a bug, and counts as a failed attempt."""

    def send(self, notification: Notification) -> None: ...
