"""The same line of a log again and again, said once in a while with how often it was.

Contract: `Throttle()(key)` gives None where a line with this key was let through less than EVERY_SECONDS ago, else how
many were left out since. It remembers so many keys at most and forgets the oldest.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

EVERY_SECONDS = 10.0
_MAX_KEYS = 256


class Throttle:
    """One for all lines of a handler; any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __call__(self, key: str) -> int | None:
        now = self._clock()
        with self._lock:
            said_at, left_out = self._known.get(key, (float("-inf"), 0))
            if now - said_at < EVERY_SECONDS:
                self._known[key] = (said_at, left_out + 1)
                return None
            self._known[key] = (now, 0)
            self._known.move_to_end(key)
            if len(self._known) > _MAX_KEYS:
                self._known.popitem(last=False)
            return left_out
