"""Who may send: a request's token, of one scope.

Contract: `authorize` returns whose token it is, or raises RefusedError: 401 without a token or with a wrong one, 403
for one of another scope, 429 where its address sent too many wrong ones, 503 where the database cannot be asked.
"""

from __future__ import annotations

from starlette.requests import Request

from monitor.ingest.bodies import DRAIN_BYTES
from monitor.ingest.refused import RefusedError
from monitor.web.auth.authenticate import RetryLater
from monitor.web.auth.cache import DatabaseAway, TokenCache
from monitor.web.auth.tokens import Principal, Scope


async def authorize(request: Request, tokens: TokenCache, scope: Scope) -> Principal:
    """The token's principal, where it has this scope."""
    scheme, _, secret = request.headers.get("authorization", "").strip().partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise RefusedError(
            401,
            f"no token: send Authorization: Bearer awry_...; awry tokens create NAME --scope {scope} makes one",
            drain=DRAIN_BYTES,
        )
    address = request.client.host if request.client else "unknown"
    found = await tokens.authenticate(secret, address)
    if found is None:
        raise RefusedError(401, "the token is invalid, expired or revoked; see awry tokens list", drain=DRAIN_BYTES)
    if isinstance(found, RetryLater):
        raise RefusedError(429, str(found), retry_after=found.seconds, drain=DRAIN_BYTES)
    if isinstance(found, DatabaseAway):
        raise RefusedError(503, str(found), retry_after=found.seconds, drain=DRAIN_BYTES)
    if found.scope != scope:
        raise RefusedError(
            403, f"the token has the scope {found.scope}; create one with --scope {scope}", drain=DRAIN_BYTES
        )
    return found
