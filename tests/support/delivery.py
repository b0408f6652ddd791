"""Deliveries in tests: couriers around senders, a clock that goes when it is told to, and what the tables say."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, select

from alerts.delivery.channel import Courier, make_courier
from alerts.delivery.grouping import Policy
from alerts.links import Links
from alerts.destinations import Destination
from alerts.senders.base import DeliveryError, Event
from alerts.senders.http import Poster
from alerts.senders.webhook import WebhookSender
from storage.schema import destinations, outbox
from tests.support.alert_rows import SECRET

GROUPED = Policy(("rule", "probe"), wait=10, interval=300)


class FakeClock:
    """The time of a delivery loop; it goes on when told to."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(seconds=5)

    def __call__(self, _: Connection | None = None) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Recorder:
    """A sender that remembers, and fails with the errors that it was given, one each time."""

    def __init__(self, *errors: Exception | None) -> None:
        self.events: list[Event] = []
        self.errors = list(errors)
        self._lock = threading.Lock()

    def send(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)
            error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


class Down:
    """A sender whose receiver is away until it is not."""

    def __init__(self) -> None:
        self.away = True
        self.tries: list[Event] = []
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        self.tries.append(event)
        if self.away:
            raise DeliveryError("not reachable (ConnectError)")
        self.events.append(event)


def courier(sender: Any, policy: Policy = Policy(), **more: Any) -> Courier:  # noqa: B008 - frozen
    return Courier(sender, policy, **more)


def couriers(*names: str, sender: Any, policy: Policy = Policy()) -> dict[str, Courier]:  # noqa: B008 - frozen
    return {name: courier(sender, policy) for name in names}


def to_webhook(url: str, **options: Any) -> Courier:
    """The courier of a webhook on loopback; ungrouped unless told otherwise."""
    values = {"name": "pager", "kind": "webhook", "url": url, "secret": SECRET, "allow_private": True, "group_by": ()}
    return configured(**values | options)


def configured(links: Links = Links(), **options: Any) -> Courier:  # noqa: B008 - frozen
    """The courier of a destination as an owner writes it."""
    return make_courier(Destination(**options), links)


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
