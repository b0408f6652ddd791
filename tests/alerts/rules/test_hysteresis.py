"""Hysteresis: when a condition fires and clears."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.rules.hysteresis import ConditionState, Limits, observed_seconds, step

# Hysteresis.
MINUTE = timedelta(minutes=1)


def run(values: Sequence[float], limits: Limits, every: float = 15.0) -> list[str]:
    state: ConditionState | None = None
    events: list[str] = []
    for value in values:
        state, event = step(state, value, every if state else 0.0, limits)
        events.append(event or "")
    return events


def test_it_fires_after_its_time_and_clears_after_its_own() -> None:
    limits = Limits(5, 2, MINUTE, 2 * MINUTE)
    assert run([6] * 5, limits) == ["", "", "", "", "fired"]
    assert run([6] * 5 + [1] * 9, limits)[5:] == [""] * 8 + ["cleared"]
    assert "cleared" not in run([6] * 5 + [1, 1, 1, 3] * 10, limits)
    assert "fired" not in run([6, 6, 6, 6, 5] * 10, limits)


@given(
    st.lists(st.sampled_from([0.0, 3.0, 6.0]), max_size=60),
    st.sampled_from([0, 20, 60]),
    st.sampled_from([0, 20, 60]),
)
def test_fired_and_cleared_alternate_after_their_times(values: list[float], for_: int, clear_for: int) -> None:
    limits = Limits(5, 2, timedelta(seconds=for_), timedelta(seconds=clear_for))
    events = run(values, limits)
    said = [(i, e) for i, e in enumerate(events) if e]
    assert [e for _, e in said] == [("fired", "cleared")[n % 2] for n in range(len(said))]
    for i, event in said:
        needed = -(-(for_ if event == "fired" else clear_for) // 15)
        recent = values[i - needed : i + 1]
        assert len(recent) == needed + 1
        assert all(v > 5 if event == "fired" else v <= 2 for v in recent)


@pytest.mark.parametrize(("seconds", "counted"), [(-3600, 0), (0, 0), (15, 15), (60, 60), (61, 60), (10**7, 60)])
def test_only_observed_time_counts(seconds: float, counted: float) -> None:
    then = datetime(2026, 3, 1, tzinfo=UTC)
    assert observed_seconds(then, then + timedelta(seconds=seconds), MINUTE) == counted
