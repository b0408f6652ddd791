"""The state machine of an alert."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from alerts.errors import TransitionError
from alerts.lifecycle.states import STATES, Action, State, after_breach, next_state
from alerts.rules.model import SEVERITIES

LIVE = ("open", "acknowledged", "silenced")


severities = st.sampled_from(SEVERITIES)


def test_every_transition_is_allowed_or_refused() -> None:
    allowed = {}
    for action in get_args(Action):
        for state in STATES:
            try:
                allowed[state, action] = next_state(state, action)
            except TransitionError:
                continue
    assert allowed == {
        ("open", "acknowledge"): "acknowledged",
        ("silenced", "acknowledge"): "acknowledged",
        ("open", "silence"): "silenced",
        ("acknowledged", "silence"): "silenced",
        ("silenced", "silence"): "silenced",
        ("silenced", "unsilence"): "open",
        ("open", "resolve"): "resolved",
        ("acknowledged", "resolve"): "resolved",
        ("silenced", "resolve"): "resolved",
        ("resolved", "reopen"): "open",
    }
    assert next_state("silenced", "unsilence", acknowledged=True) == "acknowledged"


@given(st.sampled_from(LIVE), severities, severities, st.booleans(), st.none() | severities, st.booleans())
def test_a_breach_notifies_of_what_is_more_severe_than_a_silence_allows(
    state: State, severity: str, new_severity: str, acknowledged: bool, silenced: str | None, over: bool
) -> None:
    found = after_breach(
        state,
        severity,
        new_severity,
        acknowledged=acknowledged,
        silenced_severity=silenced,
        silence_over=over,
    )
    rank = SEVERITIES.index
    assert rank(found.severity) == max(rank(severity), rank(new_severity))
    known = rank(silenced or severity) if state == "silenced" else rank(severity)
    if rank(found.severity) > known:
        assert (found.event, found.suppressed) == ("alert.worsened", False)
        assert found.state != "silenced"
    if found.suppressed:
        assert state == found.state == "silenced"
        assert not over
    if state != "silenced":
        assert found.state == state
        assert (found.event is None) == (rank(new_severity) <= rank(severity))
