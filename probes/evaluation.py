"""Metrics with 95 % intervals: AUROC, operating points, rates, means. Held-out data only; callers say which split.

Operating points are the true-positive rate at the largest false-positive rate at or under a target, never the
closest one; with fewer negatives than 3 / target the figure is `too few` (None). Intervals are 95 %: exact binomial
(Clopper-Pearson) for rates, bootstrap over rows for AUROC and means
(`student_interval`: Student's t, for levels above 95 %).

SciPy and scikit-learn are imported where they are used: a worker, which reads cards, needs neither at its start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError

Array = NDArray[np.float64]


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


def paired_difference(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Interval:
    """Share of `a` less share of `b`, row by row of the same rows, with Student's t interval within -1..1."""
    difference = student_interval(a.astype(np.float64) - b.astype(np.float64))
    return Interval(difference.value, max(-1.0, difference.low), min(1.0, difference.high), difference.n)


def auroc_value(scores: Array, labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, without its interval: for choosing sites and for many nulls."""
    from sklearn.metrics import roc_auc_score

    _check(scores, labels)
    return float(roc_auc_score(labels, scores))


def from_chance(value: float) -> float:
    """An AUROC by how far from chance it is, either way: the sign of a random direction is free."""
    return max(value, 1 - value)


def auroc(scores: Array, labels: NDArray[np.bool_], *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Area under the ROC curve with a bootstrap interval over rows."""
    value = auroc_value(scores, labels)
    pos, neg = scores[labels], scores[~labels]
    wins = (pos[:, None] > neg[None, :]) + 0.5 * (pos[:, None] == neg[None, :])
    rng = np.random.default_rng(seed)
    p = rng.multinomial(len(pos), np.full(len(pos), 1 / len(pos)), resamples)
    q = rng.multinomial(len(neg), np.full(len(neg), 1 / len(neg)), resamples)
    draws = ((p @ wins) * q).sum(1) / wins.size  # counts until here: a draw cannot be above 1
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(scores))


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


def evaluate(scores: Array, labels: NDArray[np.bool_], targets: tuple[float, ...] = (0.01, 0.001)) -> Evaluation:
    """All figures of one held-out split. Labels: True is misaligned."""
    scores = np.asarray(scores, dtype=np.float64)
    return Evaluation(
        auroc=auroc(scores, labels),
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
