"""How long to wait after a failure, and when to give up. Seconds throughout.

The waits double from 5 s to two minutes, each up to half as long again, so that loops do not knock in step: a receiver
that was away for an hour has everything three minutes after its return. Retry-After is honoured up to an hour; longer
asked for or not, a pager that is silent for days is no pager.
"""

from __future__ import annotations

import random

FIRST_WAIT = 5.0
LONGEST_WAIT = 120.0
LONGEST_RETRY_AFTER = 3600.0
# Tries of a page that its receiver refuses for what is in it, about ten minutes' worth.
MOST_REFUSALS = 10


def wait_after(failures: int, retry_after: float | None = None) -> float:
    """Seconds until the next try after so many failures in a row (1 or more)."""
    planned: float = min(FIRST_WAIT * 2.0 ** min(failures - 1, 20), LONGEST_WAIT)
    jittered = planned * random.uniform(1.0, 1.5)  # noqa: S311 - spreading retries, not secrets
    return max(jittered, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
