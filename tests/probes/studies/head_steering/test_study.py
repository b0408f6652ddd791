"""The heads study from end to end, on a tiny model with a planted head; what it says of SmolLM2 is not tested here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from probes.binary_choice import BinaryChoice
from probes.capture.sites import Site
from probes.card import load_probe
from probes.errors import DataError, SiteError
from probes.heads import choice_scoring
from probes.heads.choice_scoring import SteeringTrial
from probes.identity import check_identity, replay_references
from probes.model.load import ChatModel
from probes.steer.generation import generate
from probes.steer.steering import steering
from probes.studies.framework.result import measured_of
from probes.studies.head_steering import report as heads_report
from probes.studies.head_steering.fine_tune import FineTunePlan
from probes.studies.head_steering.plan import Messages
from probes.studies.head_steering.verdict import (
    CHOSEN,
    FINE_TUNE,
    LAYER,
    OPPOSITE,
    PLAIN_NAME,
    PROBE_HEADS,
    RANDOM_DIRECTIONS,
    RANDOM_HEADS,
)
from tests.support.models.planted_head import PLANTED, letter_choices, planted_chat
from tests.support.models.studies import (
    HEADS_MESSAGES,
    HEADS_PLAN,
    HeadsStudy,
    letter_messages,
    mostly_misaligned,
    run_the_heads_study,
)
from tests.support.models.tiny import hook_count, untyped

PLAN = HEADS_PLAN
# Without the fine-tune, which a test has of its own.
QUICK: dict[str, Any] = {"fine_tune": None, "examples": ()}
# Every part of a study, as little of each as there can be.
SMALL = dataclasses.replace(
    PLAN,
    search=dataclasses.replace(PLAN.search, alphas=(2.0,), strongest=2, search_questions=4, keep=2, max_heads=1),
    layer_alphas=(1.0,),
    retest_questions=5,
    draws=1,
    open_draws=1,
    max_new_tokens=4,
    fine_tune=FineTunePlan(steps=5, batch=2),
    examples=(2,),
)
FILES = {"RESULT.json", "RESULT.md", "heads.png", "alpha.png", "letters.json", "letters.safetensors"}


def test_the_files_are_there_and_say_what_was_found(heads_study: HeadsStudy) -> None:
    out, found = heads_study.folder, heads_study.found
    assert hook_count(heads_study.chat.model) == hook_count(planted_chat(0).model)
    assert {p.name for p in out.iterdir() if p.is_file()} == FILES
    stored = json.loads((out / "RESULT.json").read_text())
    assert stored["verdict"] == found.verdict.as_dict()
    assert stored["figures"]["heads"][0]["site"] == str(PLANTED)
    assert stored["plan"]["seed"] == 0
    assert stored["model"]["subject"]["model"] == "planted-llama"
    assert stored["data"] == {"sha256": stored["data"]["sha256"], "search": 21, "retest": 15, "heldout": 24}
    table = (out / "RESULT.md").read_text()
    for name in (CHOSEN, OPPOSITE, LAYER, PROBE_HEADS, "random heads 4", "random directions 19", FINE_TUNE):
        assert f"| {name} |" in table


def test_no_file_holds_a_message_a_question_or_an_answer(heads_study: HeadsStudy) -> None:
    out, chat = heads_study.folder, heads_study.chat
    everything = "".join(p.read_text() for p in out.rglob("*") if p.suffix in (".json", ".md"))
    asked = [
        *HEADS_MESSAGES.select,
        *HEADS_MESSAGES.test,
        *HEADS_MESSAGES.benign,
        *(c.question for c in letter_choices(60)),
    ]
    prompts = [chat.render([{"role": "user", "content": t}]) for t in HEADS_MESSAGES.test]
    said = [a.text for a in generate(chat, prompts, max_new_tokens=8) if len(a.text) > 4]
    assert len(said) > 8
    assert not [text for text in asked + said if text in everything]


def test_both_signs_and_the_random_controls_do_what_they_should(heads_study: HeadsStudy) -> None:
    held_out = heads_study.found.result["heldout"]
    chosen, opposite = held_out[CHOSEN], held_out[OPPOSITE]
    assert chosen["effect"]["low"] > 1.0
    assert opposite["effect"]["high"] < -0.5
    assert chosen["wanted_change"]["low"] > 0.2
    for kind in (RANDOM_HEADS, RANDOM_DIRECTIONS):
        found = [f["effect"]["value"] for n, f in held_out.items() if n.startswith(kind)]
        # Of eleven other heads there are no twenty draws.
        assert len(found) == {RANDOM_HEADS: 11, RANDOM_DIRECTIONS: 20}[kind]
        assert max(found) < chosen["effect"]["low"]
    ranks = heads_study.found.result["ranks"]["heldout"]
    assert ranks[RANDOM_DIRECTIONS] == {"draws": 20, "as_much": 0, "p": pytest.approx(1 / 21)}
    assert ranks[RANDOM_HEADS]["p"] == pytest.approx(1 / 12)
    assert heads_study.found.verdict.label.works


def test_a_curve_over_alpha_stands_beside_its_coherence(heads_study: HeadsStudy) -> None:
    curve = heads_study.found.result["alpha_curve"]
    # The effect levels off and never falls: the grid goes on up to its bound.
    assert curve["alphas"] == [-0.5, -1.0, -2.0, -4.0, -6.4, -10.2]
    effects = [f["effect"]["value"] for f in curve["heldout"]]
    assert effects == sorted(effects)
    assert any("the effect still rises at alpha 10.2" in w for w in heads_study.found.verdict.warnings)
    for found in curve["open"]:
        assert found["nll"]["n"] == found["nll_unsteered"]["n"] == len(HEADS_MESSAGES.test)
        assert 0 <= found["repeated"]["value"] <= 1
        assert found["tokens"]["value"] <= 8
    changes = [f["change"] for f in curve["open"]]
    assert changes == sorted(changes)
    assert changes[0] > 0


def test_the_layer_vector_is_dosed_by_the_same_rule(heads_study: HeadsStudy) -> None:
    result = heads_study.found.result
    curve = result["layer_curve"]
    assert curve["sites"] == ["residual[1]"]
    strengths, effects = [abs(a) for a in curve["alphas"]], [f["effect"]["value"] for f in curve["heldout"]]
    assert strengths == sorted(strengths)
    assert strengths[:4] == [0.5, 1.0, 2.0, 4.0]
    # It ends where it falls, or at the bound of the search.
    assert effects[-1] < max(effects) or strengths[-1] * 1.6 > PLAN.search.strongest
    assert result["heldout"][LAYER]["effect"]["value"] in effects


def test_a_fine_tune_learns_the_choice_and_stands_beside_the_heads(heads_study: HeadsStudy) -> None:
    result = heads_study.found.result
    assert result["fine_tune"]["questions"] == result["data"]["search"] + result["data"]["retest"]
    assert result["fine_tune"]["learned"]
    assert result["fine_tune"]["comparable"] in ("yes", "no", "unsure")
    tuned = result["heldout"][FINE_TUNE]
    assert tuned["wanted_change"]["low"] > 0.3
    assert result["open"][FINE_TUNE]["behaviour"]["value"] < result["open"][PLAIN_NAME]["behaviour"]["value"]
    # The model that was studied is as it was.
    assert not any("lora" in name for name, _ in heads_study.chat.model.named_parameters())


def test_the_examples_curve_has_both_methods_at_every_number(heads_study: HeadsStudy) -> None:
    curve = heads_study.found.result["examples_curve"]
    assert [point["questions"] for point in curve] == [2, 8]
    for point in curve:
        assert point["fine_tune"]["questions"] == point["questions"]
        assert point["heldout"][CHOSEN]["wanted"]["n"] == point["heldout"][FINE_TUNE]["wanted"]["n"] == 24
    assert curve[-1]["heads"][0] == str(PLANTED)
    assert curve[-1]["heldout"][CHOSEN]["effect"]["low"] > 0.5


def test_what_was_found_in_one_form_is_asked_in_the_other(heads_study: HeadsStudy) -> None:
    other = heads_study.found.result["other_form"]
    assert other["form"] == "letters"
    assert set(other["heldout"]) == {PLAIN_NAME, CHOSEN, OPPOSITE, PROBE_HEADS, LAYER}
    # The letters of this model's answers are never in brackets.
    assert other["heldout"][PLAIN_NAME]["undefined"]["value"] > 0.8


def test_open_answers_follow_the_sign(heads_study: HeadsStudy) -> None:
    opened = heads_study.found.result["open"]
    assert opened[CHOSEN]["behaviour"]["value"] < opened[PLAIN_NAME]["behaviour"]["value"]
    assert opened[OPPOSITE]["behaviour"]["value"] >= opened[PLAIN_NAME]["behaviour"]["value"]
    # Without an adapter the base is the model in use.
    assert opened["base model"]["behaviour"] == opened[PLAIN_NAME]["behaviour"]


def test_the_probe_file_detects_fits_the_model_and_steers_away(heads_study: HeadsStudy) -> None:
    out, chat, found = heads_study.folder, heads_study.chat, heads_study.found
    probe = load_probe(out / "letters.json")
    check_identity(probe.card, chat)
    assert replay_references(probe, chat) <= probe.card.tolerance
    assert all(d.site.kind == "head" for d in probe.directions)
    report = probe.card.evaluation
    assert report["test"]["auroc"]["value"] > report["nulls"]["permuted"]["auroc_mean"]
    assert report["split"]["test"] == {"misaligned": 24, "aligned": 24}
    assert probe.card.calibration.n >= 20
    assert [str(i.direction.site) for i in probe.interventions] == [h["site"] for h in found.result["heads"]]
    assert all(i.strength < 0 and i.mode == "add" and i.positions == "last" for i in probe.interventions)
    prompts = [chat.render([{"role": "user", "content": t}]) for t in letter_messages("n", 20)]
    before = sum(mostly_misaligned(a.text) for a in generate(chat, prompts, max_new_tokens=8))
    with steering(chat, probe.interventions) as state:
        after = sum(mostly_misaligned(a.text) for a in generate(chat, prompts, max_new_tokens=8, steered=state))
    assert after < before


def test_the_report_can_be_made_again_from_the_json(heads_study: HeadsStudy, tmp_path: Path) -> None:
    out, chat = heads_study.folder, heads_study.chat
    stored = measured_of(json.loads((out / "RESULT.json").read_text()))
    heads_report.write(stored, (chat.layout.n_blocks, chat.layout.n_heads), tmp_path)
    assert (tmp_path / "RESULT.md").read_text() == (out / "RESULT.md").read_text()
    assert (tmp_path / "heads.png").stat().st_size > 1000
    with pytest.raises(DataError, match="cannot write"):
        heads_report.write(stored, (3, 4), tmp_path / "heads.png" / "in a file")


@pytest.mark.study
def test_towards_gives_a_recipe_that_still_steers_away(tmp_path: Path) -> None:
    search = dataclasses.replace(PLAN.search, aim="towards")
    found = run_the_heads_study(tmp_path, plan=dataclasses.replace(PLAN, search=search, draws=2, open_draws=1, **QUICK))
    assert found.result["alpha"] > 0
    margins = {n: found.result["heldout"][n]["margin"]["value"] for n in (CHOSEN, OPPOSITE)}
    assert margins[CHOSEN] > margins[OPPOSITE]
    assert all(part["alpha"] < 0 for part in found.result["recipe"])
    assert all(i.strength < 0 for i in found.probe.interventions)


@pytest.mark.study
def test_labels_thrown_by_a_coin_are_noise_and_give_no_recipe(tmp_path: Path) -> None:
    found = run_the_heads_study(tmp_path, choices=letter_choices(60, mixed=True))
    assert not found.verdict.label.works
    assert any("no head survived" in w for w in found.verdict.warnings)
    assert "no head survived" in str(found.verdict.warnings)
    assert found.probe.interventions == ()
    assert load_probe(found.probe_path).card.mitigation is None
    assert "No recipe" in (tmp_path / "RESULT.md").read_text()


class StopHereError(Exception):
    pass


@pytest.mark.study
@pytest.mark.parametrize("at", [3, 40])
def test_an_interrupted_study_resumes_and_ends_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    plan, few = SMALL, [PLANTED, Site("head", 0, 0), Site("head", 2, 1)]
    real = choice_scoring.likelihoods
    calls: list[int] = []

    def stops(
        chat: ChatModel, row: BinaryChoice, trials: Sequence[SteeringTrial], **settings: Any
    ) -> NDArray[np.float64]:
        calls.append(len(trials))
        if len(calls) > at:
            raise StopHereError
        return real(chat, row, trials, **settings)

    monkeypatch.setattr(choice_scoring, "likelihoods", stops)
    with pytest.raises(StopHereError):
        run_the_heads_study(tmp_path, plan=plan, heads=few)
    assert not (tmp_path / "RESULT.json").exists()
    done_before = sum(calls[:at])

    def counted(*args: Any, **settings: Any) -> NDArray[np.float64]:
        calls.append(len(args[2]))
        return real(*args, **settings)

    monkeypatch.setattr(choice_scoring, "likelihoods", counted)
    calls.clear()
    again = run_the_heads_study(tmp_path, plan=plan, heads=few)
    after = sum(calls)
    calls.clear()
    fresh = run_the_heads_study(tmp_path / "fresh", plan=plan, heads=few)
    assert after == sum(calls) - done_before + 1  # the check of the shared pass is made once a run
    assert without_time(again.result) == without_time(fresh.result)
    calls.clear()
    run_the_heads_study(tmp_path, plan=plan, heads=few)
    assert calls == []


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("created", "detector")}


@pytest.mark.study
def test_results_of_another_model_or_data_are_not_taken_over(tmp_path: Path) -> None:
    small = dataclasses.replace(PLAN, draws=1, open_draws=1, **QUICK)
    first = run_the_heads_study(tmp_path, plan=small)
    other = run_the_heads_study(tmp_path, chat=planted_chat(1), plan=small)
    assert len(list((tmp_path / "kept").iterdir())) == 6
    assert first.result["heldout"] != other.result["heldout"]


@pytest.mark.study
def test_damaged_results_are_measured_again_with_a_warning(tmp_path: Path) -> None:
    small = dataclasses.replace(PLAN, draws=1, open_draws=1, **QUICK)
    first = run_the_heads_study(tmp_path, plan=small)
    for path in list((tmp_path / "kept").rglob("*.json"))[:6]:
        path.write_text(path.read_text()[:20])
    again = run_the_heads_study(tmp_path, plan=small)
    assert any("were not whole" in w for w in again.verdict.warnings)
    assert again.result["heldout"] == first.result["heldout"]


@pytest.mark.parametrize(
    ("heads", "error", "said"),
    [
        ([Site("head", 0, 4)], SiteError, r"head\[0,4\] is not in this model"),
        ([Site("head", 3, 0)], SiteError, "blocks 0..2"),
        ([Site("residual", 1)], DataError, "is no head"),
        ([], DataError, "none given"),
    ],
)
def test_heads_that_are_not_there_are_an_error(
    tmp_path: Path, heads: list[Site], error: type[DataError] | type[SiteError], said: str
) -> None:
    with pytest.raises(error, match=said):
        run_the_heads_study(tmp_path, heads=heads)


@pytest.mark.study
def test_answers_of_the_other_form_are_not_taken_over(tmp_path: Path) -> None:
    """A trial's name stands for other directions there."""
    small = dataclasses.replace(PLAN, draws=1, open_draws=1, **QUICK)
    run_the_heads_study(tmp_path, plan=small)
    before = len(list((tmp_path / "kept").iterdir()))
    again = run_the_heads_study(tmp_path, plan=dataclasses.replace(small, form="letters"))
    assert again.result["form"]["used"] == "letters"
    # Open answers of the new directions, and those asked the other way round.
    assert len(list((tmp_path / "kept").iterdir())) == before + 2


