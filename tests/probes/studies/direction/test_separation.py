from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.capture.sites import Site
from probes.conditions import Activations
from probes.errors import DirectionError
from probes.studies.direction.conditions import ClassActivations, ComparisonActivations
from probes.studies.direction.separation import Directions, cohens_d, fit_directions, separation

SITE, OTHER = Site("residual", 0), Site("residual", 1)
D = 300


def clouds(
    rng: np.random.Generator,
    n: int,
    gap: float = 0.0,
    other: float = 0.0,
    site: Site = SITE,
    shared: float = 0.0,
    control_gap: float | None = None,
) -> ClassActivations:
    """Gaussian clouds; misaligned is `gap` further along axis 0, control `control_gap` along axis 1."""

    def cloud(axis: int, size: float) -> Activations:
        values = rng.standard_normal((n, D)).astype(np.float32)
        values[:, axis] += size
        values[:, 2] += shared * rng.standard_normal()
        return {site: values}

    control = cloud(1, control_gap) if control_gap is not None else None
    good = cloud(0, 0.0)
    return ClassActivations(cloud(0, gap), good, control, good if control else None, paired=True)


def reading(seed: int, gap: float, n: int = 60, control_gap: float | None = None) -> ComparisonActivations:
    rng = np.random.default_rng(seed)
    return ComparisonActivations(
        clouds(rng, n, gap, control_gap=control_gap), clouds(rng, n, gap, control_gap=control_gap)
    )


def figures(found: ComparisonActivations) -> list[dict[str, Any]]:
    return separation(found, fit_directions(found.fit), permutations=20, random_directions=10, seed=0)


