from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site
from probes.card import Probe, load_probe, save_probe
from probes.directions import difference_in_means
from probes.errors import DataError, DirectionError
from probes.evaluation import auroc_value
from probes.fitting import Plan, fit
from probes.logistic import PENALTIES, logistic_directions
from probes.rows import Row
from probes.scoring import Reader, score_all
from tests.probes.test_fitting import RESIDUAL, planted_rows
from tests.support.models.tiny import shared_chat

HERE, THERE = Site("residual", 0), Site("residual", 1)
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def correlated(n: int = 400, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows that differ a little along dimension 1, and along dimension 0 by the noise that both dimensions share."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2 == 0
    rows = rng.standard_normal((n, width))
    shared = 5 * rng.standard_normal(n)
    rows[:, 0] = shared + 0.3 * rng.standard_normal(n)
    rows[:, 1] = shared + 0.3 * rng.standard_normal(n) + labels
    return rows.astype(np.float32), labels


def values(rows: Mapping[Site, np.ndarray], reader: Reader) -> np.ndarray:
    """Values as `probes.planes` has them."""
    parts = [(rows[d.site].astype(np.float64) - d.centre) @ d.vector / (d.vector @ d.vector) for d in reader.directions]
    found: np.ndarray = np.mean(parts, axis=0)
    return found


def test_it_reads_what_a_difference_in_means_misses() -> None:
    rows, labels = correlated()
    other, truth = correlated(seed=1)
    fitted = logistic_directions({HERE: rows}, labels, 1.0)
    assert fitted.converged
    plain = difference_in_means(HERE, rows[labels], rows[~labels])
    assert auroc_value(fitted.directions[0].along(other), truth) > 0.9
    assert auroc_value(plain.along(other), truth) < 0.7


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, *PENALTIES]), st.floats(0.01, 100))
def test_values_are_class_gaps_over_one_site_or_several(seed: int, penalty: float, scale: float) -> None:
    rows, labels = correlated(seed=seed, n=80)
    parts = {HERE: rows, THERE: (scale * rows[:, ::-1][:, :5] + 3).astype(np.float32)}
    for given_sites in ([HERE], [HERE, THERE]):
        found = logistic_directions({site: parts[site] for site in given_sites}, labels, penalty)
        assert [d.site for d in found.directions] == given_sites
        at = values(parts, Reader(found.directions, Aggregation("mean", "prompt")))
        assert at[~labels].mean() == pytest.approx(0, abs=1e-6)
        assert at[labels].mean() == pytest.approx(1, abs=1e-6)


def test_the_direction_does_not_hang_on_units_or_on_dimensions_that_never_change() -> None:
    rows, labels = correlated()
    plain = logistic_directions({HERE: rows}, labels, 10.0).directions[0]
    stretched = rows * np.float32(64)
    dead = np.concatenate([stretched, np.full((len(rows), 1), 7, np.float32)], axis=1)
    other = logistic_directions({HERE: dead}, labels, 10.0).directions[0]
    assert other.vector[-1] == 0
    assert other.vector[:-1] / 64 == pytest.approx(plain.vector, rel=1e-3)
    assert other.sigma / 64 == pytest.approx(plain.sigma, rel=1e-3)


def test_a_regression_that_did_not_converge_says_so() -> None:
    rows, labels = correlated()
    fitted = logistic_directions({HERE: rows}, labels, 0.01, most_steps=2)
    assert (fitted.converged, fitted.steps) == (False, 2)


@pytest.mark.parametrize("bad", [0, 4, 36, 40])
def test_one_class_and_too_few_rows_of_one_are_errors_that_count_them(bad: int) -> None:
    rows, _ = correlated(n=40)
    labels = np.arange(40) < bad
    with pytest.raises(DataError, match=rf"^logistic regression: {bad} misaligned and {40 - bad} aligned rows"):
        logistic_directions({HERE: rows}, labels, 1.0)


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(penalty: float) -> None:
    rows, labels = correlated(n=40)
    with pytest.raises(DataError, match=r"^penalty: "):
        logistic_directions({HERE: rows}, labels, penalty)


