"""Delivers what is due in the outbox, one destination after the other.

Contract: `deliver_due(engine, channels)` sends every notification that is due. It claims each right before it is sent,
renews the claim while the sender works, and records the result. A loop that dies between sending and recording leaves a
notification that another loop sends again when the claim expires, under the same id and with the same body:
at-least-once. A failure pauses its own destination, longer each time, and no other; a notification that its receiver
rejects, or that is too old, is dead and stays visible; a receiver that says it is gone gets nothing more until somebody
enables it or its configuration changes. No event is lost by that: pending ones stay pending.

Does not know: how a notification is sent (`alerts.senders`), which events go together (`alerts.delivery.grouping`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from alerts.delivery import queue
from alerts.delivery.channel import Channel
from alerts.delivery.lease import Clock, renewing_lease
from alerts.delivery.queue import Claim, Result
from alerts.delivery.resend import resend, with_current_alerts
from alerts.senders.base import DeliveryError, Notification
from storage.database import transact


@dataclass
class Delivered:
    """What one round did; `by_destination` counts (name, sent | retried | dead | gone)."""

    sent: int = 0
    failed: int = 0
    dead: int = 0
    gone: int = 0
    by_destination: Counter[tuple[str, str]] = field(default_factory=Counter, compare=False)

    def count(self, destination: str, result: Result) -> None:
        """One more attempt, and its result."""
        self.by_destination[destination, result] += 1
        self.sent += result == "sent"
        self.failed += result == "retried"
        self.dead += result == "dead"
        self.gone += result == "gone"


def deliver_due(
    engine: Engine, channels: Mapping[str, Channel], limit: int = 1000, clock: Clock = queue.database_now
) -> Delivered:
    """Send what is due, at most `limit` notifications a destination."""
    delivered = Delivered()
    for name, channel in channels.items():
        resent = resend(engine, name, channel, clock)
        if resent is not None:
            delivered.count(name, resent)
        for _ in range(limit):
            result = deliver_next(engine, name, channel, clock)
            if result is None:
                break
            delivered.count(name, result)
    return delivered


def deliver_next(engine: Engine, name: str, channel: Channel, clock: Clock = queue.database_now) -> Result | None:
    """Send this destination's next notification; None when none is due."""

    def take(connection: Connection) -> tuple[Claim, Notification] | None:
        now = clock(connection)
        claim = queue.claim(connection, name, channel, now)
        return None if claim is None else (claim, with_current_alerts(connection, claim, channel, now))

    taken = transact(engine, take)
    if taken is None:
        return None
    claim, notification = taken
    failure: DeliveryError | None = None
    with renewing_lease(engine, claim, clock):
        try:
            channel.sender.send(notification)
        except DeliveryError as error:
            failure = error
        except Exception as error:  # a bug must neither end the loop nor count as delivered; its text may quote
            failure = DeliveryError(f"the sender broke ({type(error).__name__})", fault="notification")

    def record(connection: Connection) -> Result:
        if failure is None:
            return queue.record_sent(connection, claim, clock(connection))
        return queue.record_failure(connection, claim, channel, failure, clock(connection))

    return transact(engine, record)