@pytest.mark.parametrize("seed", range(6))
def test_noise_is_chance_on_held_out_rows(seed: int) -> None:
    """In sample 60 rows in 300 dimensions are told apart; held out they are not."""
    found = reading(seed, 0.0)
    row = figures(found)[0]
    assert row["accuracy"]["value"] == pytest.approx(0.5, abs=0.15)
    assert row["accuracy"]["low"] < 0.5 < row["accuracy"]["high"]
    assert row["effect_size"]["low"] < 0 < row["effect_size"]["high"]
    direction = fit_directions(found.fit).own[SITE]
    bad, good = (cloud[SITE] @ direction.unit for cloud in (found.fit.misaligned, found.fit.aligned))
    assert (bad > good.mean() / 2 + bad.mean() / 2).mean() > 0.85


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_gap_is_found_with_its_size(seed: int) -> None:
    row = figures(reading(seed, 6.0, n=300))[0]
    assert row["accuracy"]["value"] > 0.98
    assert row["effect_size"]["low"] < 6 < row["effect_size"]["high"] + 0.6
    assert row["norm"] == pytest.approx(6, abs=1)
    assert row["chance"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert row["chance"]["p"] == 1 / 21
    # Random directions see little of one axis in 300.
    assert row["random"]["mean"] < 0.75


def test_a_perfect_accuracy_has_an_interval_too() -> None:
    row = figures(reading(0, 40.0, n=40))[0]
    assert row["accuracy"]["value"] == 1
    assert 0.9 < row["accuracy"]["low"] < 0.95
    assert row["accuracy"]["high"] == 1


def test_shuffled_fit_labels_are_no_chance_where_the_label_is_the_main_axis() -> None:
    """All axes shifted: directions of shuffled fit labels separate as well, and random ones too; neither is chance."""
    rng = np.random.default_rng(0)

    def split() -> ClassActivations:
        shift = 8 * np.random.default_rng(9).standard_normal(D).astype(np.float32)
        good = rng.standard_normal((40, D)).astype(np.float32)
        return ClassActivations({SITE: good + shift}, {SITE: good}, None, None, paired=True)

    row = figures(ComparisonActivations(split(), split()))[0]
    assert row["accuracy"]["value"] == 1
    assert row["shuffled_fit"]["farthest"] > 0.95
    assert row["chance"]["farthest"] < 0.75
    assert row["chance"]["p"] == 1 / 21
    assert row["random"]["mean"] > 0.8


def test_the_controls_figures_stand_beside() -> None:
    row = figures(reading(1, 6.0, n=200, control_gap=6.0))[0]
    assert row["control"]["accuracy"]["value"] > 0.98
    assert abs(row["control"]["cosine"]) < 0.5
    assert row["against_control"]["accuracy"]["value"] > 0.98
    assert row["contrast"]["cosine"] == pytest.approx(np.sqrt(0.5), abs=0.2)
    alone = figures(reading(1, 6.0, n=50))[0]
    assert alone["control"] is alone["against_control"] is alone["contrast"] is None


def test_a_control_that_is_the_same_shift_cannot_be_told_from_it() -> None:
    rng = np.random.default_rng(3)

    def split() -> ClassActivations:
        one = clouds(rng, 100, 6.0)
        other = clouds(rng, 100, 6.0)
        return ClassActivations(one.misaligned, one.aligned, other.misaligned, one.aligned, paired=True)

    row = figures(ComparisonActivations(split(), split()))[0]
    assert row["control"]["cosine"] > 0.7
    assert row["against_control"]["accuracy"]["low"] < 0.5 < row["against_control"]["accuracy"]["high"]


def test_test_rows_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    fit = clouds(rng, 60, 3.0)
    one = fit_directions(fit).own[SITE].vector
    a = figures(ComparisonActivations(fit, clouds(rng, 60, 3.0)))[0]
    b = figures(ComparisonActivations(fit, clouds(rng, 60, -3.0)))[0]
    np.testing.assert_array_equal(fit_directions(fit).own[SITE].vector, one)
    assert a["norm"] == b["norm"]
    assert a["accuracy"]["value"] > 0.8
    assert b["accuracy"]["value"] < 0.55


def test_cohens_d_in_closed_form() -> None:
    a, b = np.array([2.0, 4.0, 6.0]), np.array([1.0, 1.0, 4.0])
    pooled = np.sqrt((2 * a.var(ddof=1) + 2 * b.var(ddof=1)) / 4)
    found = cohens_d(a, b, paired=False)
    assert found is not None
    assert found.value == pytest.approx((4 - 2) / pooled)
    assert found.low < found.value < found.high
    assert cohens_d(np.ones(5), np.zeros(5), paired=True) is None
    assert cohens_d(np.ones(1), np.zeros(1), paired=True) is None
    assert cohens_d(np.array([1.0, 2.0]), np.array([0.0, 0.5]), paired=False) is None  # one left: no spread


def test_pairing_narrows_the_interval_of_what_moves_together() -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal(80)
    a, b = common + 0.5 + 0.1 * rng.standard_normal(80), common
    paired, loose = (cohens_d(a, b, paired=p) for p in (True, False))
    assert paired is not None
    assert loose is not None
    assert paired.high - paired.low < 0.6 * (loose.high - loose.low)


def test_sites_where_the_arms_are_alike_are_named_and_all_alike_is_an_error() -> None:
    one = clouds(np.random.default_rng(0), 30, 3.0)
    same = one.aligned[SITE]
    both = ClassActivations(one.misaligned | {OTHER: same}, one.aligned | {OTHER: same}, None, None, paired=True)
    found = fit_directions(both)
    assert (list(found.own), found.without) == ([SITE], ["residual[1]"])
    with pytest.raises(DirectionError, match=r"zero.*Is the adapter switched on"):
        fit_directions(ClassActivations(one.aligned, one.aligned, None, None, paired=True))
    with pytest.raises(DirectionError, match=r"control: .*zero.*Is the adapter switched on"):
        fit_directions(ClassActivations(one.misaligned, one.aligned, one.aligned, one.aligned, paired=True))


def test_directions_survive_being_kept() -> None:
    found = fit_directions(reading(0, 3.0, control_gap=2.0).fit)
    import json

    back = Directions.of(json.loads(json.dumps(found.plain())))
    assert back.without == found.without
    for mine, theirs in ((found.own, back.own), (found.control, back.control), (found.contrast, back.contrast)):
        assert list(mine) == list(theirs) == [SITE]
        np.testing.assert_array_equal(mine[SITE].vector, theirs[SITE].vector)
        np.testing.assert_array_equal(mine[SITE].centre, theirs[SITE].centre)


@pytest.mark.parametrize("n", [30, 48])
@pytest.mark.parametrize(("paired", "together"), [(False, 0.0), (True, 0.0), (True, 0.8)])
@pytest.mark.parametrize("truth", [0.0, 0.5, 2.0, 10.0])
def test_the_interval_of_d_covers(n: int, paired: bool, together: float, truth: float) -> None:
    """Nominal 95 %; at least 93 % is wanted."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        common = np.sqrt(together) * rng.standard_normal(n)
        a, b = (common + np.sqrt(1 - together) * rng.standard_normal(n) + gap for gap in (truth, 0.0))
        found = cohens_d(a, b, paired=paired)
        assert found is not None
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.93


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0])
def test_the_interval_of_a_balanced_accuracy_covers(gap: float) -> None:
    """Of one direction and one cut, on many draws of test rows: 24 of either class."""
    rng = np.random.default_rng(1)
    fit = clouds(rng, 60, gap)
    directions = fit_directions(fit)
    many = clouds(rng, 3000, gap)
    truth = separation(ComparisonActivations(fit, many), directions, permutations=1, random_directions=1, seed=0)[0]
    held = []
    for _ in range(200):
        test = clouds(rng, 24, gap)
        row = separation(ComparisonActivations(fit, test), directions, permutations=1, random_directions=1, seed=0)[0]
        held.append(row["accuracy"]["low"] <= truth["accuracy"]["value"] <= row["accuracy"]["high"])
    assert np.mean(held) >= 0.93


@pytest.mark.parametrize("paired", [True, False])
def test_the_chance_null_says_of_nothing_that_it_is_something_in_one_of_twenty(paired: bool) -> None:
    """The size of the test, with a main axis that is not the label's: there, shuffled fit labels are no null."""
    rng = np.random.default_rng(0)
    scale = np.r_[20.0, np.ones(19)]

    def split() -> ClassActivations:
        items = rng.standard_normal((30, 20)) * scale if paired else 0.0
        bad, good = (items + rng.standard_normal((30, 20)) * scale**0.5 for _ in range(2))
        return ClassActivations({SITE: bad}, {SITE: good}, None, None, paired=paired)

    found = []
    for seed in range(200):
        reading = ComparisonActivations(split(), split())
        row = separation(reading, fit_directions(reading.fit), permutations=20, random_directions=1, seed=seed)[0]
        found.append(row["chance"]["p"] <= 0.05)
    assert np.mean(found) <= 0.08
