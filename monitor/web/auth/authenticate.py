"""Authentication by token or session, for the HTTP API and the web pages alike; failed attempts are limited by address.

Contract: a wrong secret counts against its address, whichever way it came, is logged and counted. While an address is
over its limit no wrong secret of it reaches the database; a good one passes, be it as new as a second
(`monitor.web.auth.live`). A token of a scope that opens neither API nor pages is invalid here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from monitor.web.auth import sessions
from monitor.web.auth.live import LiveSecrets
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.refusals import refused
from monitor.web.auth.tokens import OPENS_PAGES, Principal, find, secret_digest


@dataclass(frozen=True)
class RetryLater:
    """Too many invalid tokens came from this address; it may try again in `seconds`."""

    seconds: int

    def __str__(self) -> str:
        return f"too many invalid tokens from this address; try again in {self.seconds} s"


class Authenticator:
    """Turns a secret into its principal."""

    def __init__(self, engine: Engine, limiter: Limiter) -> None:
        self._engine = engine
        self._limiter = limiter
        self._live = LiveSecrets(engine)

    def authenticate(self, secret: str, address: str) -> Principal | RetryLater | None:
        """By token. None: it is invalid, expired or revoked."""
        return self._find(secret, address, find)

    def session(self, secret: str, address: str) -> Principal | RetryLater | None:
        """By session. None: it is over, or its token is, or there never was one."""
        return self._find(secret, address, sessions.find)

    def _find(
        self, secret: str, address: str, find_in: Callable[[Connection, str], Principal | None]
    ) -> Principal | RetryLater | None:
        digest = secret_digest(secret)
        seconds = self._limiter.blocked(address)
        if seconds is not None and not self._live.knows(digest):
            refused("blocked", address, "over the limit")
            return RetryLater(seconds)
        with self._engine.begin() as connection:
            principal = find_in(connection, secret)
        if principal is not None and principal.scope in OPENS_PAGES:
            return principal
        self._live.forget(digest)
        if principal is not None:
            refused("scope", address, f"the token {principal.name} has the scope {principal.scope}", digest)
        else:
            refused("wrong", address, "a wrong, expired or revoked token or session", digest)
        seconds = self._limiter.count_failure(address)
        return None if seconds is None else RetryLater(seconds)
