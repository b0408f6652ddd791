"""Who changed what, when, and from where: one row a change, in the transaction that made it.

Contract: rows hold states, severities, verdicts, times and comments of people; never a message's text. `at` is the
database's time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert

from storage.schema import audit
from storage.writer import clean


@dataclass(frozen=True)
class Actor:
    """Who does it: a person by the command line, the API or the page, or a rule. `origin` is a machine or address."""

    who: str
    via: Literal["cli", "api", "page", "rule"]
    origin: str | None = None


def by_rule(name: str) -> Actor:
    """What awry does by itself."""
    return Actor(f"rule {name}", "rule")


def leave(
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
    """Leave the row."""
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
