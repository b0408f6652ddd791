"""When a condition that comes and goes becomes an alert, and when it is over: pure.

Contract: a condition must be above its limit for `for_` before it fires, and at or under its clear limit for
`clear_for` before it is cleared; in between nothing changes. Only time that was watched counts: callers give the
seconds since the last look, bounded, so that neither a clock that jumps nor a pause lets a condition have held.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Phase = Literal["pending", "firing", "clearing"]


@dataclass(frozen=True)
class Held:
    """A condition's phase, and for how many seconds it has been in it. None instead: there is nothing to remember."""

    phase: Phase
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """When it fires and when it is cleared."""

    limit: float
    clear_limit: float
    for_: timedelta
    clear_for: timedelta


def step(
    held: Held | None, value: float, elapsed: float, limits: Limits
) -> tuple[Held | None, Literal["fired", "cleared"] | None]:
    """The phase after a look, and what happened."""
    if held is None or held.phase == "pending":
        if value <= limits.limit:
            return None, None
        seconds = 0.0 if held is None else held.seconds + elapsed
        fires = seconds >= limits.for_.total_seconds()
        return (Held("firing"), "fired") if fires else (Held("pending", seconds), None)
    if value > limits.clear_limit:
        return Held("firing"), None
    seconds = 0.0 if held.phase == "firing" else held.seconds + elapsed
    over = seconds >= limits.clear_for.total_seconds()
    return (None, "cleared") if over else (Held("clearing", seconds), None)


def watched(last: datetime, now: datetime, most: timedelta) -> float:
    """Seconds between two looks that count: none when the clock went back, at most `most` when it jumped ahead or
    nobody looked."""
    return min(max((now - last).total_seconds(), 0.0), most.total_seconds())
