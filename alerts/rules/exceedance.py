"""Tail drift: whether more scores are above the calibration's 95, 99 and 99.9 % quantiles than it promises.

Contract: `evidence(tail, hours)` says after each hour of traffic how much speaks against "the share above each quantile
is what the calibration promises": the natural logarithm of a weighted mean of CUSUMs, whose bets multiply by a factor
that is expected to be at most 1 while the promise holds. So each grows by at most 1 an hour, any such mean of them too,
and traffic that keeps the promise lets it reach c after c hours or later, on average. `years` is in those terms:
traffic without drift comes so far once in so many years, at most. Weights that sum to 1 hold that for all probes and
tenants together.

What is promised: the quantile's own share, or the upper limit of what the calibration and the traffic before the last
three days allow, where that is higher, but never more than the calibration alone allows; times `TOLERANCE`. The limits
are one-sided and hold together for 95 of 100 calibrations: a quantile of n messages is not known exactly. One with
fewer than one calibration message above it is not tested: `too few`. Too few scores above the 95 % quantile are tested
as well: a probe that has gone blind.

Assumed: hours are independent, given the shares. Within an hour at most `TOGETHER` messages belong together (turns of a
conversation, copies of a message) and the others are independent; bets on the share of the hour assume nothing about
it. No hour counts by more than a factor of 20, so that no single burst is a drift, and a drift takes four hours at
least. `benchmarks/drift.py` measures what holds where these assumptions do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = Array | float

# The tested quantiles, by the rollups' column that counts the scores above each.
QUANTILES = {"over95": 0.95, "over99": 0.99, "over999": 0.999}
TOLERANCE = 1.25
TOGETHER = 8
# Hours of traffic, the newest, that do not count for what is promised.
RECENT_HOURS = 72
# Four tests, of which one in 20 calibrations may fail any.
Z = 2.2414
# Bets: factors of the share, and parts of the stake on the share of the hour itself.
FACTORS_ABOVE, FACTORS_BELOW = (1.5, 2.0, 4.0, 16.0), (0.05, 0.25, 0.5)
STAKES = (0.1, 0.3, 0.6, 0.9)
MOST_AN_HOUR = math.log(20.0)
HOURS_A_YEAR = 8766.0
# More evidence is not told apart.
MOST_YEARS = 1e6


@dataclass(frozen=True)
class Hours:
    """Scores in each hour, and how many of them were above each quantile; the last axis is time."""

    n: Array
    above: Mapping[str, Array]


@dataclass(frozen=True)
class Level:
    """A quantile of a calibration of `n` messages, and the share of scores above it; with `below`, too few are tested
    as well."""

    column: str
    share: float
    n: int
    below: bool = False

    @property
    def enough(self) -> bool:
        return self.n * self.share > 1 - 1e-9

    @property
    def above(self) -> int:
        """Calibration scores above the quantile, as `numpy.quantile` interpolates it."""
        return self.n - math.floor((self.n - 1) * (1 - self.share) + 1e-9) - 1


def levels(card: Mapping[str, Any]) -> tuple[Level, ...]:
    """The quantiles that a probe's card knows; none in a card from before they were written."""
    calibration = card.get("calibration") or {}
    known = dict(calibration.get("tail") or ())
    n = int(calibration.get("n", 0))
    # Of a score that many calibration messages have, the share above it may be far under the promise.
    beside = [score for share, score in calibration.get("quantiles") or () if share != 0.95]
    tied = known.get(0.95) in beside
    return tuple(
        Level(column, round(1 - q, 6), n, below=column == "over95" and not tied)
        for column, q in QUANTILES.items()
        if q in known
    )


def upper_limit(count: Numbers, n: Numbers) -> Array:
    """The share above a score that `count` of `n` scores reach, at most: Byar's limit of a Poisson mean."""
    return np.asarray(count * (1 - 1 / (9 * count) + Z / (3 * np.sqrt(count))) ** 3 / n)


def lower_limit(count: Numbers, n: Numbers) -> Array:
    """The share above a score that `count` of `n` scores exceed, at least."""
    safe = np.maximum(count, 1e-9)
    return np.asarray(safe * np.maximum(1 - 1 / (9 * safe) - Z / (3 * np.sqrt(safe)), 0) ** 3 / n)


def promised(level: Level, n: Array, above: Array, tolerance: float = TOLERANCE) -> tuple[Array, Array]:
    """The least and the greatest share above a quantile that is no drift, in each hour."""
    before_n, before = (_before(values) / TOGETHER for values in (n, above))
    high, low = upper_limit(level.above + 1, level.n), lower_limit(level.above, level.n)
    count, of = before + level.above, before_n + level.n
    highest = np.clip(upper_limit(count + 1, of), level.share, high)
    lowest = np.clip(lower_limit(count, of), low, level.share)
    return lowest / tolerance, highest * tolerance


def _before(values: Array) -> Array:
    """Sums of what came before the last days, in each hour."""
    sums = np.cumsum(values, axis=-1)
    early = np.zeros_like(sums)
    early[..., RECENT_HOURS:] = sums[..., :-RECENT_HOURS]
    return early


def evidence(tail: Sequence[Level], hours: Hours, tolerance: float = TOLERANCE) -> Array:
    """The logarithm of the mean of all tests' CUSUMs after each hour; -inf where nothing can be tested."""
    # A quantile that is not tested leaves its part to nobody: figures of two probes mean the same.
    share = -math.log(len(QUANTILES) + 1)
    total = np.full(hours.n.shape, -np.inf)
    for level in tail:
        if not level.enough:
            continue
        above = hours.above[level.column]
        lowest, highest = promised(level, hours.n, above, tolerance)
        logs = [staked(hours.n, above, highest, stake) for stake in STAKES]
        logs += [ratio(hours.n, above, highest, factor) for factor in FACTORS_ABOVE]
        for log in logs:
            total = np.logaddexp(total, cusum(log) + share - math.log(len(logs)))
        if level.below:
            for factor in FACTORS_BELOW:
                log = ratio(hours.n, above, lowest, factor)
                total = np.logaddexp(total, cusum(log) + share - math.log(len(FACTORS_BELOW)))
    return total


def staked(n: Array, above: Array, promise: Array, stake: float) -> Array:
    """A part of the stake on the hour's share, whatever belongs together in it."""
    return np.minimum(np.log1p(stake * (above / np.maximum(n, 1) / promise - 1)), MOST_AN_HOUR) * (n > 0)


def ratio(n: Array, above: Array, promise: Array, factor: float) -> Array:
    """The likelihood ratio of a share that is so many times as large, of messages that come together."""
    together = np.clip(n, 1, TOGETHER)
    log = (above * math.log(factor) - n * np.log1p(promise * (factor - 1))) / together
    return np.minimum(log, MOST_AN_HOUR)


def cusum(log: Array) -> Array:
    """Page's CUSUM of log factors: the largest sum of the last so many of them."""
    sums = np.cumsum(log, axis=-1)
    lowest = np.minimum.accumulate(np.minimum(sums, 0), axis=-1)
    before = np.zeros_like(sums)
    before[..., 1:] = lowest[..., :-1]
    return np.asarray(sums - before)


def years(log: Array, weight: float) -> Array:
    """Traffic without drift comes so far once in so many years, at most."""
    return np.exp(np.minimum(log + math.log(weight / HOURS_A_YEAR), math.log(MOST_YEARS)))
