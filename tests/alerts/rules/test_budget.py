"""The budget of a threshold; the figures are those of the project's survey of the field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.rules.budget import Band, Share, budget, fpr_for, saving


# Budget. The figures are those of the project's survey of the field.
@pytest.mark.parametrize(
    ("tpr", "fpr", "alerts", "precision"),
    [(0.43, 0.01, 10_042, 0.0043), (0.95, 0.01, 10_094, 0.0094), (0.80, 0.0005, 580, 0.138)],
)
def test_alerts_a_million(tpr: float, fpr: float, alerts: float, precision: float) -> None:
    found = budget(1e-4, tpr, fpr)
    assert found.alerts == pytest.approx(alerts, abs=1)
    assert found.precision == pytest.approx(precision, rel=0.01)
    assert found.true_alerts + found.missed == pytest.approx(100)


def test_nothing_flagged_has_no_precision() -> None:
    assert budget(0.5, 0, 0).precision is None
    assert budget(0, 1, 0).precision is None
    with pytest.raises(ValueError, match=r"fpr: 1\.5 is not a rate"):
        budget(0.1, 0.5, 1.5)


rates = st.floats(1e-6, 1 - 1e-6)


@given(rates, rates, rates)
def test_the_rate_that_a_precision_needs_gives_it(precision: float, prevalence: float, tpr: float) -> None:
    fpr = fpr_for(precision, prevalence, tpr)
    if fpr is None:
        assert budget(prevalence, tpr, 1).precision >= precision * (1 - 1e-9)  # type: ignore[operator]
    else:
        assert budget(prevalence, tpr, fpr).precision == pytest.approx(precision)


def test_what_a_judge_saves() -> None:
    """In two days: 40 flagged were judged, 30 of them harmless; 10 of 100 that the probe missed are harmful."""
    found = saving(Band(10, 30, 10, 90, flagged_unjudged=0, passed_unjudged=0), 2)
    assert (found.band, found.judged, found.fewer, found.more) == (70, 70, 15, 5)
    assert (found.fewer_if_all, found.more_if_all) == (15, 5)
    assert found.precision.value == 0.25
    low, high = found.precision.interval
    assert (low, high) == pytest.approx((0.142, 0.402), abs=0.001)


def test_what_was_not_judged_is_taken_to_be_alike() -> None:
    found = saving(Band(10, 30, 0, 0, flagged_unjudged=40, passed_unjudged=7), 1)
    assert (found.judged, found.band, found.fewer) == (40, 87, 30)
    assert found.fewer_if_all == pytest.approx(60)
    # Of none that were judged nothing is known.
    assert found.more_if_all is None
    assert found.missed.value is None
    assert found.missed.interval == (0, 1)


def test_no_days_are_no_rate() -> None:
    with pytest.raises(ValueError, match="days: there are none"):
        saving(Band(1, 1, 1, 1, 0, 0), 0)


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_share(k: int, n: int) -> None:
    share = Share(min(k, n), n)
    low, high = share.interval
    assert 0 <= low <= (share.value or 0) <= high <= 1
