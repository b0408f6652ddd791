"""Stops a worker when too many messages cannot be scored: then the worker or the stream is at fault.

Contract: `check` raises TooManyDeadError once more than `share` of the last WINDOW messages were dead letters, checked
from FEWEST messages on. The batch in progress is not committed then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from monitor.errors import TooManyDeadError

WINDOW = 1000
FEWEST = 100


class DeadLetterLimit:
    """Watches the share of dead letters."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._last: deque[bool] = deque(maxlen=WINDOW)

    def check(self, dead: Iterable[bool]) -> None:
        """Add one batch: for each message, whether it is a dead letter."""
        self._last.extend(dead)
        if len(self._last) >= FEWEST and sum(self._last) > self._share * len(self._last):
            raise TooManyDeadError(
                f"dead_letter_limit: {sum(self._last)} of the last {len(self._last)} messages could not be scored "
                f"(limit {self._share:g}); the column reason of the table messages says why; start again, or raise the "
                "limit"
            )
