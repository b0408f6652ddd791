"""Delivering what the transactions left: pages, one destination after the other.

Contract: `deliver_due(engine, couriers)` sends every page that is due, each under a claim of its own that is taken
right before and kept while the sender works, and writes down what became of it. A loop that dies after sending and
before writing leaves a page that another sends again when the claim lapses, under the same id and with the same body:
at-least-once. A failure holds its destination for a while, longer each time, and no other; a page that its receiver
refuses, or that is too old, is dead and visible; a receiver that says it is gone is sent nothing more until
somebody enables it or its configuration changes. Nothing is lost by it: what waits, waits.

Does not know: how things are sent (`alerts.senders`), what goes together (`alerts.delivery.grouping`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from alerts.delivery import queue
from alerts.delivery.channel import Courier
from alerts.delivery.lease import Clock, held
from alerts.delivery.queue import Result
from alerts.delivery.resend import as_it_stands, refresh
from alerts.senders.base import DeliveryError
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
        """One more try, and how it ended."""
        self.by_destination[destination, result] += 1
        self.sent += result == "sent"
        self.failed += result == "retried"
        self.dead += result == "dead"
        self.gone += result == "gone"


def deliver_due(
    engine: Engine, couriers: Mapping[str, Courier], limit: int = 1000, clock: Clock = queue.database_now
) -> Delivered:
    """Send what is due, at most `limit` pages a destination."""
    done = Delivered()
    for name, courier in couriers.items():
        told = refresh(engine, name, courier, clock)
        if told is not None:
            done.count(name, told)
        for _ in range(limit):
            result = deliver_next(engine, name, courier, clock)
            if result is None:
                break
            done.count(name, result)
    return done


def deliver_next(engine: Engine, name: str, courier: Courier, clock: Clock = queue.database_now) -> Result | None:
    """Send this destination's next page; None when there is none."""
    with engine.begin() as connection:
        now = clock(connection)
        claim = queue.claim(connection, name, courier, now)
        if claim is None:
            return None
        event = claim.event if courier.refresh is None else as_it_stands(connection, claim, name, courier, now)
    failure: DeliveryError | None = None
    with held(engine, claim, clock):
        try:
            courier.sender.send(event)
        except DeliveryError as error:
            failure = error
        except Exception as error:  # a defect must neither end the loop nor pass for a delivery; its text may quote
            failure = DeliveryError(f"the sender broke ({type(error).__name__})", fault="page")

    def write_down(connection: Connection) -> Result:
        if failure is None:
            return queue.sent(connection, claim, clock(connection))
        return queue.failed(connection, claim, courier, failure, clock(connection))

    return transact(engine, write_down)
