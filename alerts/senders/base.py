"""What every sender shares: the event it gets and the error it raises."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

Fault = Literal["destination", "page", "gone"]


@dataclass(frozen=True)
class Event:
    """One page on its way out. `id` is the idempotency key and `body` what it says: the same on every try.

    `event` is what happened (`alert.opened`, ...), to the gravest of the alerts where the page is about several.
    """

    id: uuid.UUID
    destination: str
    event: str
    body: dict[str, Any]
    attempts: int
    created_at: datetime


class DeliveryError(Exception):
    """A try that failed.

    `fault` says whose: the destination's (nothing else would arrive either), the page's (it was refused, others may
    pass), or the destination is gone for good. `retry_after`: seconds that the receiver asked for.
    """

    def __init__(self, message: str, *, fault: Fault = "destination", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.retry_after = retry_after


class Sender(Protocol):
    """Sends one event, or raises DeliveryError. Any other exception is a defect, and counts as a failed try."""

    def send(self, event: Event) -> None: ...
