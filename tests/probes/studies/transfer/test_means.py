"""How often the intervals of a transfer study hold the truth: nominal 95 %, at least 93 % wanted."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.studies.transfer.means import difference, over_models

LEAST = 0.93


def effects(
    rng: np.random.Generator, models: int, donors: float, receivers: float, ways: float, noise: float
) -> list[dict[str, Any]]:
    """Figures of all pairs: parts of the donor, of the receiver, of both together (the same either way), and noise."""
    donors, receivers, ways, noise = (part / 20 for part in (donors, receivers, ways, noise))  # within -1 to 1
    given, taken = rng.normal(0, donors, models), rng.normal(0, receivers, models)
    both = rng.normal(0, ways, (models, models))
    return [
        {"donor": str(d), "receiver": str(r), "value": given[d] + taken[r] + both[min(d, r), max(d, r)] + own}
        for (d, r), own in zip(permutations(range(models), 2), rng.normal(0, noise, models * (models - 1)), strict=True)
    ]


@pytest.mark.parametrize("models", [3, 5, 8])
@pytest.mark.parametrize(
    ("donors", "receivers", "ways", "noise"), [(1, 1, 0, 1), (1, 0, 0, 0.3), (0, 1, 0, 0.3), (0.5, 0.5, 1, 0.5)]
)
def test_a_mean_over_pairs_of_few_models_covers(
    models: int, donors: float, receivers: float, ways: float, noise: float
) -> None:
    rng = np.random.default_rng(models)
    drawn = (effects(rng, models, donors, receivers, ways, noise) for _ in range(700))
    found = [over_models(pairs, lambda p: p["value"]) for pairs in drawn]
    assert np.mean([i.low <= 0 <= i.high for i in found]) >= LEAST


def drawn(
    rng: np.random.Generator, n: int, ours: float, theirs: tuple[float, float], draws: int, together: float
) -> tuple[NDArray[np.bool_], list[NDArray[np.bool_]]]:
    """Outcomes on n questions, some of which (a share) are as hard for all; random draws have rates of their own."""
    hard = rng.random(n)
    low, high = theirs

    def outcome(share: float) -> NDArray[np.bool_]:
        shared: NDArray[np.bool_] = np.where(rng.random(n) < together, hard, rng.random(n)) < share
        return shared

    return outcome(ours), [outcome(share) for share in rng.uniform(low, high, draws)]


@pytest.mark.parametrize("n", [30, 48])
@pytest.mark.parametrize("draws", [1, 5, 20])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(0.5, (0.5, 0.5)), (0.03, (0.0, 0.0)), (0.9, (0.1, 0.9)), (0.98, (0.9, 1.0))]
)
def test_a_difference_to_random_draws_covers(n: int, draws: int, ours: float, theirs: tuple[float, float]) -> None:
    if draws == 1:
        theirs = (float(np.mean(theirs)),) * 2  # one other is itself, and no draw
    rng = np.random.default_rng(0)
    found = [difference(*drawn(rng, n, ours, theirs, draws, 0.5)) for _ in range(700)]
    truth = ours - np.mean(theirs)
    assert np.mean([i.low <= truth + 1e-12 and truth - 1e-12 <= i.high for i in found]) >= LEAST
