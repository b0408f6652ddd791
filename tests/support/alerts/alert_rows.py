"""Alerts made in code and their rows, and a receiver on loopback (shared with the benchmarks)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, select, update

from benchmarks.support.alerts import all_outbox, flagged, open_alerts
from benchmarks.support.destinations import SECRET
from benchmarks.support.receiver import Received, Receiver, Reply, receiving
from storage.schema import alerts, outbox

__all__ = [
    "SECRET",
    "SENDERS",
    "Received",
    "Receiver",
    "Reply",
    "all_alerts",
    "all_outbox",
    "flagged",
    "make_due",
    "open_alerts",
    "receiving",
    "set_state",
    "wait_of",
]

SENDERS = ("pager", "siem")


def all_alerts(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(alerts).order_by(alerts.c.opened_at)))


def set_state(engine: Engine, state: str) -> None:
    with engine.begin() as connection:
        connection.execute(update(alerts).values(state=state))


def make_due(engine: Engine) -> None:
    """As if the waits were over."""
    with engine.begin() as connection:
        connection.execute(update(outbox).values(due_at=func.now() - timedelta(seconds=1)))


def wait_of(row: Any) -> float:
    """Seconds until the row is due."""
    return float((row.due_at - datetime.now(UTC)).total_seconds())
