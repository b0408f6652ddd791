"""Whose a token is, for the API and the page alike; an address that tries wrong ones waits.

Contract: `find` asks the database only for an address that has not been wrong too often within a minute, or for a
token that was good before. A wrong token counts against its address, whichever way it came.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.tokens import Holder, digest, find


@dataclass(frozen=True)
class Wait:
    """Too many wrong tokens came from this address; it may ask again in so many seconds."""

    seconds: int

    def __str__(self) -> str:
        return f"too many wrong tokens come from this address; try again in {self.seconds} s"


class Holders:
    """Finds who holds a token."""

    def __init__(self, engine: Engine, limiter: Limiter) -> None:
        self._engine = engine
        self._limiter = limiter

    def find(self, secret: str, address: str) -> Holder | Wait | None:
        """None: it never was a token, has expired or was revoked."""
        kept = digest(secret)
        seconds = self._limiter.blocked(address)
        if seconds is None or self._limiter.known(kept):
            with self._engine.begin() as connection:
                holder = find(connection, secret)
            if holder is not None:
                self._limiter.remember(kept)
                return holder
            self._limiter.forget(kept)
            seconds = self._limiter.fail(address)
        return None if seconds is None else Wait(seconds)
