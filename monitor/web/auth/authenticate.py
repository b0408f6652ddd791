"""Authentication by token, for the HTTP API and the web pages alike; failed attempts are limited by address.

Contract: `Authenticator.authenticate` queries the database only for an address below its limit of failures, or for a
token that was valid before. An invalid token counts against its address, whichever way it came. A token of scope
`ingest` opens neither API nor pages: here it is invalid.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.tokens import Principal, find, secret_digest


@dataclass(frozen=True)
class RetryLater:
    """Too many invalid tokens came from this address; it may try again in `seconds`."""

    seconds: int

    def __str__(self) -> str:
        return f"too many invalid tokens from this address; try again in {self.seconds} s"


class Authenticator:
    """Turns the secret of a token into its principal."""

    def __init__(self, engine: Engine, limiter: Limiter) -> None:
        self._engine = engine
        self._limiter = limiter

    def authenticate(self, secret: str, address: str) -> Principal | RetryLater | None:
        """None: the token is invalid, expired or revoked."""
        digest = secret_digest(secret)
        seconds = self._limiter.blocked(address)
        if seconds is None or self._limiter.known(digest):
            with self._engine.begin() as connection:
                principal = find(connection, secret)
            if principal is not None and principal.scope != "ingest":
                self._limiter.remember(digest)
                return principal
            self._limiter.forget(digest)
            seconds = self._limiter.count_failure(address)
        return None if seconds is None else RetryLater(seconds)
