"""The state machine of an alert: pure, so that the worker, the evaluator and people's actions agree.

open -> acknowledged -> resolved; silenced and back; a resolved one may be reopened. `after_breach` is what a new breach
does to a live alert, `next_state` what an action of a person or a rule does. Neither knows of tables or time: callers
say whether a silence is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from alerts.errors import TransitionError
from alerts.rules.model import max_severity

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
class BreachOutcome:
    """What a breach made of an alert: `event` is the event to notify, None when nothing changed; `suppressed` when a
    silence keeps it from being notified."""

    state: State
    severity: str
    event: EventName | None = None
    suppressed: bool = False
    silence_over: bool = False


def after_breach(
    state: State,
    severity: str,
    new_severity: str,
    *,
    acknowledged: bool = False,
    silenced_severity: str | None = None,
    silence_over: bool = False,
) -> BreachOutcome:
    """A live alert of this `severity` is in breach again, this time with `new_severity`."""
    after = max_severity(severity, new_severity)
    more_severe = after != severity
    if state != "silenced":
        return BreachOutcome(state, after, "alert.worsened" if more_severe else None)
    silenced_up_to = silenced_severity or severity
    if max_severity(silenced_up_to, after) != silenced_up_to:
        return BreachOutcome("open", after, "alert.worsened")
    if silence_over:
        unsilenced = _unsilenced(acknowledged)
        if unsilenced == "open":
            # The messages that came during the silence are notified now.
            return BreachOutcome(unsilenced, after, "alert.reopened", silence_over=True)
        return BreachOutcome(unsilenced, after, "alert.worsened" if more_severe else None)
    return BreachOutcome("silenced", after, "alert.worsened" if more_severe else None, suppressed=more_severe)


def next_state(state: State, action: Action, *, acknowledged: bool = False) -> State:
    """The state after `action`; TransitionError when this state does not allow it."""
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


def allowed_actions(state: State) -> tuple[Action, ...]:
    """What a person may do to an alert in this state."""
    return tuple(action for action, states in _ALLOWED.items() if state in states and action != "unsilence")


def _unsilenced(acknowledged: bool) -> State:
    return "acknowledged" if acknowledged else "open"
