from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.errors import DataError
from probes.evaluation import paired_difference, rate, student_interval
from probes.statistics.power import (
    POWER,
    smallest_mean,
    smallest_paired_difference,
    smallest_rates,
)


def seen(found: list[bool], about: float = 0.045) -> None:
    """Of some hundred drawn studies of the smallest effect, about 80 % see it."""
    assert np.mean(found) == pytest.approx(POWER, abs=about)


def pairs(rng: np.random.Generator, n: int, up: float, down: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    drawn = rng.random(n)
    return drawn < up, (drawn >= up) & (drawn < up + down)


@pytest.mark.parametrize(("n", "discordant"), [(30, 0.0), (48, 0.3), (88, 0.1), (400, 0.3)])
def test_a_paired_difference_of_that_size_is_seen(n: int, discordant: float) -> None:
    size = smallest_paired_difference(n, discordant)
    assert size is not None
    share = max(discordant, size)
    rng = np.random.default_rng(0)
    drawn = (pairs(rng, n, (share + size) / 2, (share - size) / 2) for _ in range(1200))
    seen([paired_difference(*both).low > 0 for both in drawn])


def test_more_rows_see_smaller_differences_and_discordant_rows_hide_them() -> None:
    sizes = [smallest_paired_difference(n) for n in (10, 30, 100, 140, 160, 1000)]
    assert sizes == sorted((s for s in sizes if s is not None), reverse=True)
    hidden = [smallest_paired_difference(48, share) for share in (0.0, 0.3, 0.6, 1.0)]
    assert hidden == sorted(s for s in hidden if s is not None)
    assert smallest_paired_difference(4) is None
    at = [smallest_paired_difference(n, 0.3) for n in (150, 151)]  # counted out, and by the normal distribution
    assert at[0] == pytest.approx(at[1], abs=0.01)


@pytest.mark.parametrize(("n", "against"), [(48, 0.5), (30, 0.1), (200, 0.9), (30, 0.0)])
def test_rates_that_far_from_a_value_are_seen(n: int, against: float) -> None:
    """Counts are few, so that power jumps: at the rate found it is 80 %, and somewhat nearer it is not."""
    below, above = smallest_rates(n, against)
    intervals = [rate(k, n) for k in range(n + 1)]
    rng = np.random.default_rng(0)
    for found, way in ((below, -1), (above, 1)):
        if found is None:
            assert against < 0.12 if way < 0 else against > 0.9
            continue
        excludes = np.array([i.high < against if way < 0 else i.low > against for i in intervals])
        seen(list(excludes[rng.binomial(n, found, 20_000)]), 0.01)
        assert excludes[rng.binomial(n, found - way * 0.01, 20_000)].mean() < POWER


@pytest.mark.parametrize("n", [5, 48])
def test_a_mean_of_that_size_is_seen(n: int) -> None:
    size = smallest_mean(n, 2.0)
    rng = np.random.default_rng(0)
    seen([student_interval(rng.normal(size, 2, n)).low > 0 for _ in range(1500)])
    assert smallest_mean(n, 4.0) == pytest.approx(2 * size)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="rows: 1; at least 2"):
        smallest_paired_difference(1)
    with pytest.raises(DataError, match=r"discordant: 1\.5 is no share"):
        smallest_paired_difference(10, 1.5)
    with pytest.raises(DataError, match="against: 2 is no rate"):
        smallest_rates(10, 2.0)
    with pytest.raises(DataError, match="rows: 0"):
        smallest_rates(0, 0.5)
