"""Ridge maps: what they recover, how they choose, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.capture.sites import Site
from probes.directions import Direction, cosine
from probes.errors import DataError, DirectionError
from probes.organisms.planted.store import ensure_organism
from probes.steer.contrast import NEUTRAL, read_condition
from probes.studies.transfer.maps import (
    PENALTIES,
    RidgeMap,
    cosine_null,
    fit_map,
    mapped_direction,
    random_source,
    shuffled_map,
)
from tests.support.models.tiny import shared_chat

SITE = Site("residual", 2)


def anchors(
    n: int = 400, wide: int = 12, tall: int = 20, noise: float = 0.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Donor rows, receiver rows that follow from them, and the truth."""
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((n, wide)) * np.linspace(0.5, 3, wide) + rng.standard_normal(wide) * 5
    truth = rng.standard_normal((wide, tall))
    target = source @ truth + rng.standard_normal(tall) * 7 + noise * rng.standard_normal((n, tall))
    return source.astype(np.float32), target.astype(np.float32), truth


def direction(vector: NDArray[np.float64] | NDArray[np.int64], centre: NDArray[np.float64] | None = None) -> Direction:
    vector = np.asarray(vector, dtype=np.float64)
    return Direction(SITE, vector, np.zeros_like(vector) if centre is None else centre, 1.0)


def test_a_linear_relation_is_recovered_whatever_the_offsets() -> None:
    source, target, truth = anchors()
    found = fit_map(source, target)
    np.testing.assert_allclose(found.weights, truth, atol=1e-3)
    assert found.r2 > 0.9999
    assert found.r2_median > 0.9999
    assert (found.fitted, found.held_out) == (300, 100)
    np.testing.assert_allclose(found.predict(source), target, atol=1e-2)
    moved = fit_map(source + 100, target - 50)
    np.testing.assert_allclose(moved.weights, found.weights, atol=1e-2)


def test_a_direction_goes_through_the_map_and_takes_the_receivers_norm_site_and_centre() -> None:
    source, target, truth = anchors()
    donor = direction(np.arange(1, 13))
    native = Direction(Site("residual", 1), 0.01 * np.ones(20), np.arange(20.0), 2.5)
    found = mapped_direction(fit_map(source, target), donor, native)
    assert found.norm == pytest.approx(native.norm)
    assert (found.site, found.sigma) == (native.site, native.sigma)
    np.testing.assert_array_equal(found.centre, native.centre)
    expected = donor.vector @ truth
    np.testing.assert_allclose(found.unit, expected / np.linalg.norm(expected), atol=1e-4)


def test_what_r2_says_is_what_held_out_anchors_say() -> None:
    source, target, _ = anchors(n=4000, noise=3.0)
    found = fit_map(source, target)
    explained = 1 - 3.0**2 / target.var(0).mean()
    assert found.r2 == pytest.approx(explained, abs=0.01)


def test_noise_alone_has_no_held_out_r2_and_takes_the_largest_penalty() -> None:
    rng = np.random.default_rng(0)
    found = fit_map(rng.standard_normal((60, 40)), rng.standard_normal((60, 10)))
    assert found.r2 < 0.1
    assert found.penalty == PENALTIES[-1]
    assert found.at_edge


def test_the_penalty_is_the_one_that_predicts_best() -> None:
    rng = np.random.default_rng(5)
    truth = rng.standard_normal((40, 20))
    source = rng.standard_normal((120, 40))
    target = source @ truth + 15 * rng.standard_normal((120, 20))
    fresh = rng.standard_normal((5000, 40))
    fresh_target = fresh @ truth

    def error(found: RidgeMap) -> float:
        return float(((found.predict(fresh) - fresh_target) ** 2).mean())

    chosen = fit_map(source, target)
    alone = {p: error(fit_map(source, target, penalties=(p,))) for p in PENALTIES}
    assert 1e-3 < chosen.penalty < 100
    assert not chosen.at_edge
    assert error(chosen) <= 1.15 * min(alone.values())
    assert error(chosen) < 0.7 * alone[PENALTIES[0]]


def test_the_penalty_is_in_the_donors_own_units() -> None:
    rng = np.random.default_rng(1)
    source = rng.standard_normal((200, 10))
    target = source @ rng.standard_normal((10, 8)) + 4 * rng.standard_normal((200, 8))
    small, large = fit_map(source, target), fit_map(1000 * source, target)
    assert small.penalty == large.penalty
    np.testing.assert_allclose(small.weights, 1000 * large.weights, rtol=1e-6)


def test_shuffled_pairs_lose_what_a_map_knows_of_pairs() -> None:
    source, target, _ = anchors(noise=0.5)
    assert fit_map(source, target).r2 > 0.95
    assert max(shuffled_map(source, target, seed=s).r2 for s in range(3)) < 0.1


def test_random_donor_directions_are_norm_matched_and_their_own() -> None:
    source, target, truth = anchors()
    found = fit_map(source, target)
    donor, native = direction(np.ones(12)), direction(np.ones(12) @ truth)
    draws = [random_source(found, donor, native, seed) for seed in range(5)]
    for draw in draws:
        assert draw.norm == pytest.approx(native.norm)
        assert abs(cosine(draw, native)) < 0.95
    assert len({round(cosine(d, native), 6) for d in draws}) == 5
    np.testing.assert_array_equal(draws[0].vector, random_source(found, donor, native, 0).vector)


