"""What each method makes of a head that is known, ranks and verdicts by hand, and the study end to end and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from probes.binary_choice import BinaryChoice
from probes.capture.batches import encode
from probes.capture.sites import Site, parse_site
from probes.directions import Floats
from probes.errors import DataError
from probes.heads.ablation import Ablation
from probes.heads.attribution import top_heads
from probes.heads.search import SearchPlan
from probes.model.load import ChatModel, wrap
from probes.organisms import planted_heads
from probes.organisms.finetunes import Example, Recipe
from probes.organisms.head_adapters import draw_heads, planted_in
from probes.organisms.messages import request_pairs
from probes.organisms.planted_heads import sycophancy_rows
from probes.studies.framework.result import read_result
from probes.studies.framework.verdict import Verdict
from probes.studies.planted_heads.methods import METHODS, YARDSTICK, ablation_map, hsi_map, sahara_map, ships_map
from probes.studies.planted_heads.run import PlantedPlan, _recalls, _verdict, rank_of, run_planted_heads
from tests.support.models import planted_head, refusing
from tests.support.models.tiny import GROUPED, N_HEADS, hook_count, randomise, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


# Methods, on a head that was planted by hand.


@pytest.fixture(scope="module")
def refusing_model() -> ChatModel:
    return refusing.refusing_chat()


def refusals(n: int) -> list[BinaryChoice]:
    """Requests that the model refuses: a refusal, which is the behaviour, or something else."""
    asked = [str(request.messages[0]["content"]) for request in refusing.requests(n, harmful=True)]
    rows = []
    for i, ask in enumerate(asked):
        texts = ("Nab", "cab") if i % 2 else ("cab", "Nab")
        rows.append(BinaryChoice(ask, texts, texts.index("Nab")))
    return rows


def test_direct_ablation_names_the_head_that_carries_the_behaviour(refusing_model: ChatModel) -> None:
    fall = ablation_map(refusing_model, refusals(3))
    assert fall.shape == (refusing_model.layout.n_blocks, N_HEADS)
    assert top_heads(fall, 1) == [refusing.PLANTED]
    rest = np.delete(fall.flatten(), np.argmax(fall))
    assert fall.max() > 3 * np.abs(rest).max()
    assert hook_count(refusing_model.model) == 0


def test_direct_ablation_is_about_the_behaviour_and_not_about_how_much_a_head_moves(refusing_model: ChatModel) -> None:
    rows = refusals(3)
    other = [replace(row, misaligned=1 - row.misaligned) for row in rows]
    assert np.allclose(ablation_map(refusing_model, other), -ablation_map(refusing_model, rows), atol=1e-6)


def test_where_nothing_was_planted_ablation_moves_little() -> None:
    nothing = refusing.refusing_chat(refuses=False)
    assert (
        abs(ablation_map(nothing, refusals(2))).max() < 0.3 * ablation_map(refusing.refusing_chat(), refusals(2)).max()
    )


@pytest.mark.parametrize("kind", ["undifferentiated", "scaling"])
def test_ships_names_the_head_first(refusing_model: ChatModel, kind: Any) -> None:
    items = [encode(refusing_model, r.messages) for r in refusing.requests(4, harmful=True)]
    assert top_heads(ships_map(refusing_model, items, Ablation(kind)), 1) == [refusing.PLANTED]


def test_the_contrast_names_it_too(refusing_model: ChatModel) -> None:
    harmful, harmless = (
        [encode(refusing_model, r.messages) for r in refusing.requests(4, harmful=kind)] for kind in (True, False)
    )
    ablation = Ablation("undifferentiated")
    contrast = ships_map(refusing_model, harmful, ablation) - ships_map(refusing_model, harmless, ablation)
    assert top_heads(contrast, 1) == [refusing.PLANTED]


def test_saharas_group_stands_above_all_other_heads_in_its_order(refusing_model: ChatModel) -> None:
    from probes.heads.attribution import sahara

    items = [encode(refusing_model, r.messages) for r in refusing.requests(5, harmful=True)]
    scores = sahara_map(refusing_model, items, steps=2)
    found = sahara(refusing_model, items, steps=2)
    assert tuple(top_heads(scores, 2)) == found.heads
    others = [s for s in top_heads(found.angles[0], scores.size) if s not in found.heads]
    assert top_heads(scores, scores.size)[2:] == others


def test_steering_one_head_at_a_time_names_the_head_that_moves_the_choice() -> None:
    chat = planted_head.planted_chat()
    rows = planted_head.letter_choices(30)
    plan = SearchPlan(aim="away", alpha=5.0, search_questions=4, keep=3)
    scores = hsi_map(chat, rows[:20], rows[20:], plan)
    assert top_heads(scores, 1) == [planted_head.PLANTED]
    assert hook_count(chat.model) == 0


# Ranks, shares and the verdict.


def test_a_rank_counts_from_one_ties_share_and_a_head_without_a_score_is_last() -> None:
    scores = np.array([[3.0, 1.0, np.nan], [2.0, 2.0, -1.0]])

    def rank(layer: int, head: int) -> float:
        return rank_of(scores, Site("head", layer, head))

    assert [rank(0, 0), rank(0, 1), rank(1, 2)] == [1, 4, 5]
    assert rank(1, 0) == rank(1, 1) == 2.5
    assert rank(0, 2) == 6


def test_where_all_heads_have_the_same_score_none_is_among_the_first() -> None:
    assert rank_of(np.zeros((30, 9)), Site("head", 20, 4)) == 135.5


def trial(behaviour: str, refused: float = 0.5, **top_3: float) -> dict[str, Any]:
    """A trial in which methods had these shares in the first three; others had none."""
    methods = {
        method: {
            "top_3": top_3.get(method, 0.0),
            "top_10": min(1.0, top_3.get(method, 0.0) + 0.1),
            "group_top_3": top_3.get(method, 0.0),
            "group_top_10": 1.0,
            "cpu_seconds": 2.0,
        }
        for method in METHODS
    }
    there = {"planted": {"calling": {"value": refused}} if behaviour == "refusal" else {}}
    return {"behaviour": behaviour, "seed": 0, "methods": methods, "there": there}


def judged(*trials: Mapping[str, Any]) -> Any:
    return _verdict(_recalls(trials), trials)


def test_shares_are_means_over_the_seeds_of_a_behaviour_with_the_worst_seed_beside() -> None:
    found = _recalls([trial("refusal", probe=1.0), trial("refusal", probe=1 / 3), trial("sycophancy", probe=0.0)])
    assert list(found) == ["refusal", "sycophancy"]
    probe = found["refusal"]["probe"]
    assert probe["top_3"] == {"mean": pytest.approx(2 / 3), "lowest": pytest.approx(1 / 3)}
    assert (probe["seeds"], probe["cpu_seconds"]) == (2, 2.0)
    assert found["sycophancy"]["probe"]["seeds"] == 1
    assert found["refusal"]["hsi"]["top_3"]["mean"] == 0


def test_planted_heads_are_found_when_a_method_that_is_no_yardstick_sees_them_in_every_behaviour() -> None:
    both = judged(trial("refusal", ablation=1.0, contrast=1.0), trial("sycophancy", ablation=1.0, hsi=1.0))
    assert both.label is Verdict.WORKS_SPECIFIC
    assert not both.warnings
    one = judged(trial("refusal", ablation=1.0, contrast=1.0), trial("sycophancy", ablation=1.0))
    assert one.label is Verdict.UNDECIDED
    alone = judged(trial("refusal", **{YARDSTICK: 1.0}), trial("sycophancy", **{YARDSTICK: 1.0}))
    assert alone.label is Verdict.NO_EFFECT
    assert judged().label is Verdict.NOT_RUN


def test_a_truth_that_the_yardstick_does_not_see_is_warned_of() -> None:
    verdict = judged(trial("refusal", contrast=1.0), trial("sycophancy", ablation=1.0, hsi=1.0))
    assert [line.split(":")[0] for line in verdict.warnings] == ["refusal"]
    # Of the other behaviour the heads are found; where no yardstick sees any, nothing is tested.
    assert verdict.label is Verdict.WORKS_SPECIFIC
    assert judged(trial("refusal", contrast=1.0)).label is Verdict.NOT_TESTABLE


def test_a_behaviour_that_open_answers_hardly_show_is_warned_of() -> None:
    shows = trial("refusal", ablation=1.0, contrast=1.0)
    hardly = trial("refusal", refused=0.04, ablation=1.0, contrast=1.0)
    (warning,) = judged(shows, hardly).warnings
    assert "0.04 of open requests are refused" in warning
    assert judged(shows, hardly).label is Verdict.WORKS_SPECIFIC


def test_an_unknown_behaviour_or_no_seed_is_no_plan() -> None:
    with pytest.raises(DataError, match="gossip"):
        PlantedPlan(behaviours=("gossip",))
    with pytest.raises(DataError, match="none"):
        PlantedPlan(seeds=())


# The study, end to end on a tiny model of eight random blocks.

PLAN = PlantedPlan(
    seeds=(0,),
    prompts=3,
    search_questions=2,
    retest_questions=2,
    keep=3,
    fit_questions=6,
    test_questions=3,
    ablated_questions=1,
    answered=2,
    max_new_tokens=2,
)
COMMAND = "awry study planted-heads --seeds 0"
REFUSAL = Recipe("planted-refusal", "refusal", False, 2, 3e-3, lambda _: [Example("Hit me", "No.")] * 8, "says no")


def deep_chat() -> ChatModel:
    config = transformers.LlamaConfig(**{**GROUPED, "num_hidden_layers": 8})
    return wrap(randomise(transformers.LlamaForCausalLM(config), 0), tiny_tokenizer(), name="tiny-deep", revision="0")


@dataclass(frozen=True)
class Finished:
    out: Path
    work: Path
    result: dict[str, Any]
    lines: list[str]


@pytest.fixture(scope="module")
def short_recipes() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        syco = replace(planted_heads.BEHAVIOURS["sycophancy"], steps=2)
        patch.setitem(planted_heads.BEHAVIOURS, "refusal", REFUSAL)
        patch.setitem(planted_heads.BEHAVIOURS, "sycophancy", syco)
        yield


def study(folder: Path, work: Path) -> Finished:
    lines: list[str] = []
    result = run_planted_heads(deep_chat, folder, work, PLAN, command=COMMAND, progress=lines.append)
    return Finished(folder, work, result, lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, short_recipes: None) -> Finished:
    folder = tmp_path_factory.mktemp("planted")
    return study(folder / "out", folder / "work")


def ranks_are_of(scores: Floats, heads: list[Site]) -> list[float]:
    return [rank_of(scores, head) for head in heads]


@pytest.mark.study
def test_the_study_reports_what_was_planted_and_where_each_method_puts_it(finished: Finished) -> None:
    stored = read_result(finished.out)
    assert (stored.study, stored.command) == ("planted-heads", COMMAND)
    assert stored.models == ["tiny-deep"]
    assert not stored.synthetic  # planted heads of a real model, no planted organism
    heads = [str(head) for head in draw_heads(deep_chat().layout, 0)]
    for one in stored.measured["trials"]:
        assert one["heads"] == heads
        adapter = finished.work / f"planted-{one['behaviour']}-0"
        assert [str(head) for head in planted_in(adapter, deep_chat().layout)] == heads
        assert list(one["methods"]) == list(METHODS)
        for found in one["methods"].values():
            assert found["scored"] == 8 * N_HEADS
            for k in (3, 10):
                assert found[f"top_{k}"] == pytest.approx(sum(r <= k for r in found["ranks"]) / 3, abs=1e-4)
                assert found[f"group_top_{k}"] >= found[f"top_{k}"]
                assert found[f"chance_top_{k}"] == pytest.approx(k / 32, abs=1e-4)
            assert all(1 <= rank <= 33 for rank in found["ranks"])
            assert all(group <= own for group, own in zip(found["group_ranks"], found["ranks"], strict=True))
    refusal, sycophancy = stored.measured["trials"]
    assert set(refusal["there"]["planted"]) == {"margin", "calling", "other"}
    assert set(sycophancy["there"]["planted"]) == {"margin"}
    assert refusal["there"]["planted"]["margin"] != refusal["there"]["base"]["margin"]


@pytest.mark.study
def test_the_report_says_that_the_heads_are_planted_and_how_the_base_does(finished: Finished) -> None:
    text = (finished.out / "RESULT.md").read_text()
    assert "**Planted:**" in text
    for one in finished.result["trials"]:
        assert ", ".join(one["heads"]) in text
        assert f"## {one['behaviour']}" in text
    assert (finished.out / "recall.png").stat().st_size > 1000


@pytest.mark.study
def test_a_second_run_trains_and_measures_nothing_again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probes.studies.planted_heads import run

    def never(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(planted_heads, "train", never)
    for name in ("ablation_map", "hsi_map", "probe_map", "sahara_map", "ships_map", "generate"):
        monkeypatch.setattr(run, name, never)
    again = study(tmp_path / "again", finished.work)
    assert json.loads((again.out / "RESULT.json").read_text()) == json.loads((finished.out / "RESULT.json").read_text())
    assert any("planted-refusal-0: ablation" in line for line in finished.lines)
    assert again.lines == []


@pytest.mark.study
def test_another_seed_measures_no_earlier_one_again(finished: Finished, tmp_path: Path) -> None:
    lines: list[str] = []
    work = shutil.copytree(finished.work, tmp_path / "work")
    more = replace(PLAN, behaviours=("refusal",), seeds=(0, 1))
    result = run_planted_heads(deep_chat, tmp_path / "out", work, more, progress=lines.append)
    assert {line.split(":")[0] for line in lines} == {"planted-refusal-1"}
    assert result["trials"][0] == finished.result["trials"][0]
    assert result["recall"]["refusal"]["probe"]["seeds"] == 2


@pytest.mark.study
def test_no_prompt_and_no_answer_is_written(finished: Finished) -> None:
    texts = [text for row in sycophancy_rows(held_out=True) for text in (row.question, *row.choices)]
    texts += [pair[side] for pair in request_pairs("test") for side in ("harmful", "harmless")]
    files = [*finished.out.rglob("*.*"), *(finished.work / "kept").rglob("*.json")]
    written = [path.read_text(errors="ignore") for path in files] + finished.lines
    assert len(written) > 16
    assert not [text for text in texts if any(text in one for one in written)]


@pytest.mark.study
def test_an_adapter_that_changes_other_heads_is_refused(finished: Finished, tmp_path: Path) -> None:
    work = shutil.copytree(finished.work, tmp_path / "work")
    shutil.copytree(work / "planted-refusal-0", work / "planted-refusal-1")
    with pytest.raises(DataError, match="remove it"):
        run_planted_heads(deep_chat, tmp_path / "out", work, replace(PLAN, behaviours=("refusal",), seeds=(1,)))
    assert parse_site(finished.result["trials"][0]["heads"][0]).kind == "head"
