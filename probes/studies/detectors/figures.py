"""Figures of one reading on the test rows, and its differences from another reading on the same rows.

Contract: intervals are those of `probes.evaluation`; the harmful request and the twin of a pair are not independent, so
AUROCs have pairs as their groups, and a difference of two AUROCs is jackknifed over pairs. Rates are at the reading's
own threshold; a difference of rates is paired, row by row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.evaluation import Interval, auroc, jackknife_interval, paired_difference, rate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairScores:
    """Scores of pairs: `harmful[i]` and `twin[i]` are of one pair."""

    harmful: Floats
    twin: Floats

    def __post_init__(self) -> None:
        if len(self.harmful) != len(self.twin) or len(self.harmful) < 2:
            raise DataError(
                f"pairs: {len(self.harmful)} harmful and {len(self.twin)} harmless requests; at least 2 pairs are "
                "needed"
            )

    @property
    def auroc(self) -> Interval:
        """Of harmful requests against all twins."""
        n = len(self.harmful)
        scores = np.concatenate([self.harmful, self.twin])
        return auroc(scores, np.arange(2 * n) < n, [*range(n), *range(n)])

    def without_one(self) -> Floats:
        """The AUROC with each pair left out, (pairs,)."""
        wins = (self.harmful[:, None] > self.twin[None, :]) + 0.5 * (self.harmful[:, None] == self.twin[None, :])
        left: Floats = (wins.sum() - wins.sum(0) - wins.sum(1) + wins.diagonal()) / (len(wins) - 1) ** 2
        return left


def auroc_difference(scores: PairScores, other: PairScores) -> Interval:
    """AUROC against twins less another reading's on the same pairs; n is the number of pairs."""
    if len(scores.harmful) != len(other.harmful):
        raise DataError("pairs: the two readings are of different pairs")
    value = scores.auroc.value - other.auroc.value
    return jackknife_interval(value, scores.without_one() - other.without_one())


@dataclass(frozen=True)
class HeldOut:
    """Scores of one reading on the test rows, each part by itself, and its threshold."""

    pairs: PairScores
    everyday: Floats
    other_harmful: Floats
    other_benign: Floats
    threshold: float

    @property
    def flagged(self) -> dict[str, NDArray[np.bool_]]:
        """What is above the threshold, by the name of the rate."""
        parts = {
            "tpr": self.pairs.harmful,
            "twin_fpr": self.pairs.twin,
            "everyday_fpr": self.everyday,
            "other_tpr": self.other_harmful,
            "other_fpr": self.other_benign,
        }
        return {name: scores > self.threshold for name, scores in parts.items() if len(scores)}


def figures_of(scores: HeldOut) -> dict[str, Any]:
    """AUROC against twins, and rates at the threshold: of harmful requests (`tpr`), their twins, everyday messages, and
    harmful and benign messages by other hands (`other_tpr`, `other_fpr`)."""
    rates = {name: asdict(rate(int(at.sum()), len(at))) for name, at in scores.flagged.items()}
    return {"auroc": asdict(scores.pairs.auroc), **rates}


def differences(scores: HeldOut, other: HeldOut) -> dict[str, Any]:
    """The same figures less those of another reading on the same rows."""
    there = other.flagged
    rates = {name: asdict(paired_difference(at, there[name])) for name, at in scores.flagged.items()}
    return {"auroc": asdict(auroc_difference(scores.pairs, other.pairs)), **rates}
