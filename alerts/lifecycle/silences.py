"""Silences: which alerts send no notifications, until when.

Contract: a silence matches alerts by their dedup key, or by patterns on rule, probe, tenant and model, up to its
`severity`. An alert on the monitor itself may name a tenant; it is about all of them, so none is matched. A silence
takes effect on live alerts when it is created and on others when they open or reopen. A silenced alert continues to
count, and notifies anyway once it is more severe than when it was silenced. Times are the database's.

Creating a silence and opening an alert exclude each other (`lock_for_opening`, `lock_for_silencing`), so that no alert
opens in between without being silenced.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Row, func, select, text
from sqlalchemy.exc import OperationalError

from alerts.errors import TransitionError
from alerts.rules.model import SEVERITIES
from alerts.rules.patterns import matches
from storage.schema import silences

_LOCK_SECONDS = 5
MATCHERS = ("dedup_key", "rule", "probe", "tenant", "model")


@dataclass(frozen=True)
class Silence:
    """One silence: a literal dedup key, and patterns for the other matchers; None matches all."""

    id: uuid.UUID
    ends_at: datetime
    severity: str
    dedup_key: str | None
    patterns: tuple[tuple[str, str], ...]

    def matches(self, labels: Mapping[Any, Any]) -> bool:
        """Whether it silences an alert with these columns."""
        severity_matches = SEVERITIES.index(labels["severity"]) <= SEVERITIES.index(self.severity)
        # A key holds a tenant's name, which may hold a `*`: it is compared literally.
        key_matches = self.dedup_key in (None, labels["dedup_key"])
        of_all = ("tenant",) if labels["kind"] == "monitor" else ()
        named = ((pattern, None if name in of_all else labels[name]) for name, pattern in self.patterns)
        return severity_matches and key_matches and all(matches((pattern,), name) for pattern, name in named)


def as_silence(row: Row[Any]) -> Silence:
    """A row of `silences`."""
    columns = ((name, getattr(row, name)) for name in MATCHERS[1:])
    patterns = tuple((name, pattern) for name, pattern in columns if pattern is not None)
    return Silence(row.id, row.ends_at, row.severity, row.dedup_key, patterns)


def active(connection: Connection) -> list[Silence]:
    """The silences that are active now."""
    query = select(silences).where(silences.c.starts_at <= func.now(), silences.c.ends_at > func.now())
    return [as_silence(row) for row in connection.execute(query)]


def lock_for_opening(connection: Connection) -> list[Silence]:
    """The active silences; until the transaction ends, nobody can create another."""
    # A lock on the table: who may only read it cannot take one that conflicts.
    connection.execute(text("LOCK TABLE silences IN SHARE MODE"))
    return active(connection)


def lock_for_silencing(connection: Connection) -> None:
    """Until the transaction ends, nobody can open an alert. Waits a few seconds at most, since workers queue behind."""
    try:
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
        connection.execute(text("LOCK TABLE silences IN EXCLUSIVE MODE"))
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise TransitionError("silence: a worker is opening alerts and does not finish; try again") from None
        raise


def longest_matching(candidates: Sequence[Silence], labels: Mapping[Any, Any]) -> Silence | None:
    """Of the silences that match an alert's columns, the one that ends last."""
    return max((s for s in candidates if s.matches(labels)), key=lambda s: s.ends_at, default=None)
