"""Silences: who must not be paged about what, until when.

Contract: a silence matches alerts by their dedup key, or by patterns on rule, probe, tenant and model, and no alert
graver than its `severity`. It takes effect on live alerts when it is made and on others when they open or reopen. A
silenced alert counts on, and pages anyway once it is graver than when it was silenced. Times are the database's.

Making a silence and opening an alert exclude each other (`opening`, `silencing`), so that no alert slips through
between them.
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

# Any number will do, as long as every awry uses the same one.
_LOCK = 0x41575251
_LOCK_SECONDS = 5
MATCHERS = ("dedup_key", "rule", "probe", "tenant", "model")


@dataclass(frozen=True)
class Silence:
    """One silence: a dedup key as it is, patterns for the other matchers, None where it matches all."""

    id: uuid.UUID
    ends_at: datetime
    severity: str
    dedup_key: str | None
    patterns: tuple[tuple[str, str], ...]

    def covers(self, alert: Mapping[Any, Any]) -> bool:
        """Whether an alert with these columns is silenced by it."""
        mild = SEVERITIES.index(alert["severity"]) <= SEVERITIES.index(self.severity)
        # A key holds a tenant's name, which may hold anything: it is never taken for a pattern.
        named = self.dedup_key in (None, alert["dedup_key"])
        return mild and named and all(matches((pattern,), alert[name]) for name, pattern in self.patterns)


def as_silence(row: Row[Any]) -> Silence:
    """A row of `silences`."""
    found = ((name, getattr(row, name)) for name in MATCHERS[1:])
    patterns = tuple((name, pattern) for name, pattern in found if pattern is not None)
    return Silence(row.id, row.ends_at, row.severity, row.dedup_key, patterns)


def active(connection: Connection) -> list[Silence]:
    """The silences that hold."""
    query = select(silences).where(silences.c.starts_at <= func.now(), silences.c.ends_at > func.now())
    return [as_silence(row) for row in connection.execute(query)]


def opening(connection: Connection) -> list[Silence]:
    """The silences that hold; until the transaction ends nobody makes another."""
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _LOCK})
    return active(connection)


def silencing(connection: Connection) -> None:
    """Until the transaction ends nobody opens an alert. Waits a few seconds at most, since workers wait behind it."""
    try:
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            raise TransitionError("silence: a worker is opening alerts and does not finish; try again") from None
        raise


def longest(found: Sequence[Silence], alert: Mapping[Any, Any]) -> Silence | None:
    """Of the silences that cover an alert, the one that ends last."""
    return max((s for s in found if s.covers(alert)), key=lambda s: s.ends_at, default=None)
