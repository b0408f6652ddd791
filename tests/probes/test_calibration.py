from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from probes.calibration import calibrate
from probes.errors import DataError
from probes.evaluation import rate
from probes.hashing import hash_texts

SECRET = "zebra-secret-prompt"


@given(
    st.lists(st.integers(-5, 5).map(float) | st.floats(-10, 10), min_size=20, max_size=200),
    st.one_of(st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.29, 0.5, 0.999]), st.floats(0.0001, 0.9999)),
)
def test_at_most_the_floor_of_target_times_n_benign_scores_are_above(scores: list[float], target: float) -> None:
    found = calibrate(np.array(scores), [], target, "x")
    above = sum(s > found.threshold for s in scores)
    assert above <= math.floor(target * len(scores))
    assert above / len(scores) <= target
    assert found.fpr == rate(above, len(scores))
    assert found.n == len(scores)
    assert found.target_fpr == target
    # And it is the lowest such threshold among the scores.
    for lower in (s for s in scores if s < found.threshold):
        assert sum(s > lower for s in scores) > math.floor(target * len(scores))


def test_the_threshold_of_known_scores() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1000.0))
    assert calibrate(scores, [], 0.01, "x").threshold == 989
    assert calibrate(scores, [], 0.001, "x").threshold == 998
    assert calibrate(scores, [], 0.0001, "x").threshold == 999


def test_ties_at_the_threshold_are_not_flagged() -> None:
    found = calibrate(np.array([0.0] * 50 + [1.0] * 50), [], 0.1, "x")
    assert found.threshold == 1.0
    assert found.fpr.value == 0


def test_enough_is_three_over_the_target() -> None:
    for n, enough in ((299, False), (300, True)):
        assert calibrate(np.arange(float(n)), [], 0.01, "x").enough is enough


def test_too_few_messages_say_how_many_are_needed() -> None:
    with pytest.raises(DataError, match="19 messages; at least 20 are needed, and 300 to trust it"):
        calibrate(np.arange(19.0), [SECRET] * 19, 0.01, "x")


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_a_target_that_is_no_rate_is_refused(target: float) -> None:
    with pytest.raises(DataError, match="not between 0 and 1"):
        calibrate(np.arange(30.0), [], target, "x")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="not finite"):
        calibrate(np.array([*range(30), value]), [], 0.1, "x")


def test_the_card_keeps_a_hash_and_quantiles_and_no_text() -> None:
    scores = np.linspace(-1, 3, 401)
    found = calibrate(scores, [SECRET, "b"], 0.01, "my set")
    assert found.set_name == "my set"
    assert found.set_sha256 == hash_texts(["b", SECRET])
    assert SECRET not in repr(found)
    assert date.fromisoformat(found.made)
    levels = [q for q, _ in found.quantiles]
    assert levels[0] == 0
    assert levels[-1] == 1
    assert levels == sorted(levels)
    for q, value in found.quantiles:
        assert value == pytest.approx(-1 + 4 * q, abs=1e-9)


def test_the_hash_depends_on_the_texts_and_not_on_their_order() -> None:
    assert hash_texts(["a", "b"]) == hash_texts(["b", "a"])
    different = [["a", "b"], ["a", "b", "b"], ["ab"], ["a", "c"], [], ["a\nb"], ["\ud800"]]
    assert len({hash_texts(texts) for texts in different}) == len(different)


@pytest.mark.slow
@pytest.mark.parametrize("at_most", [False, True])
def test_what_a_threshold_promises_for_new_messages(at_most: bool) -> None:
    """The plain rule keeps to an expectation that is a little over the target; `at_most` to the target itself."""
    rng = np.random.default_rng(0)
    n, target, made = 400, 0.01, []
    for _ in range(150):
        found = calibrate(rng.normal(0, 1, n), [], target, "x", at_most=at_most)
        made.append((norm.sf(found.threshold), found.expected_fpr))
    rates, expected = np.array(made).T
    assert rates.mean() == pytest.approx(expected[0], rel=0.12)
    assert set(expected) == {expected[0]}
    if at_most:
        assert (rates > target).mean() <= 0.05
        assert expected[0] < target
    else:
        assert expected[0] == (target * n + 1) / (n + 1) > target
        assert (rates > target).mean() > 0.5
