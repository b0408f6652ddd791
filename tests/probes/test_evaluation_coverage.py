"""How often intervals hold the truth: nominal 95 %, at least 93 % wanted, and tests of nothing seldom say something.

Rates and paired differences are counted out exactly, over all counts that can come; the others are simulated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from probes.evaluation import Interval, auroc, paired_difference, rate, student_interval

LEAST = 0.93
# A test at 5 % may say something of nothing so often; what is discrete cannot be at 5 % exactly.
MOST = 0.065


def held(interval: Interval, truth: float) -> bool:
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


@pytest.mark.parametrize("n", [10, 30, 48, 100])
def test_a_rates_interval_covers(n: int) -> None:
    intervals = [rate(k, n) for k in range(n + 1)]
    for truth in (0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 0.97):
        chances = binom.pmf(np.arange(n + 1), n, truth)
        assert sum(p for p, i in zip(chances, intervals, strict=True) if held(i, truth)) >= 0.95


def counts(n: int) -> Iterator[tuple[int, int]]:
    """How many rows may be discordant either way."""
    return ((up, down) for up in range(n + 1) for down in range(n + 1 - up))


@pytest.mark.parametrize("n", [20, 30, 48, 88])
def test_a_paired_differences_interval_covers_with_few_discordant_rows_too(n: int) -> None:
    rows = np.arange(n)
    found = [paired_difference(rows < up, (rows >= up) & (rows < up + down)) for up, down in counts(n)]
    lows, highs = (np.array([getattr(i, end) for i in found]) for end in ("low", "high"))
    ups, downs = np.array(list(counts(n))).T
    for discordant in (0.0, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.0):
        for truth in (0.0, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8):
            if truth > discordant:
                continue
            up, down = (discordant + truth) / 2, (discordant - truth) / 2
            share = min(1.0, down / (1 - up)) if up < 1 else 0.0
            chances = binom.pmf(ups, n, up) * binom.pmf(downs, n - ups, share)
            covered = chances[(lows <= truth + 1e-12) & (truth - 1e-12 <= highs)].sum()
            assert covered >= LEAST, (discordant, truth)
            if truth == 0:
                assert chances[(lows > 0) | (highs < 0)].sum() <= MOST


@pytest.mark.parametrize(
    ("n", "shape"), [(5, "normal"), (5, "uniform"), (30, "normal"), (30, "uniform"), (30, "two values")]
)
def test_a_means_interval_covers(n: int, shape: str) -> None:
    rng = np.random.default_rng(0)
    if shape == "two values":
        values = (rng.random((1500, n)) < 0.4) - 0.4
    else:
        values = rng.normal(0, 2, (1500, n)) if shape == "normal" else rng.random((1500, n)) - 0.5
    assert np.mean([held(student_interval(v), 0) for v in values]) >= LEAST


def scores(
    rng: np.random.Generator, truth: float, positives: int, negatives: int, together: float, spread: float
) -> NDArray[np.float64]:
    """Binormal; negative j shares a part of positive j's score, of variance `together`."""
    gap = norm.ppf(truth) * np.sqrt(1 + spread**2)
    common = rng.normal(0, 1, positives)
    own = np.sqrt(1 - together)
    pos = gap + spread * (np.sqrt(together) * common + own * rng.normal(0, 1, positives))
    neg = np.sqrt(together) * common[np.arange(negatives) % positives] + own * rng.normal(0, 1, negatives)
    return np.concatenate([pos, neg])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("positives", "negatives", "together", "truths", "spread"),
    [
        (29, 87, 0.7, (0.5, 0.8, 0.96), 1.0),
        (29, 87, 0.0, (0.96, 0.99), 1.0),
        (29, 87, 0.7, (0.96,), 2.0),
        (48, 48, 0.7, (0.5, 0.96), 1.0),
        (10, 100, 0.0, (0.7, 0.96), 1.0),
        (40, 320, 0.0, (0.96,), 1.0),
        (6, 6, 0.0, (0.7, 0.9), 1.0),
    ],
)
def test_aurocs_interval_covers(
    positives: int, negatives: int, together: float, truths: tuple[float, ...], spread: float
) -> None:
    """Rows in groups where scores go together; also near 1, where few rows are misplaced."""
    rng = np.random.default_rng(0)
    labels = np.arange(positives + negatives) < positives
    pairs = [*range(positives), *(j % positives for j in range(negatives))] if together else None
    for truth in truths:
        drawn = (scores(rng, truth, positives, negatives, together, spread) for _ in range(1000))
        found = [auroc(s, labels, pairs) for s in drawn]
        assert np.mean([held(i, truth) for i in found]) >= LEAST, truth
        if truth == 0.5:
            assert np.mean([not held(i, truth) for i in found]) <= MOST
