"""Score drift: how far live scores are from those that a probe's threshold was calibrated on.

Contract: `psi(quantiles, counts)` is the population stability index between the calibration set, given by its
quantiles in the probe's card, and live scores counted between the edges `cuts(quantiles)`. 0 means no drift; by the
usual convention 0.1 is a shift and 0.25 a large one. Ties in the calibration scores make fewer, wider bins.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

_SHARES = tuple(n / 10 for n in range(1, 10))

Quantiles = Sequence[Sequence[float]]


def cuts(quantiles: Quantiles) -> list[float]:
    """The edges of the bins: the deciles, each once."""
    return sorted({_at(quantiles, share) for share in _SHARES})


def psi(quantiles: Quantiles, counts: Sequence[int]) -> float:
    """`counts[i]` live scores are at or above i of the cuts; one more count than cuts."""
    edges = cuts(quantiles)
    below = [0.0, *(_share_below(quantiles, edge) for edge in edges), 1.0]
    n, k = sum(counts), len(edges) + 1
    total = 0.0
    for i, count in enumerate(counts):
        # Half a score is added to each bin, so that an empty one does not give infinity.
        expected = max(below[i + 1] - below[i], 1e-4)
        actual = (count + 0.5) / (n + 0.5 * k)
        total += (actual - expected) * math.log(actual / expected)
    return total


def _at(quantiles: Quantiles, share: float) -> float:
    """The stored quantile nearest to a share."""
    return float(min(quantiles, key=lambda q: abs(q[0] - share))[1])


def _share_below(quantiles: Quantiles, score: float) -> float:
    """The share of calibration scores under a score, by the quantiles."""
    return float(quantiles[bisect_left([q[1] for q in quantiles], score)][0])
