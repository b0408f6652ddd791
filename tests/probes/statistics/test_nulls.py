from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError
from probes.statistics.nulls import LEAST_DRAWS, LEVEL, rank_among, shuffled


def test_the_rank_counts_draws_that_are_at_least_as_good() -> None:
    found = rank_among(0.7, [0.1, 0.7, 0.9, *[0.2] * 17])
    assert (found.draws, found.as_good, found.p) == (20, 2, 3 / 21)
    assert not found.beats
    assert str(found) == "2 of 20 random draws are as good (p = 0.143)"


@pytest.mark.parametrize(("draws", "beats"), [(0, False), (5, False), (19, False), (20, True), (99, True)])
def test_few_draws_beat_nothing_however_bad_they_are(draws: int, beats: bool) -> None:
    found = rank_among(1.0, [0.0] * draws)
    assert found.p == 1 / (1 + draws)
    assert found.beats is beats
    assert ("fewer than 20 draws" in str(found)) is not beats


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_figures_without_a_number_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="not finite"):
        rank_among(0.5, [0.1, value])
    with pytest.raises(DataError, match="not finite"):
        rank_among(value, [0.1])


@pytest.mark.parametrize("draws", [LEAST_DRAWS, 60])
@pytest.mark.parametrize("ties", [False, True])
def test_a_draw_among_draws_seldom_beats_them(draws: int, ties: bool) -> None:
    """The size of the test: what is random itself is said to beat random in at most 5 %."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (20_000, draws + 1))
    values = np.round(values) if ties else values
    found = [rank_among(own, others).beats for own, others in zip(values[:, 0], values[:, 1:], strict=True)]
    assert np.mean(found) <= LEVEL + 0.003
    assert ties or np.mean(found) >= 0.04


def test_shuffled_pairs_stay_pairs_and_classes_keep_their_size() -> None:
    rng = np.random.default_rng(0)
    a = np.arange(40.0)[:, None]
    one, other = shuffled(a, a + 100, rng, paired=True)
    assert np.array_equal(np.sort(np.c_[one, other], axis=1), np.c_[a, a + 100])
    assert 10 < (one < 100).sum() < 30
    loose = shuffled(a, a[:10] + 100, rng, paired=False)
    assert [len(part) for part in loose] == [40, 10]
    assert np.array_equal(np.sort(np.concatenate(loose), axis=0), np.concatenate([a, a[:10] + 100]))
    with pytest.raises(DataError, match="40 rows of one class and 10"):
        shuffled(a, a[:10], rng, paired=True)
