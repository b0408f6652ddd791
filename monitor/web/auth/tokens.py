"""Who may use the HTTP API: tokens by name, made and revoked by operators, each change with its audit row.

Contract: every function works in the caller's transaction. A secret is shown once, by `create`, and is nowhere else:
the table has its SHA-256. `find` gives None for a secret that is unknown, expired or revoked, and one look-up, so that
nobody learns which. Expiry is by the database's clock. Names are the callers' in audits.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from alerts.errors import AlertsError
from alerts.lifecycle.audit import Actor, leave
from alerts.rules.durations import format_duration
from storage.schema import api_tokens
from storage.writer import clean

Scope = Literal["read", "act"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

# What scanners for leaked secrets look for.
PREFIX = "awry_"
LONGEST = timedelta(days=366)

_BYTES = 32
_USED_EVERY = timedelta(minutes=1)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class TokenError(AlertsError):
    """A token that cannot be made or revoked; the message names the field and the fix."""


@dataclass(frozen=True)
class Holder:
    """Who holds a token that is good, and what it lets them do."""

    id: uuid.UUID
    name: str
    scope: Scope

    @property
    def may_act(self) -> bool:
        return self.scope == "act"


def create(connection: Connection, name: str, scope: Scope, lasting: timedelta, actor: Actor) -> str:
    """Make a token and return its secret. The name of one that expired may be taken."""
    if not _NAME.fullmatch(name):
        raise TokenError("name: use letters, digits, '.', '_' and '-', 63 of them at most, a letter or digit first")
    if scope not in SCOPES:
        raise TokenError(f"scope: use one of {', '.join(SCOPES)}")
    if not timedelta() < lasting <= LONGEST:
        raise TokenError(f"for: a token lasts from 1s to {format_duration(LONGEST)}")
    expired = (api_tokens.c.name == name, api_tokens.c.revoked_at.is_(None), api_tokens.c.expires_at <= func.now())
    connection.execute(update(api_tokens).where(*expired).values(revoked_at=api_tokens.c.expires_at))
    secret = PREFIX + secrets.token_hex(_BYTES)
    made = connection.execute(
        insert(api_tokens)
        .values(
            id=uuid.uuid4(),
            name=name,
            secret_sha256=digest(secret),
            scope=scope,
            created_by=clean(actor.who)[:200],
            expires_at=func.now() + lasting,
        )
        .on_conflict_do_nothing(index_elements=["name"], index_where=api_tokens.c.revoked_at.is_(None))
        .returning(api_tokens.c.id, api_tokens.c.expires_at)
    ).one_or_none()
    if made is None:
        raise TokenError(f"name: {name} is the name of a live token; revoke it, or choose another name")
    after = {"name": name, "scope": scope, "expires_at": made.expires_at.isoformat(timespec="seconds")}
    leave(connection, actor, "create token", token_id=made.id, after=after)
    return secret


def find(connection: Connection, secret: str) -> Holder | None:
    """Who holds this secret; that it was used is kept, to the minute."""
    c = api_tokens.c
    unmarked = or_(c.last_used_at.is_(None), c.last_used_at < func.now() - _USED_EVERY)
    found = connection.execute(
        select(c.id, c.name, c.scope, unmarked.label("unmarked")).where(
            # By index: the time that takes tells of the hash, from which nobody gets to a secret.
            c.secret_sha256 == digest(secret),
            c.revoked_at.is_(None),
            c.expires_at > func.now(),
        )
    ).one_or_none()
    if found is None:
        return None
    if found.unmarked:
        connection.execute(update(api_tokens).where(c.id == found.id, unmarked).values(last_used_at=func.now()))
    return Holder(found.id, found.name, found.scope)


def revoke(connection: Connection, name: str, actor: Actor) -> None:
    """End the live token of this name, at once."""
    c = api_tokens.c
    gone = connection.execute(
        update(api_tokens)
        .where(c.name == clean(name), c.revoked_at.is_(None), c.expires_at > func.now())
        .values(revoked_at=func.now())
        .returning(c.id, c.name, c.scope)
    ).one_or_none()
    if gone is None:
        raise TokenError("name: no live token has it; see awry token list")
    leave(connection, actor, "revoke token", token_id=gone.id, before={"name": gone.name, "scope": gone.scope})


def list_tokens(connection: Connection) -> list[dict[str, Any]]:
    """All tokens, the newest first, with `state` live, expired or revoked; nothing of their secrets."""
    c = api_tokens.c
    columns = [column for column in c if column.name != "secret_sha256"]
    expired = (c.expires_at <= func.now()).label("expired")
    rows = connection.execute(select(*columns, expired).order_by(c.created_at.desc(), c.id)).mappings()
    return [_listed(dict(row)) for row in rows]


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    # One whose name was taken after it expired was marked as revoked then.
    revoked = row["revoked_at"] is not None and row["revoked_at"] < row["expires_at"]
    expired = row.pop("expired")
    return row | {"state": "revoked" if revoked else "expired" if expired else "live"}


def digest(secret: str) -> bytes:
    """What is kept of a secret."""
    # A header may hold what is no text.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