def test_the_cosine_null_is_that_of_random_donor_directions() -> None:
    source, target, truth = anchors()
    found = fit_map(source, target)
    donor, native = direction(np.ones(12)), direction(np.ones(12) @ truth)
    null = cosine_null(found, donor, native, draws=500)
    assert null.shape == (500,)
    assert np.abs(null).max() <= 1 + 1e-9
    assert abs(null.mean()) < 0.1
    assert (np.abs(null) >= cosine(mapped_direction(found, donor, native), native)).mean() < 0.01


def test_rows_of_one_text_are_on_one_side_of_every_split() -> None:
    # The receiver's rows are the text's own noise: only a twin of the row tells anything of it.
    rng = np.random.default_rng(2)
    source = np.repeat(rng.standard_normal((60, 80)), 4, axis=0)
    target = np.repeat(rng.standard_normal((60, 5)), 4, axis=0)
    groups = np.repeat(np.arange(60), 4)
    assert fit_map(source, target).r2 > 0.6
    assert fit_map(source, target, groups=groups).r2 < 0.1


def test_too_few_anchors_for_the_width_say_how_many_are_needed() -> None:
    source, target, _ = anchors(n=15)
    with pytest.raises(DataError, match=r"11 rows to fit .* 12 dimensions of the donor .* at least 16 texts"):
        fit_map(source, target)
    assert fit_map(*anchors(n=16)[:2]).fitted == 12
    # Two rows a text: half the texts do.
    twice = np.tile(np.arange(8), 2)
    assert fit_map(*anchors(n=16)[:2], groups=twice).fitted == 12
    with pytest.raises(DataError, match="at least 8 texts"):
        fit_map(*anchors(n=14)[:2], groups=np.tile(np.arange(7), 2))


def test_anchors_that_cannot_be_paired_are_refused() -> None:
    source, target, _ = anchors()
    with pytest.raises(DataError, match="400 at the donor and 399 at the receiver"):
        fit_map(source, target[:-1])
    broken = target.copy()
    broken[3, 4] = np.inf
    with pytest.raises(DataError, match="activations of the receiver are not finite"):
        fit_map(source, broken)
    broken = source.copy()
    broken[0, 0] = np.nan
    with pytest.raises(DataError, match="activations of the donor are not finite"):
        fit_map(broken, target)


def test_anchors_that_are_all_alike_are_refused() -> None:
    source, target, _ = anchors()
    with pytest.raises(DataError, match="all alike at the donor"):
        fit_map(np.ones_like(source) * 3, target)
    with pytest.raises(DataError, match="all alike at the receiver"):
        fit_map(source, np.ones_like(target) * 3)


def test_a_zero_direction_says_that_the_adapter_may_be_off() -> None:
    with pytest.raises(DirectionError, match="Is the adapter switched on"):
        direction(np.zeros(12))


def test_a_direction_that_does_not_get_through_is_refused() -> None:
    source, target, _ = anchors()
    source[:, 0] = 1.0  # what never varies is not mapped
    found = fit_map(source, target)
    only = np.zeros(12)
    only[0] = 1.0
    with pytest.raises(DirectionError, match="nothing of it gets through"):
        mapped_direction(found, direction(only), direction(np.ones(20)))


def test_directions_of_another_width_are_refused() -> None:
    source, target, _ = anchors()
    found = fit_map(source, target)
    with pytest.raises(DirectionError, match="takes 12 dimensions to 20, the directions have 20 and 20"):
        mapped_direction(found, direction(np.ones(20)), direction(np.ones(20)))


def test_models_with_other_tokenizers_and_widths_are_paired_by_text_and_position(tmp_path: Path) -> None:
    byte_level, planted = shared_chat("llama"), ensure_organism("llama", 0, tmp_path)
    rng = np.random.default_rng(0)
    words = ["sun", "rain", "tea", "a long walk", "music", "seven apples", "the old bridge", "chess", "no"]
    texts = [f"Tell me of {rng.choice(words)}, {rng.choice(words)} and {i}" for i in range(180)]
    assert len(byte_level.token_ids(texts[0])) != len(planted.token_ids(texts[0]))
    wide, narrow = Site("residual", 3), Site("residual", 2)
    large = read_condition(planted, NEUTRAL, texts, [wide])[wide]
    small = read_condition(byte_level, NEUTRAL, texts, [narrow])[narrow]
    assert (large.shape, small.shape) == ((180, 128), (180, 32))
    # Row i is text i, although batches are by length and lengths differ between the tokenizers.
    for i in (0, 17, 179):
        np.testing.assert_allclose(large[i], read_condition(planted, NEUTRAL, [texts[i]], [wide])[wide][0], atol=1e-4)
        again = read_condition(byte_level, NEUTRAL, [texts[i]], [narrow])[narrow][0]
        np.testing.assert_allclose(small[i], again, atol=1e-4)
    found = fit_map(large, small)
    back = fit_map(small, large)
    assert found.weights.shape == (128, 32)
    assert back.weights.shape == (32, 128)
    mapped = mapped_direction(found, direction(np.ones(128)), direction(np.ones(32)))
    assert mapped.norm == pytest.approx(np.sqrt(32))
