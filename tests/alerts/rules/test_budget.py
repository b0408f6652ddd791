"""The budget of a threshold; the figures are those of the project's survey of the field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.rules.budget import budget, fpr_for


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
