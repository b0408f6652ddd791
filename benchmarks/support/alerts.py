"""Alerts made in code, and the rows of the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, select

from alerts.lifecycle.lifecycle import Opened, record_flagged
from alerts.rules.model import Flagged
from storage.coordinates import Coordinates
from storage.database import transact
from storage.schema import outbox


def flagged(
    offset: int = 0,
    value: float = 0.6,
    *,
    probe: str = "drift",
    tenant: str | None = "shop",
    model: str | None = "smol",
    threshold: float = 0.5,
) -> Flagged:
    return Flagged(probe, value, threshold, tenant, model, Coordinates("topic", 0, offset), f"m{offset}")


def open_alerts(engine: Engine, found: Sequence[Flagged], destinations: Sequence[str] = ("pager",)) -> list[Opened]:
    # As the worker does it: writers and senders may meet in a deadlock, and one of them is run again.
    return transact(engine, lambda connection: record_flagged(connection, found, destinations))


def all_outbox(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(outbox).order_by(outbox.c.created_at, outbox.c.destination)))
