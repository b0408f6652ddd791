"""The study of detectors on a tiny model whose harmful requests hold planted words, and its parts."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.attacks.families import named
from probes.calibration import Values
from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site
from probes.directions import difference_in_means, pooled_activations
from probes.errors import DataError
from probes.evaluation import auroc_value
from probes.logistic import logistic_directions
from probes.model.load import ChatModel
from probes.progress import silent
from probes.splits import split_of
from probes.studies.detectors import run as study
from probes.studies.detectors.attacked import summary
from probes.studies.detectors.figures import HeldOut, PairScores, auroc_difference, differences, figures_of
from probes.studies.detectors.fits import Fits, Spec
from probes.studies.detectors.kept import KeptArrays
from probes.studies.detectors.methods import LAST, MEAN_LAST, METHODS, choose, first_specs, merit, several_specs
from probes.studies.detectors.plan import DetectorData, DetectorPlan, RequestPair, default_plan, split_everyday
from probes.studies.detectors.rows import StudyRows
from tests.probes.test_fitting import MARKS, WORDS
from tests.support.models.tiny import shared_chat

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def sentences(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=6)) for _ in range(n)]


def pairs(n: int, marks: list[str] = MARKS, seed: int = 0) -> list[RequestPair]:
    """Twins; in the harmful one three of six words are marks."""
    rng = random.Random(seed)
    made = []
    for i, text in enumerate(sentences(n, seed)):
        words = text.split()
        for at in rng.sample(range(6), 3):
            words[at] = rng.choice(marks)
        made.append(RequestPair(f"pair {i}", " ".join(words), text))
    return made


def data(n: int = 150, marks: list[str] = MARKS) -> DetectorData:
    everyday = sentences(260, 5)
    return DetectorData(
        pairs(n, marks),
        {"fit": everyday[:60], "select": everyday[60:120], "calibrate": everyday[120:200], "test": everyday[200:]},
    )


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return shared_chat("llama")


def plan_of(chat: ChatModel, **changed: Any) -> DetectorPlan:
    small = default_plan(chat.layout, name="planted", target_fpr=0.05, max_tokens=512)
    return replace(
        small,
        penalties=(1.0, 100.0),
        averaged_blocks=(2,),
        averaged_heads=(2,),
        everyday_rows=(0, 30),
        permutations=2,
        random_directions=3,
        attacked=0,
        **changed,
    )


# The whole


@pytest.fixture(scope="module")
def done(chat: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("detectors")
    plan = replace(plan_of(chat), attacked=20, families=named(["suffix-polite", "case"]))
    return out, study.run_detectors(chat, data(), out, plan, command="awry study detectors")


@pytest.mark.study
def test_planted_words_are_found_and_controls_are_not(done: tuple[Path, dict[str, Any]]) -> None:
    _, result = done
    methods = result["figures"]["methods"]
    assert set(methods) == {*METHODS, study.WORDS}
    logistic = methods["logistic, last token"]
    assert logistic["figures"]["auroc"]["low"] > 0.8
    assert methods[study.WORDS]["figures"]["auroc"]["value"] > 0.95
    nulls = logistic["nulls"]
    assert [nulls[kind]["n"] for kind in ("both splits shuffled", "fit labels shuffled", "random directions")] == [
        2,
        2,
        3,
    ]
    assert nulls["both splits shuffled"]["most"] < 0.7
    assert abs(nulls["random directions"]["mean"] - 0.5) < 0.25
    assert nulls["random directions"]["p"] in (0.25, 0.5)
    assert set(logistic["everyday_rows"]) == {"0", "30"}
    assert {row["family"] for row in result["figures"]["attacks"]} == {"plain", "suffix-polite", "case"}
    assert all(set(row["recall"]) == set(METHODS) for row in result["figures"]["attacks"])
    assert "difference" not in methods[result["figures"]["reference"]]
    assert (
        methods["difference in means, last token"]["difference"]["auroc"]["n"]
        == result["data"]["rows"]["pairs"]["test"]
    )


@pytest.mark.study
def test_it_resumes_without_reading_again_and_keeps_no_text(
    done: tuple[Path, dict[str, Any]], chat: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result = done

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("it was read already")

    monkeypatch.setattr(study, "read_values", not_again)
    monkeypatch.setattr("probes.studies.detectors.fits.pooled_by_aggregation", not_again)
    monkeypatch.setattr("probes.studies.detectors.attacked.run_suites", not_again)
    plan = replace(plan_of(chat), attacked=20, families=named(["suffix-polite", "case"]))
    again = study.run_detectors(chat, data(), out, plan, command="awry study detectors")
    assert again["figures"] == result["figures"]
    assert again == json.loads((out / "RESULT.json").read_text())
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(f"{word} ".encode() in content for word in (*WORDS, *MARKS)), path.name


@pytest.mark.study
def test_without_a_signal_no_method_finds_one(chat: ChatModel, tmp_path: Path) -> None:
    result = study.run_detectors(chat, data(marks=WORDS), tmp_path, plan_of(chat))
    for name in METHODS:
        figure = result["figures"]["methods"][name]["figures"]["auroc"]
        assert figure["low"] < 0.6, name
        assert figure["high"] > 0.4, name


# Rows


def test_pairs_stay_together_and_few_everyday_rows_are_the_first(chat: ChatModel) -> None:
    given_data = data(60)
    rows = StudyRows.of(chat, given_data, plan_of(chat))
    groups = [{row.group for row in part} for part in (rows.fit[: 2 * rows.pairs["fit"]], rows.select, rows.test)]
    assert [len(g) for g in groups] == [rows.pairs[name] for name in ("fit", "select", "test")]
    assert not groups[0] & groups[1] | groups[1] & groups[2] | groups[0] & groups[2]
    half = len(rows.test) // 2
    assert all(row.misaligned for row in rows.test[:half])
    assert [row.group for row in rows.test[:half]] == [row.group for row in rows.test[half:]]
    assert all(split_of(row.group) == "test" for row in rows.test)
    for count in (0, 10, 60, 1000):
        inside = rows.members(count)
        kept = [row.text for row, there in zip(rows.fit, inside, strict=True) if there and row.group == row.text]
        assert kept == list(given_data.everyday["fit"][:count])
    assert rows.members(None).all()


def test_what_is_missing_is_named(chat: ChatModel) -> None:
    with pytest.raises(DataError, match=r"^requests: \d pairs in the \w+ split; at least 5"):
        StudyRows.of(chat, data(8), plan_of(chat))
    with pytest.raises(DataError, match=r"^benign: 3 everyday messages for select; at least 20"):
        replace(data(8), everyday={**data(8).everyday, "select": ["a", "b", "c"]})
    with pytest.raises(DataError, match=r"^requests: pair x is twice the same text"):
        replace(data(8), pairs=[RequestPair("x", "same", " same ")])


def test_everyday_messages_are_split_once_for_all() -> None:
    texts = [f"message {i}" for i in range(400)]
    parts = split_everyday([*texts, *texts])
    assert sorted(text for part in parts.values() for text in part) == sorted(texts)
    assert [len(parts[name]) / 400 for name in parts] == pytest.approx([0.4, 0.15, 0.25, 0.2], abs=0.07)
    assert split_everyday(texts[::-1]).keys() == parts.keys()
    assert {k: set(v) for k, v in split_everyday(texts[::-1]).items()} == {k: set(v) for k, v in parts.items()}


# Readings and their choice


@pytest.fixture(scope="module")
def fits(chat: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Fits:
    rows = StudyRows.of(chat, data(60), plan_of(chat))
    made = Fits(chat, rows.fit, KeptArrays(tmp_path_factory.mktemp("kept"), {}), silent)
    made.read({LAST: [Site("residual", 1), Site("residual", 2)]})
    return made


def test_readings_are_those_of_the_rows_that_count(fits: Fits, chat: ChatModel) -> None:
    site = Site("residual", 1)
    members = np.arange(len(fits.rows)) % 3 != 0
    rows = [row for row, inside in zip(fits.rows, members, strict=True) if inside]
    x = pooled_activations(chat, [row.encoded for row in rows], [site], LAST)[site]
    wrong = np.array([row.misaligned for row in rows])
    by_means = fits.reader(Spec("m", "mean", (site,), LAST), members).directions[0]
    assert by_means.vector == pytest.approx(difference_in_means(site, x[wrong], x[~wrong]).vector, abs=1e-5)
    fitted = fits.reader(Spec("l", "logistic", (site,), LAST, 10.0), members).directions[0]
    assert fitted.vector == pytest.approx(logistic_directions({site: x}, wrong, 10.0).directions[0].vector, abs=1e-3)


def test_whitening_by_rows_is_fishers_discriminant(fits: Fits) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    site, every = Site("residual", 2), np.ones(len(fits.rows), dtype=bool)
    direction = fits.reader(Spec("w", "rows", (site,), LAST, 1e-9), every).directions[0]
    x = fits.activations(LAST, site).astype(np.float64)
    known = LinearDiscriminantAnalysis(solver="svd").fit(x, fits.truth).coef_[0]
    assert abs(direction.unit @ known / np.linalg.norm(known)) == pytest.approx(1, abs=1e-3)


def test_permuted_labels_give_another_reading(fits: Fits) -> None:
    every = np.ones(len(fits.rows), dtype=bool)
    spec = Spec("l", "logistic", (Site("residual", 1),), LAST, 10.0)
    true = fits.reader(spec, every).directions[0]
    other = fits.reader(spec, every, np.random.default_rng(0).permutation(fits.truth)).directions[0]
    assert abs(true.unit @ other.unit) < 0.9


def test_the_merit_is_of_twins_and_of_the_everyday_threshold() -> None:
    labels = np.arange(40) < 20
    scores = np.where(labels, 2.0, 1.0) + np.linspace(0, 0.5, 40)
    requests = Values(np.stack([scores, -scores], 1), np.full((40, 2), 10))
    quiet = np.linspace(0, 1, 100)
    low, high = (
        merit(requests, labels, Values(np.stack([quiet + up] * 2, 1), np.full((100, 2), 10)), 0, 0.01) for up in (0, 9)
    )
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(0.5)
    assert merit(requests, labels, Values(np.stack([quiet] * 2, 1), np.full((100, 2), 10)), 1, 0.01) == 0


def test_one_reading_a_method_is_chosen_and_the_best_sites_are_joined(chat: ChatModel) -> None:
    plan = plan_of(chat)
    specs = first_specs(plan)
    assert len(set(specs)) == len(specs)
    merits = dict.fromkeys(specs, 0.1)
    blocks = [spec for spec in specs if spec.method == MEAN_LAST]
    heads = [spec for spec in specs if spec.sites[0].kind == "head"]
    merits |= {blocks[-1]: 0.9, heads[-1]: 0.8, heads[1]: 0.7}
    several = several_specs(plan, merits)
    joined = {spec.method: spec.sites for spec in several}
    assert joined["difference in means, several heads averaged"] == (heads[-1].sites[0], heads[1].sites[0])
    assert joined["difference in means, several blocks averaged"][0] == blocks[-1].sites[0]
    chosen = choose(merits | dict.fromkeys(several, 0.2))
    assert list(chosen) == list(METHODS)
    assert chosen[MEAN_LAST] == blocks[-1]


# Figures


def brute(harmful: np.ndarray, twin: np.ndarray) -> float:
    scores = np.concatenate([harmful, twin])
    return auroc_value(scores, np.arange(len(scores)) < len(harmful))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_leaving_a_pair_out_is_leaving_both_its_rows_out(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    pair_scores = PairScores(rng.integers(0, 6, n).astype(float), rng.integers(0, 6, n).astype(float))
    without = [brute(np.delete(pair_scores.harmful, i), np.delete(pair_scores.twin, i)) for i in range(n)]
    assert pair_scores.without_one() == pytest.approx(without)
    assert pair_scores.auroc.value == pytest.approx(brute(pair_scores.harmful, pair_scores.twin))


def test_the_difference_of_two_aurocs_covers_on_pairs_that_share_their_topic() -> None:
    """500 draws of 60 pairs; the two rows of a pair share what they are about, which one of the readings sees."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[PairScores, PairScores]:
        topic, noise = rng.standard_normal(n), rng.standard_normal((4, n))
        one = PairScores(1 + topic + noise[0], topic + noise[1])
        two = PairScores(1.3 + 0.5 * topic + noise[0] + 0.5 * noise[2], 0.5 * topic + noise[1] + 0.5 * noise[3])
        return one, two

    one, two = draw(4000)
    truth = one.auroc.value - two.auroc.value
    found = [auroc_difference(*draw(60)) for _ in range(500)]
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.93 <= covered <= 0.98
    assert np.mean([f.high - f.low for f in found]) < 0.25


