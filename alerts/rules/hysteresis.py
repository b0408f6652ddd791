"""When a condition that comes and goes becomes an alert, and when it is over: pure.

Contract: the value must be above its limit for `for_` before the condition fires, and at or under its clear limit for
`clear_for` before it is cleared; in between nothing changes. Only time that was observed counts: callers pass the
seconds since the last evaluation, bounded, so that neither a clock that jumps nor a pause counts towards `for_`
or `clear_for`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Phase = Literal["pending", "firing", "clearing"]


@dataclass(frozen=True)
class ConditionState:
    """A condition's phase, and for how many seconds it has been in it; None where it is in none."""

    phase: Phase
    seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """When a condition fires and when it is cleared."""

    limit: float
    clear_limit: float
    for_: timedelta
    clear_for: timedelta


def step(
    state: ConditionState | None, value: float, elapsed: float, limits: Limits
) -> tuple[ConditionState | None, Literal["fired", "cleared"] | None]:
    """The state after an evaluation, and what happened."""
    if state is None or state.phase == "pending":
        if value <= limits.limit:
            return None, None
        seconds = 0.0 if state is None else state.seconds + elapsed
        fires = seconds >= limits.for_.total_seconds()
        return (ConditionState("firing"), "fired") if fires else (ConditionState("pending", seconds), None)
    if value > limits.clear_limit:
        return ConditionState("firing"), None
    seconds = 0.0 if state.phase == "firing" else state.seconds + elapsed
    cleared = seconds >= limits.clear_for.total_seconds()
    return (None, "cleared") if cleared else (ConditionState("clearing", seconds), None)


def observed_seconds(last: datetime, now: datetime, most: timedelta) -> float:
    """Seconds between two evaluations that count: none when the clock was set back, at most `most` when it jumped ahead
    or nothing evaluated."""
    return min(max((now - last).total_seconds(), 0.0), most.total_seconds())
