"""Tail drift: what a calibration promises, the CUSUMs, and how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm

from alerts.rules.exceedance import (
    FACTORS_ABOVE,
    FACTORS_BELOW,
    HOURS_A_YEAR,
    MOST_AN_HOUR,
    MOST_YEARS,
    QUANTILES,
    RECENT_HOURS,
    STAKES,
    TOGETHER,
    TOLERANCE,
    Array,
    Hours,
    Level,
    Z,
    cusum,
    evidence,
    levels,
    lower_limit,
    promised,
    ratio,
    staked,
    upper_limit,
    years,
)

SHARES = {"over95": 0.05, "over99": 0.01, "over999": 0.001}


def tail(n: int) -> tuple[Level, ...]:
    return tuple(Level(name, share, n, below=name == "over95") for name, share in SHARES.items())


def steady(n: float, hours: int, shares: dict[str, float] | None = None) -> Hours:
    """So many scores every hour, and exactly these shares of them above the quantiles."""
    return Hours(np.full(hours, n), {name: np.full(hours, n * s) for name, s in (shares or SHARES).items()})


def in_years(n: int, hours: Hours, tolerance: float = TOLERANCE) -> Array:
    return years(evidence(tail(n), hours, tolerance), 0.5)


# What a calibration promises.
@pytest.mark.parametrize("n", [100, 320, 2000, 10_001])
@pytest.mark.parametrize(("column", "quantile"), QUANTILES.items())
def test_a_level_counts_the_calibration_scores_above_its_quantile(n: int, column: str, quantile: float) -> None:
    scores = np.random.default_rng(0).standard_normal(n)
    level = Level(column, round(1 - quantile, 6), n)
    assert level.above == (scores > np.quantile(scores, quantile)).sum()


@pytest.mark.parametrize(
    ("count", "n"), [(0, 320), (1, 320), (4, 320), (16, 320), (0, 10_000), (1, 10_000), (100, 10_000), (500, 10_000)]
)
def test_limits_are_a_little_wider_than_the_exact_ones(count: int, n: int) -> None:
    outside = norm.sf(Z)
    exact = beta.isf(outside, count + 1, n - count)
    assert 0.999 * exact < upper_limit(count + 1, n) < 1.06 * exact
    if count:
        lowest = beta.ppf(outside, count, n - count + 1)
        assert 0.2 * lowest < lower_limit(count, n) < 1.02 * lowest


def test_a_tail_that_the_card_does_not_know_is_not_tested() -> None:
    known = {"n": 320, "tail": [[0.95, 0.5], [0.99, 0.8]], "quantiles": [[0.925, 0.4], [0.95, 0.5], [0.975, 0.7]]}
    assert levels({"calibration": known}) == (Level("over95", 0.05, 320, below=True), Level("over99", 0.01, 320))
    assert levels({"calibration": {"n": 320}}) == ()
    assert levels({}) == ()
    # Of many calibration messages with one score, far fewer than 5 % may be above it.
    tied = known | {"quantiles": [[0.925, 0.5], [0.95, 0.5], [0.975, 0.7]]}
    assert not levels({"calibration": tied})[0].below
    # A figure in a card, whatever it says: 320 messages cannot tell this quantile.
    alone = (Level("over999", 0.001, 320),)
    assert np.isneginf(evidence(alone, steady(1000, 50, {"over999": 0.5}))).all()


def test_earlier_traffic_narrows_what_is_promised() -> None:
    hours = steady(400, RECENT_HOURS + 200)
    low, high = promised(tail(320)[0], hours.n, hours.above["over95"])
    assert high[0] == high[RECENT_HOURS - 1] == pytest.approx(TOLERANCE * float(upper_limit(17, 320)))
    assert (np.diff(high[RECENT_HOURS:]) < 0).all()
    assert (np.diff(low[RECENT_HOURS:]) > 0).all()
    assert high[-1] < 1.15 * TOLERANCE * 0.05
    # Never beyond the calibration on the one side, nor below the quantile's own share on the other.
    for share, most in ((0.5, high[0]), (0.0, TOLERANCE * 0.05)):
        other = steady(400, 1000, {"over95": share})
        assert promised(tail(320)[0], other.n, other.above["over95"])[1][-1] == pytest.approx(most)


def test_what_comes_later_changes_no_promise() -> None:
    hours = steady(400, 300)
    other = {name: np.where(np.arange(300) > 200, 300.0, above) for name, above in hours.above.items()}
    before, after = (evidence(tail(320), Hours(hours.n, above)) for above in (hours.above, other))
    assert (before[:201] == after[:201]).all()
    assert after[-1] > before[-1]


# The bets: a factor is expected to be at most 1 while the promise holds.
def mean_of(log: Array, chances: Array) -> float:
    return float((np.exp(log) * chances).sum())


@given(n=st.integers(1, 600), share=st.floats(1e-4, 0.2), part=st.floats(0, 1))
def test_no_bet_gains_from_messages_that_keep_the_promise(n: int, share: float, part: float) -> None:
    """Independent ones, and those that come together in eights."""
    for size in (1, TOGETHER):
        talks = max(n // size, 1)
        count = np.arange(talks + 1)
        total, above = np.full(talks + 1, float(talks * size)), np.asarray(count * size, dtype=np.float64)
        below_promise = binom.pmf(count, talks, share * part)
        above_promise = binom.pmf(count, talks, min(share * (1 + part), 1))
        for stake in STAKES:
            assert mean_of(staked(total, above, np.array(share), stake), below_promise) <= 1 + 1e-9
        for factor in FACTORS_ABOVE:
            assert mean_of(ratio(total, above, np.array(share), factor), below_promise) <= 1 + 1e-9
        for factor in FACTORS_BELOW:
            assert mean_of(ratio(total, above, np.array(share), factor), above_promise) <= 1 + 1e-9


def test_an_hour_whose_messages_all_belong_together_gains_nothing_either() -> None:
    above, n, chances = np.array([0.0, 7.0]), np.array([7.0, 7.0]), np.array([0.95, 0.05])
    for stake in STAKES:
        assert mean_of(staked(n, above, np.array(0.05), stake), chances) <= 1 + 1e-9
    for factor in FACTORS_ABOVE:
        assert mean_of(ratio(n, above, np.array(0.05), factor), chances) <= 1 + 1e-9


@given(st.lists(st.floats(-50, 3), min_size=1, max_size=60))
def test_cusum_is_the_best_sum_that_ends_here(log: list[float]) -> None:
    found = cusum(np.array(log))
    for t in range(len(log)):
        assert found[t] == pytest.approx(max(math.fsum(log[s : t + 1]) for s in range(t + 1)), abs=1e-9)


# The statistic.
def test_traffic_as_promised_is_no_drift_and_a_fourfold_flagged_share_is() -> None:
    assert in_years(2000, steady(2500, 24 * 14)).max() < 0.01
    hours = steady(2500, 200)
    changed = {name: above + np.where(np.arange(200) >= 190, 2500 * 0.03, 0.0) for name, above in hours.above.items()}
    value = in_years(2000, Hours(hours.n, changed))
    assert value[:190].max() < 0.01
    assert value[195] > 1
    assert value[-1] > 100


def test_one_hour_alone_is_no_drift_whatever_is_in_it() -> None:
    hours = steady(100_000, 200)
    everything = {name: np.where(np.arange(200) == 150, hours.n, above) for name, above in hours.above.items()}
    log = evidence(tail(2000), Hours(hours.n, everything))
    assert log[150] <= MOST_AN_HOUR
    assert years(log, 1.0).max() < 0.01
    for_hours = {name: np.where(np.arange(200) >= 150, hours.n, above) for name, above in hours.above.items()}
    assert (in_years(2000, Hours(hours.n, for_hours)) > 1).argmax() == 153


def test_a_probe_that_goes_blind_is_a_drift() -> None:
    hours = steady(400, 300)
    gone = {name: np.where(np.arange(300) >= 200, 0.0, above) for name, above in hours.above.items()}
    value = in_years(2000, Hours(hours.n, gone))
    assert value[:200].max() < 0.01
    assert value[215] > 1
    blind_to_it = [Level("over95", 0.05, 2000)]
    assert years(evidence(blind_to_it, Hours(hours.n, gone)), 0.5).max() < 0.01


def test_a_tail_within_the_tolerance_is_no_drift() -> None:
    half_again = {name: 1.5 * share for name, share in SHARES.items()}
    assert in_years(100_000, steady(10_000, 200, half_again))[-1] > 1
    assert in_years(100_000, steady(10_000, 200, half_again), tolerance=1.6).max() < 0.01


def test_a_small_calibration_promises_less() -> None:
    """Twice the share: 10,000 calibration messages know better, 100 allow it."""
    twice = {name: 2 * share for name, share in SHARES.items()}
    assert in_years(10_000, steady(2000, 48, twice))[-1] > 1
    assert in_years(100, steady(2000, 48, twice))[-1] < 0.01


def test_hours_without_traffic_change_nothing() -> None:
    busy = steady(2500, 30, {name: 3 * share for name, share in SHARES.items()})
    gaps = np.zeros(60)
    gaps[::2] = busy.n
    above = {name: gaps * 3 * share for name, share in SHARES.items()}
    # Sixty hours: none of them counts for the promise yet.
    with_gaps, without = in_years(2000, Hours(gaps, above)), in_years(2000, busy)
    assert with_gaps[::2] == pytest.approx(without)
    # A CUSUM that lost begins anew, at 1.
    assert with_gaps[1::2] == pytest.approx(with_gaps[::2], abs=0.5 / HOURS_A_YEAR)


def test_years_are_a_share_of_the_rate() -> None:
    log = np.log(np.array([HOURS_A_YEAR, 2 * HOURS_A_YEAR, 1e30]))
    assert years(log, 0.5) == pytest.approx([0.5, 1.0, MOST_YEARS])
    assert years(np.array([-np.inf, 5000.0]), 1.0) == pytest.approx([0.0, MOST_YEARS])


def test_benign_traffic_has_an_alarm_a_year_at_most() -> None:
    """Two hundred years, each with a calibration of its own; the figures of many kinds of traffic are a benchmark's."""
    rng = np.random.default_rng(5)
    runs, hours, n = 200, 24 * 61, 1000
    quantiles = np.array([np.quantile(rng.standard_normal(n), list(QUANTILES.values())) for _ in range(runs)])
    shares = norm.sf(quantiles)[:, None, :]
    talks = rng.poisson(60, (runs, hours))
    counts = [talks]
    for level in range(3):
        before = shares[..., level - 1] if level else np.ones((runs, 1))
        counts.append(rng.binomial(counts[-1], shares[..., level] / before))
    # Turns of one conversation are above a quantile together.
    each, *above = (np.asarray(5.0 * count, dtype=np.float64) for count in counts)
    value = years(evidence(tail(n), Hours(each, dict(zip(QUANTILES, above, strict=True)))), 1.0)
    alarmed = (value > 1).any(axis=1).sum()
    assert alarmed <= runs * hours / HOURS_A_YEAR
