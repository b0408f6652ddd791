"""API tokens: named, created and revoked by operators, each change with its audit row.

Contract: every function works in the caller's transaction. `create` returns the secret once; the table holds only its
SHA-256. `find` returns None for an unknown, an expired and a revoked secret alike, by one query, so that a caller
cannot learn which. Expiry is by the database's clock. A token's name is the actor in the audit.

Scopes: `read` reads pages and API, `act` may change something as well, `ingest` may only send messages to `awry
ingest`: neither of the others may, and pages and API refuse it. A token of one tenant, which `read` and `act` may be,
sees and changes that tenant's rows alone (`monitor.web.auth.tenancy`).
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
from alerts.lifecycle.audit import Actor, write_audit_row
from alerts.rules.durations import format_duration
from storage import tenant_access
from storage.coordinates import clean
from storage.schema import api_tokens

Scope = Literal["read", "act", "ingest", "score"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PageScope = Literal["read", "act"]
OPENS_PAGES: tuple[PageScope, ...] = get_args(PageScope)

# Recognised by scanners for leaked secrets.
PREFIX = "awry_"
MAX_LIFETIME = timedelta(days=366)

_BYTES = 32
_LAST_USED_RESOLUTION = timedelta(minutes=1)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MAX_TENANT = 500


class TokenError(AlertsError):
    """A token that cannot be created or revoked; the message names the field and the fix."""


@dataclass(frozen=True)
class Principal:
    """Whoever holds a valid token or session: its id, name and scope, and its tenant; it expires in `seconds_left`."""

    id: uuid.UUID
    name: str
    scope: Scope
    seconds_left: float
    tenant: str | None = None

    @property
    def may_act(self) -> bool:
        return self.scope == "act"


def create(
    connection: Connection, name: str, scope: Scope, lasting: timedelta, actor: Actor, tenant: str | None = None
) -> str:
    """Create a token and return its secret. The name of an expired token may be used again."""
    if not _NAME.fullmatch(name):
        raise TokenError("name: use letters, digits, '.', '_' and '-', 63 of them at most, a letter or digit first")
    if scope not in SCOPES:
        raise TokenError(f"scope: use one of {', '.join(SCOPES)}")
    if not timedelta() < lasting <= MAX_LIFETIME:
        raise TokenError(f"for: a token lasts from 1s to {format_duration(MAX_LIFETIME)}")
    if tenant is not None:
        _check_tenant(connection, tenant, scope)
    expired = (api_tokens.c.name == name, api_tokens.c.revoked_at.is_(None), api_tokens.c.expires_at <= func.now())
    connection.execute(update(api_tokens).where(*expired).values(revoked_at=api_tokens.c.expires_at))
    secret = PREFIX + secrets.token_hex(_BYTES)
    created = connection.execute(
        insert(api_tokens)
        .values(
            id=uuid.uuid4(),
            name=name,
            secret_sha256=secret_digest(secret),
            scope=scope,
            tenant=tenant,
            created_by=clean(actor.who)[:200],
            expires_at=func.now() + lasting,
        )
        .on_conflict_do_nothing(index_elements=["name"], index_where=api_tokens.c.revoked_at.is_(None))
        .returning(api_tokens.c.id, api_tokens.c.expires_at)
    ).one_or_none()
    if created is None:
        raise TokenError(f"name: {name} is the name of a live token; revoke it, or choose another name")
    after = {"name": name, "scope": scope, "expires_at": created.expires_at.isoformat(timespec="seconds")}
    after |= {"tenant": tenant} if tenant is not None else {}
    write_audit_row(connection, actor, "create token", token_id=created.id, after=after)
    return secret


def find(connection: Connection, secret: str) -> Principal | None:
    """The principal of this secret; records the time of use, to the minute."""
    c = api_tokens.c
    unrecorded = or_(c.last_used_at.is_(None), c.last_used_at < func.now() - _LAST_USED_RESOLUTION)
    left = func.extract("epoch", c.expires_at - func.now())
    token = connection.execute(
        select(c.id, c.name, c.scope, c.tenant, unrecorded.label("unrecorded"), left.label("left")).where(
            # By index: its timing may tell something about the hash, which does not lead back to the secret.
            c.secret_sha256 == secret_digest(secret),
            c.revoked_at.is_(None),
            c.expires_at > func.now(),
        )
    ).one_or_none()
    if token is None:
        return None
    if token.unrecorded:
        connection.execute(update(api_tokens).where(c.id == token.id, unrecorded).values(last_used_at=func.now()))
    return Principal(token.id, token.name, token.scope, float(token.left), token.tenant)


def revoke(connection: Connection, name: str, actor: Actor) -> None:
    """Revoke the live token of this name, at once."""
    c = api_tokens.c
    revoked = connection.execute(
        update(api_tokens)
        .where(c.name == clean(name), c.revoked_at.is_(None), c.expires_at > func.now())
        .values(revoked_at=func.now())
        .returning(c.id, c.name, c.scope)
    ).one_or_none()
    if revoked is None:
        raise TokenError("name: no live token has it; see awry tokens list")
    write_audit_row(
        connection, actor, "revoke token", token_id=revoked.id, before={"name": revoked.name, "scope": revoked.scope}
    )


def list_tokens(connection: Connection) -> list[dict[str, Any]]:
    """All tokens, the newest first, with `state` live, expired or revoked; without their secrets' digests."""
    c = api_tokens.c
    columns = [column for column in c if column.name != "secret_sha256"]
    expired = (c.expires_at <= func.now()).label("expired")
    rows = connection.execute(select(*columns, expired).order_by(c.created_at.desc(), c.id)).mappings()
    return [_listed(dict(row)) for row in rows]


def _check_tenant(connection: Connection, tenant: str, scope: Scope) -> None:
    if scope not in OPENS_PAGES:
        raise TokenError(f"tenant: a token of scope {scope} has none; use --scope read or --scope act")
    if not tenant or len(tenant) > _MAX_TENANT or clean(tenant) != tenant:
        raise TokenError(f"tenant: write it as messages name it, from 1 to {_MAX_TENANT} characters")
    missing = tenant_access.missing(connection)
    if missing:
        raise TokenError(f"tenant: {missing}")


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    # An expired token whose name was used again was marked as revoked then, by `create`.
    revoked = row["revoked_at"] is not None and row["revoked_at"] < row["expires_at"]
    expired = row.pop("expired")
    return row | {"state": "revoked" if revoked else "expired" if expired else "live"}


def secret_digest(secret: str) -> bytes:
    """SHA-256, the only form in which a secret is stored."""
    # A header may hold bytes that are no text.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
