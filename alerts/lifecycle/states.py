"""How an alert's state changes: pure, so that the worker, the evaluator and people agree.

open -> acknowledged -> resolved; silenced and back; a resolved one may be reopened. `sighting` is what a new breach
does to an alert, `moved` what a person's or a rule's decision does. Neither knows of tables or time: callers say
whether a silence is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from alerts.errors import TransitionError
from alerts.rules.model import worse

State = Literal["open", "acknowledged", "silenced", "resolved"]
STATES: tuple[State, ...] = get_args(State)
Action = Literal["acknowledge", "silence", "unsilence", "resolve", "reopen"]
EventName = Literal["alert.opened", "alert.worsened", "alert.reopened", "alert.acknowledged", "alert.resolved"]

_ALLOWED: dict[Action, tuple[State, ...]] = {
    "acknowledge": ("open", "silenced"),
    "silence": ("open", "acknowledged", "silenced"),
    "unsilence": ("silenced",),
    "resolve": ("open", "acknowledged", "silenced"),
    "reopen": ("resolved",),
}


@dataclass(frozen=True)
class Sighting:
    """What became of an alert that was seen: `event` is what is new, None when nothing is; `suppressed` when a silence
    keeps it from being told."""

    state: State
    severity: str
    event: EventName | None = None
    suppressed: bool = False
    silence_over: bool = False


def sighting(
    state: State,
    severity: str,
    seen: str,
    *,
    acknowledged: bool = False,
    silenced_severity: str | None = None,
    silence_over: bool = False,
) -> Sighting:
    """A live alert of this `severity` is in breach again, this time as grave as `seen`."""
    after = worse(severity, seen)
    graver = after != severity
    if state != "silenced":
        return Sighting(state, after, "alert.worsened" if graver else None)
    quiet_up_to = silenced_severity or severity
    if worse(quiet_up_to, after) != quiet_up_to:
        return Sighting("open", after, "alert.worsened")
    if silence_over:
        back = _unsilenced(acknowledged)
        if back == "open":
            # What went on behind the silence is news.
            return Sighting(back, after, "alert.reopened", silence_over=True)
        return Sighting(back, after, "alert.worsened" if graver else None)
    return Sighting("silenced", after, "alert.worsened" if graver else None, suppressed=graver)


def moved(state: State, action: Action, *, acknowledged: bool = False) -> State:
    """The state after `action`; TransitionError when that cannot be."""
    if state not in _ALLOWED[action]:
        raise TransitionError(f"{action}: the alert is {state}; it must be {' or '.join(_ALLOWED[action])}")
    if action == "unsilence":
        return _unsilenced(acknowledged)
    after: dict[Action, State] = {
        "acknowledge": "acknowledged",
        "silence": "silenced",
        "resolve": "resolved",
        "reopen": "open",
    }
    return after[action]


def moves(state: State) -> tuple[Action, ...]:
    """What a person may do to an alert in this state."""
    return tuple(action for action, states in _ALLOWED.items() if state in states and action != "unsilence")


def _unsilenced(acknowledged: bool) -> State:
    return "acknowledged" if acknowledged else "open"
