"""Which secrets are good, kept in memory: what tells a good one from a flood of wrong ones without asking the database.

Contract: `knows(digest)` is whether a live token or session has this digest. It queries the database at most once in
REFRESH_SECONDS, whatever comes, so a new one is known that much later at the latest. It is no authentication: the
caller looks the secret up, and calls `forget` where that fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine, func, select, union_all

from storage.schema import api_tokens, web_sessions

REFRESH_SECONDS = 1.0
# 32 bytes each; more have no room here, and wait like wrong ones while their address is blocked.
_MAX_SECRETS = 100_000


class LiveSecrets:
    """The digests of one process. `clock` is in seconds."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._digests: set[bytes] = set()
        self._next = float("-inf")
        self._lock = threading.Lock()

    def knows(self, digest: bytes) -> bool:
        """Raises what the database raises."""
        with self._lock:
            if digest not in self._digests and self._clock() >= self._next:
                self._next = self._clock() + REFRESH_SECONDS
                self._digests = self._read()
            return digest in self._digests

    def forget(self, digest: bytes) -> None:
        """It was looked up and is good no longer."""
        with self._lock:
            self._digests.discard(digest)

    def _read(self) -> set[bytes]:
        token, session = api_tokens.c, web_sessions.c
        live = union_all(
            select(token.secret_sha256).where(token.revoked_at.is_(None), token.expires_at > func.now()),
            select(session.secret_sha256).where(session.expires_at > func.now()),
        )
        with self._engine.connect() as connection:
            return {bytes(digest) for digest in connection.execute(live.limit(_MAX_SECRETS)).scalars()}