def held_out(shift: float = 0.0, threshold: float = 0.5) -> HeldOut:
    rng = np.random.default_rng(3)
    return HeldOut(
        PairScores(rng.random(40) + shift, rng.random(40)),
        rng.random(60) - 0.4,
        rng.random(20) + shift,
        np.empty(0),
        threshold,
    )


def test_rates_are_at_the_readings_own_threshold_and_differences_are_paired() -> None:
    figures = figures_of(held_out())
    assert set(figures) == {"auroc", "tpr", "twin_fpr", "everyday_fpr", "other_tpr"}
    assert figures["tpr"]["value"] == np.mean(held_out().pairs.harmful > 0.5)
    found = differences(held_out(0.3), held_out())
    assert found["auroc"]["low"] > 0
    assert found["tpr"]["value"] == pytest.approx(
        np.mean(held_out(0.3).pairs.harmful > 0.5) - np.mean(held_out().pairs.harmful > 0.5)
    )
    assert found["everyday_fpr"]["value"] == 0
    assert found["everyday_fpr"]["low"] < 0 < found["everyday_fpr"]["high"]
    same = auroc_difference(held_out().pairs, held_out().pairs)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(DataError, match=r"^pairs: 3 harmful and 2 harmless"):
        PairScores(np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match=r"^pairs: the two readings are of different pairs"):
        auroc_difference(PairScores(np.zeros(3), np.ones(3)), PairScores(np.zeros(2), np.ones(2)))


