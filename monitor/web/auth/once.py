"""A link that signs in once, for whoever started the server on a terminal.

Contract: `OnceLink.secret` is for the terminal alone. `take` is true for it, the first time within LASTING seconds, and
for nothing else. It belongs to one process and lives in memory.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable

LASTING = 600.0


class OnceLink:
    """Signs in as `name`, to read. `clock` is in seconds."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.secret = secrets.token_urlsafe(32)
        self._clock = clock
        self._ends = clock() + LASTING
        self._used = False
        self._lock = threading.Lock()

    def take(self, secret: str) -> bool:
        with self._lock:
            good = hmac.compare_digest(secret.encode(), self.secret.encode())
            if not good or self._used or self._clock() >= self._ends:
                return False
            self._used = True
            return True
