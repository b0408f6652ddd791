"""Deliveries in tests: channels around senders, a clock that goes when it is told to, and what the tables say."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, select

from alerts.delivery.channel import Channel
from alerts.delivery.grouping import Policy
from alerts.senders.base import DeliveryError, Notification
from alerts.senders.http import Poster
from alerts.senders.webhook import WebhookSender
from benchmarks.support.destinations import SECRET, FakeClock, configured, to_webhook
from storage.schema import destinations, outbox

__all__ = [
    "GROUPED",
    "Down",
    "FakeClock",
    "Recorder",
    "carriers",
    "channel",
    "channels",
    "configured",
    "place",
    "to_webhook",
    "webhook_sender",
]

GROUPED = Policy(("rule", "probe"), wait=10, interval=300)


class Recorder:
    """A sender that remembers, and fails with the errors that it was given, one each time."""

    def __init__(self, *errors: Exception | None) -> None:
        self.events: list[Notification] = []
        self.errors = list(errors)
        self._lock = threading.Lock()

    def send(self, notification: Notification) -> None:
        with self._lock:
            self.events.append(notification)
            error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


class Down:
    """A sender whose receiver is away until it is not."""

    def __init__(self) -> None:
        self.away = True
        self.tries: list[Notification] = []
        self.events: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.tries.append(notification)
        if self.away:
            raise DeliveryError("not reachable (ConnectError)")
        self.events.append(notification)


def channel(sender: Any, policy: Policy = Policy(), **more: Any) -> Channel:  # noqa: B008 - frozen
    return Channel(sender, policy, **more)


def channels(*names: str, sender: Any, policy: Policy = Policy()) -> dict[str, Channel]:  # noqa: B008 - frozen
    return {name: channel(sender, policy) for name in names}


def webhook_sender(url: str, *secrets: str, **more: Any) -> WebhookSender:
    return WebhookSender(Poster(url, allow_private=True), secrets or (SECRET,), **more)


def place(engine: Engine, name: str = "pager") -> Any:
    """What is known of a destination."""
    with engine.connect() as connection:
        return connection.execute(select(destinations).where(destinations.c.name == name)).one()


def carriers(engine: Engine, name: str = "pager") -> Sequence[Any]:
    """The rows that carry a page, in their order."""
    query = select(outbox).where(outbox.c.page_id == outbox.c.id, outbox.c.destination == name).order_by(outbox.c.seq)
    with engine.connect() as connection:
        return connection.execute(query).all()
