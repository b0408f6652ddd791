"""Tokens looked up and remembered, for a process that must go on while PostgreSQL is away.

Contract: `TokenCache.authenticate` gives the principal of a secret, or why there is none. A token that was looked up
within RECHECK_SECONDS is accepted without a query; after that it is looked up again, which takes LOOKUP_SECONDS at
most. While the database does not answer, a token is accepted until `keep_seconds` after its last look-up, never beyond
its own expiry; others are told to come back. After a look-up without an answer the next AWAY_SECONDS ask nothing.

So a revoked token is refused at most STOP_SECONDS after its revocation while the database answers, and `keep_seconds`
later where it does not. Only digests are kept, of MAX_TOKENS tokens at most. Invalid tokens count against their
address (`rate_limit`); they are never remembered, and while their address is over its limit only a good one is looked
up (`live`).

Does not know scopes: the caller looks at the principal's.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.web.auth.authenticate import RetryLater
from monitor.web.auth.live import LiveSecrets
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.refusals import refused
from monitor.web.auth.tokens import Principal, find, secret_digest
from storage.sessions import CONNECT_ARGS

RECHECK_SECONDS = 10.0
LOOKUP_SECONDS = 2.0
AWAY_SECONDS = 2.0
STOP_SECONDS = RECHECK_SECONDS + LOOKUP_SECONDS + AWAY_SECONDS
MAX_TOKENS = 1_000

# Look-ups at once. One that hangs keeps its thread until the connection breaks.
_THREADS = 4
_MAX_LOOKUPS = 64


@dataclass(frozen=True)
class DatabaseAway:
    """The token is not known here, and the database cannot be asked; try again in `seconds`."""

    seconds: int

    def __str__(self) -> str:
        return f"the database does not answer, and this token is not known here; try again in {self.seconds} s"


class _NoAnswerError(Exception):
    """The database did not answer."""


@dataclass(frozen=True)
class _Known:
    principal: Principal
    looked_up: float


class TokenCache:
    """Of one event loop: `authenticate` is called there alone. `clock` is in seconds."""

    def __init__(
        self,
        engine: Engine,
        limiter: Limiter,
        *,
        keep_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # An engine of its own, less patient than the process's other one.
        self._engine = create_engine(
            engine.url,
            pool_size=_THREADS,
            max_overflow=0,
            pool_timeout=LOOKUP_SECONDS,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={**CONNECT_ARGS, "connect_timeout": int(LOOKUP_SECONDS), "application_name": "awry tokens"},
        )
        self._live = LiveSecrets(self._engine)
        self._limiter = limiter
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._lookups: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._away_until = float("-inf")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tokens")

    async def authenticate(self, secret: str, address: str) -> Principal | RetryLater | DatabaseAway | None:
        """None: the token is invalid, expired or revoked."""
        digest = secret_digest(secret)
        known = self._known.get(digest)
        age = self._clock() - known.looked_up if known is not None else float("inf")
        if known is not None and age < min(RECHECK_SECONDS, known.principal.seconds_left):
            return known.principal
        if known is None:
            seconds = self._limiter.blocked(address)
            if seconds is not None and not await self._is_live(digest):
                refused("blocked", address, "over the limit")
                return RetryLater(seconds)
        try:
            principal = await self._look_up(secret, digest)
        except _NoAnswerError:
            # Looked at again: another request may have had an answer meanwhile.
            known = self._known.get(digest)
            if known is not None:
                age = self._clock() - known.looked_up
                if age < min(self._keep_seconds, known.principal.seconds_left):
                    return known.principal
            return DatabaseAway(int(AWAY_SECONDS))
        if principal is not None:
            return principal
        self._live.forget(digest)
        refused("wrong", address, "a wrong, expired or revoked token", digest)
        seconds = self._limiter.count_failure(address)
        return None if seconds is None else RetryLater(seconds)

    async def _is_live(self, digest: bytes) -> bool:
        """Whether a live token has this digest; not while the database does not answer."""
        if self._clock() < self._away_until:
            return False
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._live.knows, digest)
            return await asyncio.wait_for(asked, LOOKUP_SECONDS)
        except (SQLAlchemyError, TimeoutError):
            self._away_until = self._clock() + AWAY_SECONDS
            return False

    def close(self) -> None:
        """Ends the threads; one that hangs is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    async def _look_up(self, secret: str, digest: bytes) -> Principal | None:
        """Ask the database, once for all requests of a token that wait for it."""
        task = self._lookups.get(digest)
        if task is None:
            if self._clock() < self._away_until or len(self._lookups) >= _MAX_LOOKUPS:
                raise _NoAnswerError
            task = asyncio.create_task(self._ask(secret, digest))
            self._lookups[digest] = task
            task.add_done_callback(lambda done: self._ended(digest, done))
        # A client that goes away must not end what others wait for.
        return await asyncio.shield(task)

    def _ended(self, digest: bytes, done: asyncio.Task[Principal | None]) -> None:
        self._lookups.pop(digest, None)
        if not done.cancelled():
            done.exception()  # asyncio would complain of one that nobody waited for

    async def _ask(self, secret: str, digest: bytes) -> Principal | None:
        began = self._clock()
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._find, secret)
            principal = await asyncio.wait_for(asked, LOOKUP_SECONDS)
        except (SQLAlchemyError, TimeoutError):
            self._away_until = self._clock() + AWAY_SECONDS
            raise _NoAnswerError from None
        if principal is None:
            self._known.pop(digest, None)
            return None
        self._known[digest] = _Known(principal, began)
        self._known.move_to_end(digest)
        while len(self._known) > MAX_TOKENS:
            self._known.popitem(last=False)
        return principal

    def _find(self, secret: str) -> Principal | None:
        with self._engine.begin() as connection:
            return find(connection, secret)
