"""The audit trail: who changed what, when, and from where; one row a change, in the transaction that made it.

Contract: rows hold states, severities, verdicts, times and people's comments; never a message's text. `at` is the
database's time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert

from storage.coordinates import clean
from storage.schema import audit


@dataclass(frozen=True)
class Actor:
    """Who changes something: a person by command line, API or page, or a rule. `origin` is a host or address."""

    who: str
    via: Literal["cli", "api", "page", "rule"]
    origin: str | None = None


def by_rule(name: str) -> Actor:
    """The actor of what awry does automatically."""
    return Actor(f"rule {name}", "rule")


def write_audit_row(
    connection: Connection,
    actor: Actor,
    action: str,
    *,
    alert_id: uuid.UUID | None = None,
    silence_id: uuid.UUID | None = None,
    token_id: uuid.UUID | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Insert one row."""
    connection.execute(
        insert(audit).values(
            who=clean(actor.who)[:200],
            via=actor.via,
            origin=clean(actor.origin)[:200] if actor.origin else None,
            action=action,
            alert_id=alert_id,
            silence_id=silence_id,
            token_id=token_id,
            before=clean(before),
            after=clean(after),
        )
    )