def test_what_is_not_finite_or_never_changes_is_refused() -> None:
    rows, labels = correlated(n=40)
    with pytest.raises(DirectionError, match=r"residual\[0\]: activations are not finite"):
        logistic_directions({HERE: np.where(rows > 2, np.inf, rows)}, labels, 1.0)
    with pytest.raises(DirectionError, match=r"residual\[0\]: logistic regression found nothing"):
        logistic_directions({HERE: np.ones_like(rows)}, labels, 1.0)
    with pytest.raises(DirectionError, match=r"residual\[1\]: the activations there are the same for every row"):
        logistic_directions({HERE: rows, THERE: np.ones_like(rows)}, labels, 1.0)


# As `awry fit --method logistic` uses it


def plan(sites: tuple[Site, ...] = RESIDUAL) -> Plan:
    return Plan("planted", "a planted signal", sites, Aggregation("mean", "prompt"), 0.05, penalties=PENALTIES)


@pytest.fixture(scope="module")
def probe() -> Probe:
    chat = shared_chat("llama")
    return fit(chat, planted_rows(chat), plan())


def test_a_fitted_probe_reads_by_one_vector_and_steers_by_the_difference_in_means(probe: Probe) -> None:
    chat = shared_chat("llama")
    assert probe.card.method is not None
    assert probe.card.method.startswith("logistic regression (L2 penalty 1")
    assert len(probe.directions) == len(probe.mitigators) == 1
    by_means = fit(chat, planted_rows(chat), Plan("p", "", (probe.directions[0].site,), probe.aggregation, 0.05))
    assert probe.mitigators[0].vector == pytest.approx(by_means.directions[0].vector)
    (recipe,) = probe.interventions
    assert (recipe.mode, recipe.strength, recipe.positions) == ("ablate", 1.0, "all")
    assert by_means.card.mitigation is None
    assert probe.card.mitigation is not None
    between = probe.card.mitigation.cosine_to_detector
    assert between is not None
    assert 0 < between < 0.99


def test_its_held_out_figures_hold_and_its_nulls_do_not(probe: Probe) -> None:
    report = probe.card.evaluation
    assert report["test"]["auroc"]["low"] > 0.9
    assert report["converged"] is True
    assert report["nulls"]["random"]["auroc_mean"] == pytest.approx(0.5, abs=0.15)
    assert report["nulls"]["permuted"]["auroc_mean"] < report["test"]["auroc"]["value"]


def test_the_penalty_is_chosen_on_the_select_split(probe: Probe) -> None:
    choice = probe.card.evaluation["site_choice"]
    assert choice["by"] == "AUROC on the select split"
    assert len(choice["auroc"]) == len(RESIDUAL) * len(PENALTIES)
    kept = f"{probe.directions[0].site}, mean(prompt), {probe.card.method}"
    assert choice["auroc"][kept] == max(choice["auroc"].values())


def test_the_card_survives_the_disk(probe: Probe, tmp_path: Path) -> None:
    again = load_probe(save_probe(probe, tmp_path))
    assert again.recipe == probe.recipe
    assert np.array_equal(again.mitigators[0].vector, probe.mitigators[0].vector)
    assert np.array_equal(again.directions[0].vector, probe.directions[0].vector)
    assert again.digest == probe.digest


def test_scores_are_of_the_regression_alone(probe: Probe) -> None:
    chat = shared_chat("llama")
    rows: list[Row] = planted_rows(chat, n=20, seed=3)
    scores = score_all(chat, [r.encoded for r in rows], [probe.reader])[:, 0]
    labels = np.array([r.misaligned for r in rows])
    assert auroc_value(scores.astype(np.float64), labels) > 0.9


def test_whitening_and_a_penalty_are_refused_together() -> None:
    both = Plan("p", "", RESIDUAL, Aggregation("mean", "prompt"), shrinkages=(0.1,), penalties=(1.0,))
    with pytest.raises(DataError, match=r"^method: whitening goes with a difference in means"):
        _ = both.candidates
