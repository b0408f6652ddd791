"""Silences: who must not be paged about what, until when.

Contract: a silence matches alerts by patterns on their dedup key, rule, probe, tenant and model, and no alert graver
than its `severity`. It takes effect on live alerts when it is made and on others when they open or reopen. A silenced
alert counts on, and pages anyway once it is graver than when it was silenced. Times are the database's.

Making a silence and opening an alert exclude each other (`opening`, `silencing`), so that no alert slips through
between them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, text

from alerts.patterns import ANY, matches
from alerts.rules import SEVERITIES
from storage.schema import silences

# Any number will do, as long as every awry uses the same one.
_LOCK = 0x41575251
MATCHERS = ("dedup_key", "rule", "probe", "tenant", "model")


@dataclass(frozen=True)
class Silence:
    """One silence that holds now."""

    id: uuid.UUID
    ends_at: datetime
    severity: str
    patterns: tuple[str, ...]

    def covers(self, alert: dict[str, Any]) -> bool:
        """Whether an alert with these columns is silenced by it."""
        mild = SEVERITIES.index(alert["severity"]) <= SEVERITIES.index(self.severity)
        return mild and all(
            matches((pattern,), alert.get(name)) for name, pattern in zip(MATCHERS, self.patterns, strict=True)
        )


def opening(connection: Connection) -> list[Silence]:
    """The silences that hold; until the transaction ends nobody makes another."""
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _LOCK})
    rows = connection.execute(
        select(silences).where(silences.c.starts_at <= func.now(), silences.c.ends_at > func.now())
    )
    return [Silence(r.id, r.ends_at, r.severity, tuple(getattr(r, name) or ANY for name in MATCHERS)) for r in rows]


def silencing(connection: Connection) -> None:
    """Until the transaction ends nobody opens an alert."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def longest(found: Sequence[Silence], alert: dict[str, Any]) -> Silence | None:
    """Of the silences that cover an alert, the one that ends last."""
    return max(_covering(found, alert), key=lambda s: s.ends_at, default=None)


def _covering(found: Sequence[Silence], alert: dict[str, Any]) -> Iterable[Silence]:
    return (silence for silence in found if silence.covers(alert))
