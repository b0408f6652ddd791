"""Sessions of the web pages: what a browser's cookie stands for.

Contract: every function works in the caller's transaction. `begin` returns a secret, whose SHA-256 the table holds; a
session ends after `lasting`, with its token, or by `end`. `find` returns None for one that is over and one that never
was alike. Name, scope and tenant of a token's session are the token's; other sessions have their own. Beginning and
ending each leave an audit row.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, and_, delete, func, insert, or_, select
from sqlalchemy.sql import Select

from alerts.lifecycle.audit import Actor, write_audit_row
from monitor.web.auth.tokens import PageScope, Principal, secret_digest
from storage.coordinates import clean
from storage.schema import api_tokens, web_sessions

PREFIX = "awrys_"
LASTING = timedelta(hours=12)

_BYTES = 32


@dataclass(frozen=True)
class SignedIn:
    """Somebody who has no token: who they are, and what they may."""

    name: str
    scope: PageScope
    tenant: str | None = None


def begin(
    connection: Connection, who: Principal | SignedIn, actor: Actor, how: str, lasting: timedelta = LASTING
) -> str:
    """Sign in, and return the session's secret; `how` is for the audit. Sessions that are over are deleted."""
    connection.execute(delete(web_sessions).where(web_sessions.c.expires_at <= func.now()))
    secret = PREFIX + secrets.token_hex(_BYTES)
    token_id = who.id if isinstance(who, Principal) else None
    connection.execute(
        insert(web_sessions).values(
            id=uuid.uuid4(),
            secret_sha256=secret_digest(secret),
            token_id=token_id,
            name=clean(who.name)[:200],
            scope=who.scope,
            tenant=clean(who.tenant) if who.tenant is not None else None,
            expires_at=func.now() + lasting,
        )
    )
    tenant = {"tenant": who.tenant} if who.tenant is not None else {}
    write_audit_row(connection, actor, "sign in", token_id=token_id, after={"by": how, "scope": who.scope, **tenant})
    return secret


def find(connection: Connection, secret: str) -> Principal | None:
    """Who is signed in by this secret."""
    row = connection.execute(_of(secret)).one_or_none()
    return Principal(row.id, row.name, row.scope, float(row.left), row.tenant) if row is not None else None


def end(connection: Connection, secret: str, origin: str | None) -> None:
    """Sign out; nothing happens where nobody is signed in by this secret."""
    row = connection.execute(_of(secret)).one_or_none()
    if row is not None:
        connection.execute(delete(web_sessions).where(web_sessions.c.id == row.id))
        write_audit_row(connection, Actor(row.name, "page", origin), "sign out", token_id=row.token_id)


def _of(secret: str) -> Select[tuple[uuid.UUID, str, str, str | None, uuid.UUID | None, float]]:
    session, token = web_sessions.c, api_tokens.c
    good = and_(token.revoked_at.is_(None), token.expires_at > func.now())
    ends = func.least(session.expires_at, token.expires_at)  # of NULL and a time it is the time
    return (
        select(
            session.id,
            session.name,
            session.scope,
            session.tenant,
            session.token_id,
            func.extract("epoch", ends - func.now()).label("left"),
        )
        .select_from(web_sessions.outerjoin(api_tokens, token.id == session.token_id))
        .where(
            session.secret_sha256 == secret_digest(secret),
            session.expires_at > func.now(),
            or_(session.token_id.is_(None), good),
        )
    )
