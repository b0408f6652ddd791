"""Metrics with 95 % intervals: AUROC, operating points, rates, means. Held-out data only; callers say which split.

Contract: every interval is of the population that the rows are drawn from, and a test holds that it covers at its
level (at least 93 % where 95 % is stated), also where n is small and rates are near 0 or 1:

- a rate: exact binomial (Clopper-Pearson);
- a mean: Student's t over rows, which must be independent (a row a cluster, where rows come in clusters);
- a paired difference of rates: Student's t with two discordant rows added, one either way;
- AUROC: DeLong's variance (Obuchowski's, where rows come in groups) on the logit;
- anything else of rows or models: the jackknife with Student's t.

Operating points are the true-positive rate at the largest false-positive rate at or under a target, never the
closest one; with fewer negatives than 3 / target the figure is `too few` (None). Their interval is that of the
positives at the threshold which these negatives gave; it does not know that other negatives would give another.

SciPy and scikit-learn are imported where they are used: a worker, which reads cards, needs neither at its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError

Array = NDArray[np.float64]

# The two rows that the interval of a paired difference of shares adds: one that is discordant either way.
BOTH_WAYS = (1.0, -1.0)


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval; `n` is what it was counted on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class OperatingPoint:
    """TPR at the largest FPR <= target. `tpr` is None when there are too few negatives to say."""

    target_fpr: float
    tpr: Interval | None
    fpr: float | None

    def __str__(self) -> str:
        return "too few" if self.tpr is None else str(self.tpr)


@dataclass(frozen=True)
class Evaluation:
    """How well scores tell positives (misaligned) from negatives on one held-out split."""

    auroc: Interval
    positives: int
    negatives: int
    operating_points: tuple[OperatingPoint, ...]


def rate(successes: int, n: int) -> Interval:
    """A rate with its exact binomial interval."""
    from scipy.stats import beta

    if n == 0:
        raise DataError("rate: no rows to count on")
    low = float(beta.ppf(0.025, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.ppf(0.975, successes + 1, n - successes)) if successes < n else 1.0
    return Interval(successes / n, low, high, n)


def rows_needed(half_width: float) -> int:
    """The fewest rows whose rate, whatever it is, has an interval of at most +- `half_width`."""
    if not 0 < half_width < 0.5:
        raise DataError(f"interval: +-{half_width:g} is not between 0 and 0.5")
    n = 1
    while (widest := rate(n // 2, n)).high - widest.low > 2 * half_width:
        n += 1
    return n


def student_interval(values: Array, *, level: float = 0.95) -> Interval:
    """A mean over rows with Student's t interval at `level`; DataError below two rows."""
    from scipy.stats import t as student

    if len(values) < 2:
        raise DataError(f"mean: {len(values)} rows; an interval needs at least 2")
    value = float(np.mean(values))
    half = float(np.std(values, ddof=1) / np.sqrt(len(values)) * student.ppf(0.5 + level / 2, len(values) - 1))
    return Interval(value, value - half, value + half, len(values))


def paired_difference(a: NDArray[np.bool_] | Array, b: NDArray[np.bool_] | Array) -> Interval:
    """Share of `a` less share of `b`, row by row of the same rows; a row is true or false, or a share itself.

    The interval is Student's t after one row is added that is discordant either way (Bonett and Price 2012, adjusted
    Wald for paired proportions, there with the normal quantile): rows that all agree do not make it a point.
    DataError below two rows.
    """
    differences = a.astype(np.float64) - b.astype(np.float64)
    if len(differences) < 2:
        raise DataError(f"difference: {len(differences)} rows; an interval needs at least 2")
    added = student_interval(np.append(differences, BOTH_WAYS))
    return Interval(float(differences.mean()), max(-1.0, added.low), min(1.0, added.high), len(differences))


def jackknife_interval(value: float, *left_out: Array, n: int | None = None) -> Interval:
    """A statistic with the jackknife's variance and Student's t (Efron and Tibshirani 1993, chapter 11).

    `left_out`: for each independent sample that the statistic is made of, its values with one unit (row, pair, model)
    of that sample left out; degrees of freedom by Welch and Satterthwaite. `n` is what is counted, by default all
    units. Without an interval (-inf to inf) where a sample has fewer than two units; a point where the value never
    moves, which says that nothing varied here, not that nothing can.
    """
    from scipy.stats import t as student

    units = np.array([len(values) for values in left_out])
    n = int(units.sum()) if n is None else n
    if not len(units) or units.min() < 2:
        return Interval(value, -np.inf, np.inf, n)
    parts = np.array([(len(v) - 1) / len(v) * float(((v - v.mean()) ** 2).sum()) for v in left_out])
    if parts.max() <= 0:
        return Interval(value, value, value, n)
    freedom = parts.sum() ** 2 / (parts**2 / (units - 1)).sum()
    half = float(np.sqrt(parts.sum()) * student.ppf(0.975, freedom))
    return Interval(value, value - half, value + half, n)


