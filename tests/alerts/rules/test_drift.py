"""The population stability index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.rules.drift import cuts, psi


# Drift.
def uniform(n: int = 41) -> list[list[float]]:
    return [[i / (n - 1), i / (n - 1)] for i in range(n)]


def test_psi_is_small_for_the_same_and_large_for_another() -> None:
    assert cuts(uniform()) == pytest.approx([n / 10 for n in range(1, 10)])
    assert psi(uniform(), [100] * 10) == pytest.approx(0, abs=1e-6)
    assert psi(uniform(), [90, 110] * 5) == pytest.approx(0.01, abs=0.002)
    assert 0.1 < psi(uniform(), [50, 60, 70, 80, 90, 110, 120, 130, 140, 150]) < 0.25
    assert psi(uniform(), [1000] + [0] * 9) > 2


def test_ties_in_the_calibration_make_fewer_bins() -> None:
    """Half of the calibration scores are 0."""
    quantiles = [[i / 40, max(0.0, (i - 20) / 20)] for i in range(41)]
    edges = cuts(quantiles)
    assert edges == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert psi(quantiles, [0, 60, 10, 10, 10, 10]) < 0.05
    assert psi([[i / 40, 7.0] for i in range(41)], [0, 500]) < 0.01
    assert psi([[i / 40, 7.0] for i in range(41)], [500, 0]) > 2


@given(st.lists(st.integers(0, 500), min_size=10, max_size=10).filter(any))
def test_psi_is_never_negative(counts: list[int]) -> None:
    assert psi(uniform(), counts) >= -1e-9
