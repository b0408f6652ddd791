"""Stops a worker when too many messages fail: then the worker, its model or its machine is at fault.

Contract: `check` raises TooManyDeadError once more than `share` of the last WINDOW messages had failed, checked from
FEWEST messages on. The batch in progress is not committed then. What a sender sends wrong (`invalid`) does not count:
one tenant could stop the worker for all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from monitor.errors import TooManyDeadError

WINDOW = 1000
FEWEST = 100


class DeadLetterLimit:
    """Watches the share of failures."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._last: deque[bool] = deque(maxlen=WINDOW)
        # Batches are stored beside the scoring of the next one.
        self._lock = threading.Lock()

    def check(self, failed: Iterable[bool]) -> None:
        """Add one batch: for each message, whether it failed."""
        with self._lock:
            self._last.extend(failed)
            self._judge()

    def failed_later(self) -> None:
        """One of the messages that were added as good has failed after all."""
        with self._lock:
            for i in reversed(range(len(self._last))):
                if not self._last[i]:
                    self._last[i] = True
                    break
            self._judge()

    def _judge(self) -> None:
        if len(self._last) >= FEWEST and sum(self._last) > self._share * len(self._last):
            raise TooManyDeadError(
                f"dead_letter_limit: scoring or storing failed for {sum(self._last)} of the last {len(self._last)} "
                f"messages (limit {self._share:g}); the column reason of the table messages says why; start again, or "
                "raise the limit"
            )
