"""Nulls: the rank of a figure among random draws, and labels that are shuffled without breaking pairs.

Contract: `rank_among` is the one test of "beats random" that studies have. Its p is exact whatever the draws'
distribution, where the figure would be one more draw if it were random (same size, same rows, chosen on other rows):
p = (1 + draws at least as good) / (1 + draws) (Phipson and Smyth 2010). So n draws cannot go below 1 / (n + 1): of
five, 0.17. With fewer than 20 no figure is said to beat random at 5 %, whatever it is: `Rank.enough` says so.

Three things are called shuffled labels, and differ (`docs/science.md` D.6):

- *both splits shuffled*: the chance null. What is fitted on shuffled labels is judged by shuffled labels.
- *fit labels alone shuffled*: no chance null. A difference in means of shuffled labels is a draw from the total
  covariance, so where the label is a main axis of it, such a draw lies along that axis and tells the true labels apart,
  either way round. It says how much of the variance is the label's, not that a figure is chance.
- a *control* (an adapter trained on the same form with other content): not a shuffle, and what says whether a direction
  is of content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError

LEAST_DRAWS = 20
LEVEL = 0.05


@dataclass(frozen=True)
class Rank:
    """A figure among random draws of the same kind: how many are at least as good, and the p of that."""

    draws: int
    as_good: int

    @property
    def p(self) -> float:
        return (1 + self.as_good) / (1 + self.draws)

    @property
    def enough(self) -> bool:
        """Whether so many draws can say anything at 5 %."""
        return self.draws >= LEAST_DRAWS

    @property
    def beats(self) -> bool:
        return self.enough and self.p <= LEVEL

    def __str__(self) -> str:
        few = "" if self.enough else f"; fewer than {LEAST_DRAWS} draws are no test at 5 %"
        return f"{self.as_good} of {self.draws} random draws are as good (p = {self.p:.3f}{few})"


def rank_among(value: float, draws: Sequence[float] | NDArray[np.float64]) -> Rank:
    """The rank of a figure, larger is better, among those of random draws. DataError for figures without a number.

    Where a draw's sign is free (the AUROC of a random direction), take `from_chance` of the draws, and of the figure
    too where its sign is free.
    """
    found = np.asarray(draws, dtype=np.float64)
    if not np.isfinite([value, *found]).all():
        raise DataError("random draws: a figure is not finite; leave such draws out, or count them as what they are")
    return Rank(len(found), int((found >= value).sum()))


def shuffled(
    a: NDArray[np.float32] | NDArray[np.float64],
    b: NDArray[np.float32] | NDArray[np.float64],
    rng: np.random.Generator,
    *,
    paired: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rows (rows, width) of two classes with their labels shuffled, as many of each as before.

    `paired`: row i of both is one item under two conditions; a coin says for each whether its two rows swap, as items
    that stayed together would tell them apart. DataError where pairs have unequal numbers.
    """
    if not paired:
        rows = np.concatenate([a, b]).astype(np.float64)[rng.permutation(len(a) + len(b))]
        return rows[: len(a)], rows[len(a) :]
    if len(a) != len(b):
        raise DataError(f"pairs: {len(a)} rows of one class and {len(b)} of the other")
    swap = (rng.random(len(a)) < 0.5)[:, None]
    return np.where(swap, b, a).astype(np.float64), np.where(swap, a, b).astype(np.float64)