def auroc_value(scores: Array, labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, without its interval: for choosing sites and for many nulls.

    By ranks (Mann and Whitney), a tenth of what scikit-learn takes on some hundred rows.
    """
    from scipy.stats import rankdata

    _check(scores, labels)
    positives = int(labels.sum())
    above = rankdata(scores)[labels].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(labels) - positives)))


def from_chance(value: float) -> float:
    """An AUROC by how far from chance it is, either way: the sign of a random direction is free."""
    return max(value, 1 - value)


def auroc(scores: Array, labels: NDArray[np.bool_], groups: Sequence[object] | None = None) -> Interval:
    """Area under the ROC curve. Rows of one group (a request and its twin) are not independent; None: all rows are.

    The variance is DeLong's (1988) with groups as clusters (Obuchowski 1997), to which two rows of the largest
    variance that an AUROC of this size can have are added: near 1 it rests on the few rows that are misplaced, and is
    too small where there happen to be none. The interval is symmetric on the logit, by Student's t with one degree less
    than the smaller class has groups; where all rows are told apart, it is the exact binomial one of as many groups.
    """
    from scipy.special import expit, logit
    from scipy.stats import t as student

    value = auroc_value(scores, labels)
    clusters = np.unique(np.arange(len(scores)) if groups is None else list(map(str, groups)), return_inverse=True)[1]
    least = min(len(np.unique(clusters[labels])), len(np.unique(clusters[~labels])))
    if value in (0.0, 1.0):
        exact = rate(round(value * least), least)
        return Interval(value, exact.low, exact.high, len(scores))
    if least < 2:
        return Interval(value, 0.0, 1.0, len(scores))
    largest = value * (1 - value) / least
    variance = (least * _variance(scores, labels, value, clusters) + 2 * largest) / (least + 2)
    half = student.ppf(0.975, least - 1) * np.sqrt(variance) / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return Interval(value, float(low), float(high), len(scores))


def _variance(scores: Array, labels: NDArray[np.bool_], value: float, clusters: NDArray[np.intp]) -> float:
    """Obuchowski's variance: of the sums by cluster of how each row is placed among the other class."""
    from scipy.stats import rankdata

    pos, neg = scores[labels], scores[~labels]
    ranks = rankdata(scores)
    placed = np.empty(len(scores))  # share of the other class that a row is on the right side of, ties half
    placed[labels] = (ranks[labels] - rankdata(pos)) / len(neg)
    placed[~labels] = 1 - (ranks[~labels] - rankdata(neg)) / len(pos)
    sums = [np.bincount(clusters[c], placed[c] - value, clusters.max() + 1) / c.sum() for c in (labels, ~labels)]
    counts = [len(np.unique(part)) for part in (clusters[labels], clusters[~labels], clusters)]
    p, q, every = (count / (count - 1) for count in counts)
    covariance = every * float(sums[0] @ sums[1])
    return max(0.0, p * float(sums[0] @ sums[0]) + q * float(sums[1] @ sums[1]) + 2 * covariance)


def operating_point(scores: Array, labels: NDArray[np.bool_], target_fpr: float) -> OperatingPoint:
    """TPR where FPR is the largest at or under `target_fpr`."""
    from sklearn.metrics import roc_curve

    _check(scores, labels)
    negatives = int((~labels).sum())
    if negatives < 3 / target_fpr:
        return OperatingPoint(target_fpr, None, None)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    at = int(np.flatnonzero(fpr <= target_fpr)[-1])
    positives = int(labels.sum())
    return OperatingPoint(target_fpr, rate(round(float(tpr[at]) * positives), positives), float(fpr[at]))


def evaluate(
    scores: Array,
    labels: NDArray[np.bool_],
    targets: tuple[float, ...] = (0.01, 0.001),
    *,
    groups: Sequence[object] | None = None,
) -> Evaluation:
    """All figures of one held-out split. Labels: True is misaligned; `groups` as for `auroc`."""
    scores = np.asarray(scores, dtype=np.float64)
    return Evaluation(
        auroc=auroc(scores, labels, groups),
        positives=int(labels.sum()),
        negatives=int((~labels).sum()),
        operating_points=tuple(operating_point(scores, labels, t) for t in targets),
    )


def _check(scores: Array, labels: NDArray[np.bool_]) -> None:
    if labels.all() or not labels.any():
        have = "misaligned" if labels.any() else "aligned"
        raise DataError(f"labels: only {have} rows in this split; both classes are needed")
    if not np.isfinite(scores).all():
        raise DataError("scores: not finite; check the model's dtype")
