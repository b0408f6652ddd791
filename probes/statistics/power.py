"""The smallest effect that so many rows could have seen: 80 % power, two-sided at 5 %.

Contract: a figure "not seen" says nothing of effects below it. `None`: no effect is large enough. Each function is the
power of the interval that `probes.evaluation` gives for the same figure (a test holds that by simulation): a difference
or a rate is *seen* when its 95 % interval does not reach the value that it is held against. Effects are of the
population, not of the rows that were drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError

POWER = 0.8
_LEVEL = 0.05
_STEPS = 20
# Above, counts go by the normal distribution: by then the two agree to 0.01.
_EXACT = 150


def smallest_paired_difference(n: int, discordant: float = 0.0) -> float | None:
    """Smallest difference of two rates on the same n rows. `discordant`: share of rows that differ, as it was seen.

    A difference needs as many discordant rows at least, so 0 (all differences go one way) is the best case.
    """
    _rows(n, 2)
    if not 0 <= discordant <= 1:
        raise DataError(f"discordant: {discordant:g} is no share")
    return _smallest(lambda size: _paired_power(n, size, max(discordant, size)), 1.0)


def smallest_rates(n: int, against: float) -> tuple[float | None, float | None]:
    """The rates nearest to `against`, below and above it, that n rows could have told from it."""
    from scipy.stats import binom

    _rows(n, 1)
    if not 0 <= against <= 1:
        raise DataError(f"against: {against:g} is no rate")
    counts = np.arange(n + 1)
    # Clopper-Pearson excludes a value exactly where the binomial tail beyond the count is below 2.5 %.
    below = counts[binom.cdf(counts, n, against) < _LEVEL / 2]
    above = counts[binom.sf(counts - 1, n, against) < _LEVEL / 2]
    down = _smallest(lambda size: float(binom.cdf(below.max(), n, against - size)), against) if len(below) else None
    up = (
        _smallest(lambda size: float(binom.sf(above.min() - 1, n, against + size)), 1 - against) if len(above) else None
    )
    return None if down is None else against - down, None if up is None else against + up


def smallest_mean(n: int, deviation: float) -> float:
    """Smallest mean of n rows, against 0, by Student's t; `deviation` is the rows' standard deviation as seen."""
    from scipy.stats import nct
    from scipy.stats import t as student

    _rows(n, 2)
    quantile = float(student.ppf(1 - _LEVEL / 2, n - 1))

    def power(size: float) -> float:
        return float(nct.sf(quantile, n - 1, size * np.sqrt(n)))

    largest = 1.0
    while power(largest) < POWER:
        largest *= 2
    found = _smallest(power, largest)
    return deviation * (largest if found is None else found)


def _smallest(power: Callable[[float], float], largest: float) -> float | None:
    """Where power reaches 80 %, by bisection; it rises with the size."""
    if power(largest) < POWER:
        return None
    low, high = 0.0, largest
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def _paired_power(n: int, difference: float, discordant: float) -> float:
    """How often the interval of a paired difference lies above 0."""
    from scipy.stats import norm
    from scipy.stats import t as student

    quantile = float(student.ppf(1 - _LEVEL / 2, n + 1))
    if n > _EXACT:
        deviation = np.sqrt(discordant - difference**2)
        seen = difference * np.sqrt(n) - quantile * np.sqrt(discordant)
        return 1.0 if deviation <= 0 else float(norm.cdf(seen / deviation))
    up, down, chance = _counts(n, (discordant + difference) / 2, (discordant - difference) / 2)
    mean = (up - down) / (n + 2)
    deviation = np.sqrt((((up + down + 2) / (n + 2)) - mean**2) / (n + 1))
    return float(chance[mean > quantile * deviation].sum())


def _counts(n: int, up: float, down: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """All numbers of rows that differ either way, and the probability of each pair of numbers."""
    from scipy.stats import binom

    ups, downs = np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij")
    possible = ups + downs <= n
    ups, downs = ups[possible], downs[possible]
    rest = 1 - up
    share = min(1.0, max(0.0, down / rest)) if rest > 0 else 0.0
    return ups, downs, binom.pmf(ups, n, up) * binom.pmf(downs, n - ups, share)


def _rows(n: int, least: int) -> None:
    if n < least:
        raise DataError(f"rows: {n}; at least {least} are needed to say what they could have seen")
