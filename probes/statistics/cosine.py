"""The cosine of a difference in means to a given unit vector, with the noise of the means taken off.

Contract: a difference in means of few rows in many dimensions is long for noise alone, and so its plain cosine to
anything is too near 0 (ten rows against forty of width 576: 0.34 where the true one is 0.8). Here the squared length
across the unit vector is the unbiased one, and the interval is of the true cosine: the extremes over the two 95 %
intervals of the length along the vector and of the squared length across it, which covers more often than it says.
Where the difference itself may be nothing, it is nearly -1 to 1. The unit vector is taken as given.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.evaluation import Interval, jackknife_interval

Floats = NDArray[np.float64]


def true_cosine(unit: Floats, a: Floats, b: Floats) -> Interval:
    """Of mean(a) - mean(b), each (rows, width), to `unit` (width,), of length 1. DataError below three rows."""
    if min(len(a), len(b)) < 3:
        raise DataError(f"cosine: {len(a)} and {len(b)} rows; an interval needs at least 3 of each")
    one, other = _Sample.of(unit, a), _Sample.of(unit, b)
    along = jackknife_interval(
        one.along.mean() - other.along.mean(),
        _left_out(one.along) - other.along.mean(),
        one.along.mean() - _left_out(other.along),
    )
    across = jackknife_interval(
        float(((one.mean - other.mean) ** 2).sum() - one.noise - other.noise),
        ((one.means - other.mean) ** 2).sum(1) - one.noises - other.noise,
        ((one.mean - other.means) ** 2).sum(1) - one.noise - other.noises,
    )
    ends = [_cosine(*each) for each in product((along.low, along.high), (across.low, across.high))]
    return Interval(_cosine(along.value, across.value), min(ends), max(ends), len(a) + len(b))


def _cosine(along: float, across_squared: float) -> float:
    length = float(np.sqrt(along**2 + max(0.0, across_squared)))
    return along / length if length else 0.0


class _Sample:
    """Rows as lengths along a unit vector, and what is across it: the mean, its squared noise (the covariance's trace
    over the rows), and both with each row left out."""

    def __init__(self, along: Floats, across: Floats) -> None:
        n, squares = len(across), (across**2).sum(1)
        self.along = along
        self.mean = across.mean(0)
        self.noise = float(squares.sum() - n * (self.mean**2).sum()) / (n - 1) / n
        self.means = _left_out(across)
        self.noises = (squares.sum() - squares - (n - 1) * (self.means**2).sum(1)) / (n - 2) / (n - 1)

    @staticmethod
    def of(unit: Floats, rows: Floats) -> _Sample:
        along = rows @ unit
        return _Sample(along, rows - np.outer(along, unit))


def _left_out(values: Floats) -> Floats:
    means: Floats = (values.sum(0) - values) / (len(values) - 1)
    return means
