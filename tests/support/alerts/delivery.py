"""Deliveries in tests: channels with senders that record, and what the tables have."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, func, insert, select, update

from alerts.delivery.channel import Channel
from alerts.delivery.deliver import Delivered
from alerts.delivery.grouping import Policy
from alerts.destinations import Destination
from alerts.senders.base import DeliveryError, Notification
from alerts.senders.http import Poster
from alerts.senders.webhook import WebhookSender
from benchmarks.support.destinations import SECRET, FakeClock, configured, to_webhook
from storage.schema import alerts, destinations, outbox
from tests.support.alerts.alert_rows import all_outbox

__all__ = [
    "GROUPED",
    "TOP_MESSAGE",
    "VALID_OPTIONS",
    "Down",
    "FakeClock",
    "Recorder",
    "act_on_alert",
    "carriers",
    "channel",
    "channels",
    "configured",
    "delivered",
    "full_notification",
    "place",
    "seconds_until_due",
    "to_webhook",
    "valid_destination",
    "wait_until_delivered",
    "webhook_sender",
]

PATIENCE_SECONDS = 90.0
GROUPED = Policy(("rule", "probe"), wait=10, interval=300)


class Recorder:
    """A sender that records notifications, and raises the given errors, one each time."""

    def __init__(self, *errors: Exception | None) -> None:
        self.sent: list[Notification] = []
        self.errors = list(errors)
        self._lock = threading.Lock()

    def send(self, notification: Notification) -> None:
        with self._lock:
            self.sent.append(notification)
            error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


class Down:
    """A sender whose receiver is down until it is not."""

    def __init__(self) -> None:
        self.away = True
        self.attempts: list[Notification] = []
        self.sent: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.attempts.append(notification)
        if self.away:
            raise DeliveryError("not reachable (ConnectError)")
        self.sent.append(notification)


def channel(sender: Any, policy: Policy = Policy(), **more: Any) -> Channel:  # noqa: B008 - frozen
    return Channel(sender, policy, **more)


def channels(*names: str, sender: Any, policy: Policy = Policy()) -> dict[str, Channel]:  # noqa: B008 - frozen
    return {name: channel(sender, policy) for name in names}


def webhook_sender(url: str, *secrets: str, **more: Any) -> WebhookSender:
    return WebhookSender(Poster(url, allow_private=True), secrets or (SECRET,), **more)


def place(engine: Engine, name: str = "pager") -> Any:
    """The row of a destination."""
    with engine.connect() as connection:
        return connection.execute(select(destinations).where(destinations.c.name == name)).one()


def carriers(engine: Engine, name: str = "pager") -> Sequence[Any]:
    """The rows that carry a notification, in their order."""
    query = select(outbox).where(outbox.c.page_id == outbox.c.id, outbox.c.destination == name).order_by(outbox.c.seq)
    with engine.connect() as connection:
        return connection.execute(query).all()


def delivered(sent: int = 0, failed: int = 0, dead: int = 0, gone: int = 0) -> Delivered:
    return Delivered(sent, failed, dead, gone)


def seconds_until_due(row: Any, clock: FakeClock) -> float:
    return float((row.due_at - clock.now).total_seconds())


def act_on_alert(engine: Engine, tenant: str, event: str, state: str) -> None:
    """What the lifecycle does when a person acts on an alert: its state, and a row in the outbox."""
    with engine.begin() as connection:
        row = connection.execute(
            update(alerts)
            .where(alerts.c.tenant == tenant, alerts.c.state != "resolved")
            .values(state=state, resolved_at=func.now() if state == "resolved" else None)
            .returning(alerts.c.id)
        ).one()
        first = connection.execute(select(outbox).where(outbox.c.alert_id == row.id).limit(1)).one()
        body = {**first.body, "type": event, "data": {**first.body["data"], "state": state}}
        connection.execute(
            insert(outbox).values(
                id=func.gen_random_uuid(), alert_id=row.id, destination=first.destination, event=event, body=body
            )
        )


def wait_until_delivered(engine: Engine) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while any(row.delivered_at is None for row in all_outbox(engine)):
        assert time.monotonic() < until, Counter((r.attempts, r.last_error) for r in all_outbox(engine))
        time.sleep(0.1)


# The options of a valid destination of each kind.
VALID_OPTIONS: dict[str, dict[str, Any]] = {
    "console": {},
    "webhook": {"url": "https://hooks.example/x", "secret": SECRET},
    "alertmanager": {"url": "http://127.0.0.1:9093/prefix"},
    "pagerduty": {"routing_key": "k" * 32},
    "apprise": {"url": "json://geheim"},
    "syslog": {"url": "syslog+tls://siem.example"},
    "file": {"path": "/var/log/awry.json"},
}


def valid_destination(kind: str, **more: Any) -> Destination:
    return Destination(name="d", kind=kind, **VALID_OPTIONS[kind] | more)


TOP_MESSAGE = {"source": "llm.traffic", "partition": 3, "offset": 1204, "id": "m-1204", "score": 1.234567}


def full_notification(event: str = "alert.opened", **more: Any) -> Notification:
    """A notification with every field that one can have; `more` changes its data."""
    data = {
        "alert_id": "6b3f7c1e-5a52-4d56-9c0b-2f4f6f0f7d11",
        "dedup_key": "threshold:drift:shop:smol",
        "rule": "threshold",
        "kind": "threshold",
        "state": {"alert.acknowledged": "acknowledged", "alert.resolved": "resolved"}.get(event, "open"),
        "severity": "error",
        "probe": "drift",
        "tenant": "shop",
        "model": "smol",
        "conversation_id": "c-7",
        "count": 12,
        "score": 1.234567,
        "threshold": 0.5,
        "units": "class gaps",
        "first_message": {**TOP_MESSAGE, "offset": 7, "id": None},
        "top_message": TOP_MESSAGE,
        "top_messages": [TOP_MESSAGE],
        "opened_at": "2026-03-01T00:00:00+00:00",
        "last_seen_at": "2026-03-01T00:05:00+00:00",
        "links": {"runbook": "https://wiki.example/threshold", "dashboard": "https://grafana.example/d/awry"},
    }
    body = {"type": event, "timestamp": "2026-03-01T00:05:01+00:00", "data": data | more}
    at = datetime(2026, 3, 1, 0, 5, 1, tzinfo=UTC)
    return Notification(uuid.UUID("0190a0a0-0000-7000-8000-000000000001"), "siem", event, body, 1, at)