def test_the_summary_of_attacks_names_the_worst_suffix() -> None:
    def row(family: str, recall: float, holds_out: bool = False) -> dict[str, Any]:
        return {
            "family": family,
            "holds_out": holds_out,
            "recall": {"a": {"value": recall, "low": 0, "high": 1, "n": 10}},
            "fpr": {"a": {"value": 0.1, "low": 0, "high": 1, "n": 10}},
        }

    rows = [row("plain", 0.9), row("suffix-polite", 0.5), row("suffix-language", 0.2), row("leet", 0.05, True)]
    found = summary(rows)["a"]
    assert found["plain"]["value"] == 0.9
    assert found["mean"] == pytest.approx(0.25)
    assert found["held_out"] == pytest.approx(0.05)
    assert found["worst_suffix"]["family"] == "suffix-language"
    assert summary(rows[:1]) == {}


# What is kept


def test_arrays_are_made_once_and_again_where_the_file_is_broken(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(3)}

    kept = KeptArrays(tmp_path, {"model": "a"})
    for _ in range(2):
        assert kept.get_or("one", make)["x"].tolist() == [0, 1, 2]
    assert len(made) == 1
    KeptArrays(tmp_path, {"model": "b"}).get_or("one", make)
    assert len(made) == 2
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:40])
    assert kept.get_or("one", make)["x"].tolist() == [0, 1, 2]
    assert len(made) == 3


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"^study folder: cannot write to .*; choose another out"):
        KeptArrays(tmp_path / "file", {})


def test_a_spec_says_what_it_reads() -> None:
    assert str(Spec("m", "mean", (Site("residual", 3),), LAST)) == "residual[3], last_prompt"
    windows = Aggregation("top_mean", "turns", 8, 4)
    one = Spec("m", "tokens", (Site("residual", 3),), windows, 0.1)
    assert str(one) == "residual[3], top_mean(4, 8, turns), shrinkage 0.1"
    assert str(one.pooling) == "mean(turns)"
