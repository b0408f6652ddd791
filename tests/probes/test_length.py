"""Thresholds that know the length, and bounds on the interval."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.calibration import LengthCorrection, calibrate, fewest_for
from probes.errors import DataError
from probes.evaluation import rate

LENGTHS = np.array([20, 100, 600, 3000])


def traffic(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Maxima over as many standard normal values as there are tokens: longer messages are higher by chance."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice(LENGTHS, n)
    return np.array([rng.standard_normal(t).max() for t in tokens]), tokens


def test_the_rate_holds_in_every_band_where_one_threshold_does_not() -> None:
    values, tokens = traffic(4000)
    found = calibrate(values, [], 0.02, "x", tokens=tokens.tolist())
    plain = calibrate(values, [], 0.02, "x")
    later, long = traffic(4000, seed=1)
    scores = found.scores(later, long.tolist())
    for length in LENGTHS:
        here = long == length
        assert (scores[here] > found.threshold).mean() <= 0.04, length
    assert (later[long == 3000] > plain.threshold).mean() > 0.04
    # And short messages keep a threshold of their own.
    assert (scores[long == 20] > found.threshold).mean() > (later[long == 20] > plain.threshold).mean()


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 5000)), min_size=20, max_size=120))
def test_rises_never_fall_and_are_nothing_for_the_shortest(rows: list[tuple[float, int]]) -> None:
    values, tokens = zip(*rows, strict=True)
    length = calibrate(np.array(values), [], 0.1, "x", tokens=list(tokens)).length
    assert length is not None
    rises = [length.rise(n) for n in range(1, 12_000, 37)]
    assert all(b >= a for a, b in pairwise(rises))
    assert rises[0] == 0
    assert length.longest == max(tokens)
    assert sum(band.fpr.n for band in length.bands) == len(rows)


def test_between_knots_the_rise_is_linear_in_the_logarithm_and_goes_on_beyond_the_last() -> None:
    length = LengthCorrection(((16, 0.0), (64, 1.0), (256, 3.0)), 300)
    assert [length.rise(n) for n in (1, 16, 32, 64, 128, 256, 512)] == pytest.approx([0, 0, 0.5, 1, 2, 3, 4])


def test_messages_of_one_length_only_have_one_knot() -> None:
    found = calibrate(np.arange(100.0), [], 0.1, "x", tokens=[30] * 100)
    assert found.length is not None
    assert found.length.knots == ((30, 0.0),)
    assert found.score(1.5, 4000) == 1.5


@pytest.mark.parametrize("n", [500, 1000, 3000])
def test_at_most_bounds_the_upper_end_of_the_interval(n: int) -> None:
    found = calibrate(np.arange(float(n)), [], 0.01, "x", at_most=True)
    flagged = round(found.fpr.value * n)
    assert found.fpr.high <= 0.01
    assert found.at_most
    # One more would be too many.
    assert rate(flagged + 1, n).high > 0.01


def test_at_most_says_how_many_messages_it_needs() -> None:
    needed = fewest_for(0.01)
    assert rate(0, needed).high <= 0.01 < rate(0, needed - 1).high
    with pytest.raises(DataError, match=f"{needed} are needed"):
        calibrate(np.arange(float(needed - 1)), [], 0.01, "x", at_most=True)
    calibrate(np.arange(float(needed)), [], 0.01, "x", at_most=True)


def test_the_tail_has_only_what_the_messages_can_tell() -> None:
    assert [q for q, _ in calibrate(np.arange(50.0), [], 0.1, "x").tail or ()] == [0.95]
    assert [q for q, _ in calibrate(np.arange(1000.0), [], 0.1, "x").tail or ()] == [0.95, 0.99, 0.999]
