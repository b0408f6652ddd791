"""How long to wait after a failure, and when to give up. Seconds throughout.

The waits double from 5 s to two minutes, each with jitter of up to half its length: a receiver that was down for an
hour has everything three minutes after it is back. Retry-After is honoured up to an hour, since a pager that may be
silent for days is no pager.
"""

from __future__ import annotations

import random

FIRST_WAIT = 5.0
MAX_WAIT = 120.0
MAX_RETRY_AFTER = 3600.0
# Attempts of a notification that its receiver rejects because of its content, about ten minutes' worth.
MAX_REFUSALS = 10


def wait_after(failures: int, retry_after: float | None = None) -> float:
    """Seconds until the next attempt after so many failures in a row (1 or more)."""
    planned: float = min(FIRST_WAIT * 2.0 ** min(failures - 1, 20), MAX_WAIT)
    jittered = planned * random.uniform(1.0, 1.5)  # noqa: S311 - spreading retries, not secrets
    return max(jittered, min(retry_after or 0.0, MAX_RETRY_AFTER))
