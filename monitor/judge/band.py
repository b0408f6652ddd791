"""The uncertain band of a probe: the scores around its threshold that are asked about, sized by messages a day.

Contract: `band_around(threshold, share, calibration)` is the band of equal width on both sides of the threshold that
holds so large a share of the calibration's benign scores; `band_of_traffic` the one that holds that share of stored
scores. A score in [low, high] is asked about, both ends included; a share of 1 or more is every score.

Scores and thresholds are in class gaps, as stored: corrected for length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.calibration import Calibration

# Fewer stored scores than this say too little of the traffic: the calibration's are used.
ENOUGH = 500


@dataclass(frozen=True)
class Band:
    """Scores from `low` to `high`, both included."""

    low: float
    high: float

    def holds(self, score: float) -> bool:
        return self.low <= score <= self.high


EVERYTHING = Band(-math.inf, math.inf)


def band_around(threshold: float, share: float, calibration: Calibration) -> Band:
    """The band that holds this share of the calibration's benign scores."""
    if share >= 1:
        return EVERYTHING
    knots = _knots(calibration)
    if not knots:  # nothing is known of the scores, and nothing is asked
        return Band(threshold, threshold)
    scores, quantiles = [score for _, score in knots], [q for q, _ in knots]

    def held(width: float) -> float:
        low, high = np.interp((threshold - width, threshold + width), scores, quantiles, left=0.0, right=1.0)
        return float(high - low)

    low, high = 0.0, 1.0
    while held(high) < share and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < share else (low, middle)
    # The lower end: a band rather asks too little than more than the budget.
    return Band(threshold - low, threshold + low)


def band_of_traffic(threshold: float, share: float, scores: Sequence[float]) -> Band:
    """The band that holds this share of these scores."""
    if share >= 1:
        return EVERYTHING
    distances = np.sort(np.abs(np.asarray(scores, dtype=np.float64) - threshold))
    number = math.floor(share * len(distances))
    width = float(distances[number - 1]) if number else 0.0
    return Band(threshold - width, threshold + width)


def share_of(budget_per_day: float, messages_per_day: float) -> float:
    """The share of the traffic that a budget pays for."""
    return min(1.0, budget_per_day / messages_per_day) if messages_per_day > 0 else 1.0


def _knots(calibration: Calibration) -> list[tuple[float, float]]:
    """(quantile, score) by rising score; equal scores have their highest quantile."""
    rising: list[tuple[float, float]] = []
    for q, score in sorted({*calibration.quantiles, *(calibration.tail or ())}):
        if rising and score <= rising[-1][1]:
            rising[-1] = (q, rising[-1][1])
        else:
            rising.append((q, score))
    return rising