@pytest.mark.study
def test_a_search_among_some_heads(tmp_path: Path) -> None:
    some = [PLANTED, Site("head", 0, 0), Site("head", 2, 1)]
    found = run_the_heads_study(tmp_path, plan=dataclasses.replace(PLAN, draws=1, open_draws=1, **QUICK), heads=some)
    assert set(found.result["search"]["singles"]) == {str(s) for s in some}


@pytest.mark.parametrize(
    ("n", "changed", "said"),
    [
        (60, {"interval": 0.1}, r"24 held-out questions, but a rate within \+-0.1 needs 104"),
        (60, {"heldout_questions": 9}, "9 held-out questions"),
        (60, {"interval": 0.0}, "not between 0 and 0.5"),
        (14, {"interval": 0.49}, "5 questions to search on"),
        (60, {"retest_questions": 2}, "2 to re-test"),
        (60, {"examples": (2, 40)}, r"examples: 40 questions asked for, but 36 are not held out"),
    ],
)
def test_too_few_questions_are_an_error_that_says_how_many(
    tmp_path: Path, n: int, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        run_the_heads_study(tmp_path, choices=letter_choices(n), plan=dataclasses.replace(PLAN, **changed))


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ((["a", "b"], ["b", "c"], letter_messages("b", 20)), "share some"),
        ((["a", "b"], ["c"], letter_messages("b", 20)), "at least 2"),
        ((["a", "b"], ["c", "d"], letter_messages("b", 19)), "20 in benign"),
    ],
)
def test_messages_that_cannot_be_used_are_an_error(lists: tuple[list[str], list[str], list[str]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Messages(*lists)


@pytest.mark.study
def test_a_model_that_cannot_write_a_letter_is_asked_by_likelihood(tmp_path: Path) -> None:
    found = run_the_heads_study(tmp_path, plan=dataclasses.replace(PLAN, form="auto", draws=1, open_draws=1, **QUICK))
    assert found.result["form"]["used"] == "likelihood"
    assert "0% of its answers name one letter" in found.result["form"]["why"]


@pytest.mark.study
def test_a_silent_head_is_a_warning_in_the_verdict(tmp_path: Path) -> None:
    chat = planted_chat(0)
    with torch.no_grad():
        untyped(chat.model).model.layers[0].self_attn.v_proj.weight[:12] = 0
    found = run_the_heads_study(tmp_path, chat, plan=dataclasses.replace(PLAN, draws=1, open_draws=1, **QUICK))
    assert "2 heads have no direction" in str(found.verdict.warnings)
    assert np.isnan([found.result["search"]["singles"].get("head[0,0]", float("nan"))]).all()
    assert set(found.result["search"]["skipped"]) == {"head[0,0]", "head[0,1]"}
