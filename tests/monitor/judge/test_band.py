"""A band pays for so many messages, and holds those near the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.judge.band import EVERYTHING, Band, band_around, band_of_traffic, share_of
from probes.calibration import calibrate

SCORES = np.random.default_rng(5).normal(0, 1, 4000)
CALIBRATION = calibrate(SCORES, ("a",), 0.01, "test")


def share(band: Band, scores: np.ndarray) -> float:
    return float(np.mean([band.holds(s) for s in scores]))


@pytest.mark.parametrize("wanted", [0.002, 0.01, 0.05, 0.3, 0.9])
def test_the_band_holds_the_share_that_was_paid_for(wanted: float) -> None:
    """On scores that the calibration has not seen, within what its quantiles can tell."""
    band = band_around(CALIBRATION.threshold, wanted, CALIBRATION)
    fresh = np.random.default_rng(6).normal(0, 1, 40_000)
    assert share(band, fresh) == pytest.approx(wanted, abs=0.25 * wanted + 0.005)
    assert band.low <= CALIBRATION.threshold <= band.high


@given(st.floats(0.0001, 0.99), st.floats(0.0001, 0.99))
def test_a_larger_budget_is_a_wider_band(a: float, b: float) -> None:
    small, large = (band_around(CALIBRATION.threshold, each, CALIBRATION) for each in sorted((a, b)))
    assert large.low <= small.low <= small.high <= large.high


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=300), st.floats(0, 1, exclude_max=True))
def test_a_band_of_traffic_is_no_larger_than_its_share_but_for_ties(scores: list[float], wanted: float) -> None:
    band = band_of_traffic(0.5, wanted, scores)
    inside = sum(band.holds(s) for s in scores)
    width = band.high - 0.5
    ties = sum(abs(abs(s - 0.5) - width) < 1e-9 for s in scores)
    assert inside <= wanted * len(scores) + ties + 1


def test_budgets_over_the_traffic_ask_about_everything() -> None:
    assert share_of(1000, 500) == 1
    assert share_of(1000, 0) == 1
    assert band_around(0.0, 1.0, CALIBRATION) == EVERYTHING
    assert band_of_traffic(0.0, 1.0, [3.0]) == EVERYTHING
    assert EVERYTHING.holds(1e9)


def test_equal_scores_are_no_trouble() -> None:
    same = calibrate(np.zeros(100), ("a",), 0.01, "test")
    band = band_around(same.threshold, 0.1, same)
    assert band.low <= band.high
