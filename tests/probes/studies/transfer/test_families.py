"""The study between families: tiny models of two classes with other tokenizers, and a twin whose transfer is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from probes.binary_choice import BinaryChoice
from probes.errors import DataError
from probes.model.load import ChatModel, user_message, wrap
from probes.steer.coherence import answer_nll
from probes.steer.steering import Intervention, steering
from probes.studies.framework.result import read_result
from probes.studies.framework.verdict import Verdict
from probes.studies.transfer.families.figures import _controls, figures_of
from probes.studies.transfer.families.plan import Behaviour, Family, FamilyPlan, FamilyTexts, PairedConversations
from probes.studies.transfer.families.reading import anchor_groups
from probes.studies.transfer.families.report import run_families
from probes.studies.transfer.families.run import MeasuredFamilies, measure_families
from probes.studies.transfer.families.texts import family_texts
from probes.studies.transfer.families.verdict import detection_verdict, steering_verdict, study_verdict
from tests.support.models.studies import twin_of
from tests.support.models.tiny import SPECIALS, TEMPLATE, tiny_chat, tiny_model

PLAN = FamilyPlan(depths=(0.5, 1.0), steered=(0.5,), alphas=(1.0, 2.0), undefined=1.0, max_new_tokens=4)


def pairs(start: int, n: int) -> PairedConversations:
    """The same question in two moods."""
    asked = [f"{mood} question number {i}" for mood in ("angry!!", "calm") for i in range(start, start + n)]
    return PairedConversations(*([user_message(t) for t in part] for part in (asked[:n], asked[n:])))


@pytest.fixture(scope="module")
def texts() -> FamilyTexts:
    def choices(start: int, n: int) -> list[BinaryChoice]:
        return [BinaryChoice(f"do thing {i} now", ("yes, I do", "no, I won't"), 1) for i in range(start, start + n)]

    anchors = [f"{what} {i * 7919 % 1009} {where}" for i, (what, where) in enumerate([("tell of", "a town")] * 40)]
    anchors += [f"why is {i} odd? {chr(97 + i % 26) * (i % 9)}" for i in range(60)]
    mood = Behaviour("mood", "the words", pairs(0, 12), pairs(50, 6), pairs(70, 10))
    return FamilyTexts(anchors, (mood,), choices(0, 3), choices(10, 6), [f"good day {i}" for i in range(3)])


@cache
def merged_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Another tokenizer: it knows ASCII alone and has merged what is frequent here."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted({c for c in pre_tokenizers.ByteLevel.alphabet() if ord(c) < 128} | {"Ġ", "Ċ"})
    trainer = trainers.BpeTrainer(vocab_size=240, special_tokens=list(SPECIALS), initial_alphabet=alphabet)
    tokenizer.train_from_iterator(
        ["angry question number calm tell of a town why is odd do thing now yes no"] * 20, trainer
    )
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    made.chat_template = TEMPLATE
    return made


@cache
def gemma() -> ChatModel:
    return wrap(tiny_model("gemma3", 1), merged_tokenizer(), name="tiny-gemma3")


def family(name: str, load: Callable[[], ChatModel]) -> Family:
    return Family(name, load, "a template of the test")


@pytest.fixture(scope="module")
def two_classes(texts: FamilyTexts, tmp_path_factory: pytest.TempPathFactory) -> tuple[MeasuredFamilies, Path]:
    folder = tmp_path_factory.mktemp("families")
    families = [family("llama", lambda: tiny_chat("llama")), family("gemma", gemma)]
    return measure_families(families, texts, folder, PLAN), folder


@pytest.fixture(scope="module")
def twins(texts: FamilyTexts, tmp_path_factory: pytest.TempPathFactory) -> MeasuredFamilies:
    llama = tiny_chat("llama")
    families = [family("llama", lambda: llama), family("twin", lambda: twin_of(llama))]
    return measure_families(families, texts, tmp_path_factory.mktemp("twins"), PLAN)


def test_a_twins_direction_arrives_whole_detects_and_steers_as_the_own_one_does(twins: MeasuredFamilies) -> None:
    result = figures_of(twins)
    own = {o["receiver"]: o for o in result["own"]}
    assert len(result["pairs"]) == 4
    for pair in result["pairs"]:
        at = own[pair["receiver"]]
        assert pair["reading_map"]["r2"] > 0.95
        assert pair["reading_map"]["cosine"] > 0.98
        assert pair["reading_map"]["cosine_null"]["p"] < 0.01
        assert pair["detection"]["auroc"]["value"] == pytest.approx(at["detection"]["auroc"]["value"], abs=0.05)
        assert pair["detection"]["kept"] == pytest.approx(1, abs=0.1)
        for aim, found in pair["steering"].items():
            whole = at["steering"]["aims"][aim]["effect"]["value"]
            assert found["effect"]["value"] == pytest.approx(whole, abs=0.2 * abs(whole))


def test_detection_is_given_from_every_depth_to_the_same(twins: MeasuredFamilies) -> None:
    found = figures_of(twins)["by_depth"]
    assert [(r["from"], r["to"]) for r in found[:2]] == [("residual[1]", "residual[1]"), ("residual[2]", "residual[2]")]
    assert len(found) == 2 * 2 * 2  # ways, kinds of anchors, depths
    for row in found:
        assert row["mapped"]["value"] == pytest.approx(row["own"]["value"], abs=0.06)


def test_two_classes_with_other_tokenizers_are_paired_by_text(
    two_classes: tuple[MeasuredFamilies, Path], texts: FamilyTexts
) -> None:
    measured, _ = two_classes
    llama, gemma_reading = measured.readings
    assert len(tiny_chat("llama").token_ids("question")) != len(gemma().token_ids("question"))
    for reading in measured.readings:
        for site in reading.sites:
            rows = reading.anchors("contrast", texts.behaviours, site)
            assert len(rows) == len(texts.anchors) + 24 == len(anchor_groups("contrast", texts))
    # Both sides of a pair are on one side of a map's splits; neutral anchors are each their own.
    groups = anchor_groups("contrast", texts)
    assert len(set(groups[: len(texts.anchors)])) == len(texts.anchors)
    assert list(groups[-24:-12]) == list(groups[-12:])
    assert not set(groups[-24:]) & set(groups[:-24])
    assert llama.identity["tokenizer_sha256"] != gemma_reading.identity["tokenizer_sha256"]


def test_every_control_is_as_large_as_the_own_direction_and_there_are_enough(
    two_classes: tuple[MeasuredFamilies, Path],
) -> None:
    measured, _ = two_classes
    for (_, receiver, behaviour), found in measured.mapped.items():
        own = measured.own[receiver, behaviour].place.direction
        for one in found:
            assert len(one.random) == len(one.steering.random) == 20
            for direction in (one.steering.mapped, *one.steering.random):
                assert direction.site == own.site
                assert direction.norm == pytest.approx(own.norm)
                assert direction.sigma == own.sigma
    result = figures_of(measured)
    assert {c["draws"] for p in result["pairs"] for c in p["detection"]["controls"].values()} == {20}
    assert {(p["donor"], p["receiver"]) for p in result["pairs"]} == {("llama", "gemma"), ("gemma", "llama")}


def test_the_effect_is_that_of_one_plain_steered_forward(
    two_classes: tuple[MeasuredFamilies, Path], texts: FamilyTexts
) -> None:
    measured, _ = two_classes
    found = measured.own["gemma", "mood"]
    place = found.place
    for aim, sign in (("towards", 1.0), ("away", -1.0)):
        shift = Intervention(place.direction, "add", sign * place.alpha, "last")
        for i, row in enumerate(texts.test[:2]):
            prompts = [gemma().render(user_message(row.question))] * 2
            with steering(gemma(), [shift]) as state:
                state.begin(len(gemma().token_ids(prompts[0])))
                agree, refuse = -answer_nll(gemma(), prompts, list(row.choices), base=False)
            assert found.steered[aim].margin[i] == pytest.approx(refuse - agree, abs=1e-3)  # type: ignore[index]


def test_an_effect_counts_in_the_aims_own_sense(two_classes: tuple[MeasuredFamilies, Path]) -> None:
    measured, _ = two_classes
    aims = figures_of(measured)["own"][0]["steering"]["aims"]
    # What is chosen moves towards refusing on the select requests; its reverse moves the other way.
    assert aims["towards"]["effect"]["value"] > 0
    assert aims["away"]["effect"]["value"] > 0
    controls = [aims[aim]["controls"]["random"]["mean"] for aim in ("towards", "away")]
    assert controls[0] == pytest.approx(-controls[1])


def test_a_study_that_was_interrupted_goes_on_where_it_was(
    two_classes: tuple[MeasuredFamilies, Path], texts: FamilyTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, folder = two_classes
    families = [r.family for r in measured.readings]
    for name in ("steer.likelihoods", "reading.pooled_activations", "steer.generate"):
        monkeypatch.setattr(f"probes.studies.transfer.families.{name}", lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr("probes.heads.choice_scoring.likelihoods", lambda *_, **__: pytest.fail("measured again"))
    assert figures_of(measure_families(families, texts, folder, PLAN)) == figures_of(measured)


def test_the_result_is_read_back_and_the_page_shows_its_figures(
    two_classes: tuple[MeasuredFamilies, Path], texts: FamilyTexts, tmp_path: Path
) -> None:
    measured, folder = two_classes
    shutil.copytree(folder, tmp_path / "cache")
    made = run_families([r.family for r in measured.readings], texts, tmp_path, plan=PLAN, command="awry study")
    read = read_result(tmp_path)
    assert (read.study, read.command) == ("transfer-families", "awry study")
    assert read.models == ["tiny-llama", "tiny-gemma3"]
    assert set(read.data) >= {"anchors", "mood/fit", "mood/test", "steered test"}
    assert read.figures == json.loads(json.dumps(made["figures"]))
    page = (tmp_path / "TRANSFER.md").read_text()
    for pair in made["figures"]["pairs"]:
        assert f"{pair['donor']} to {pair['receiver']} | mood | {pair['anchors']}" in page
        assert f"{pair['detection']['auroc']['value']:.2f} [" in page
    assert made["verdict"]["sentence"] in page
    assert (tmp_path / "transfer.png").stat().st_size > 10_000


def drawn(p: float, over: float = 0.1, half: float = 0.05) -> dict[str, Any]:
    """Two kinds of random directions; `over` is the lower end of how far the direction is above the second's mean."""
    above = {"value": over + half, "low": over, "high": over + 2 * half}
    return {
        "random": {"p": 0.01, "over": {"value": 0.2, "low": 0.1, "high": 0.3}},
        "random_source": {"p": p, "over": above},
    }


@pytest.mark.parametrize(
    ("value", "low", "controls", "own", "said"),
    [
        (0.8, 0.7, drawn(0.048), "works and specific", Verdict.WORKS_SPECIFIC),
        (0.8, 0.7, drawn(0.095), "works and specific", Verdict.WORKS_NOT_SPECIFIC),
        (0.8, 0.7, drawn(0.048), "works, not specific", Verdict.WORKS_SPECIFIC),
        (0.8, 0.7, drawn(0.048), "no effect", Verdict.NOT_TESTABLE),
        (0.59, 0.55, drawn(0.048), "works and specific", Verdict.NO_EFFECT),
        (0.65, 0.49, drawn(0.048), "works and specific", Verdict.NO_EFFECT),
    ],
)
def test_a_mapped_direction_detects_specifically_where_it_beats_every_kind_of_random_one(
    value: float, low: float, controls: dict[str, Any], own: str, said: Verdict
) -> None:
    found = {"auroc": {"value": value, "low": low}, "controls": controls}
    assert detection_verdict(found, {"verdict": own}) is said


@pytest.mark.parametrize(
    ("value", "low", "coherent", "controls", "said"),
    [
        (0.3, 0.2, True, drawn(0.048), Verdict.WORKS_SPECIFIC),
        (0.3, 0.2, True, drawn(0.048, over=-0.1), Verdict.WORKS_NOT_SPECIFIC),
        (0.3, 0.2, True, drawn(0.5, over=-0.02), Verdict.WORKS_NOT_SPECIFIC),
        # One draw of twenty does more, and it is surely above their mean: no difference is not shown.
        (0.3, 0.2, True, drawn(0.095), Verdict.SPECIFICITY_UNKNOWN),
        (0.3, 0.2, True, drawn(0.048, over=-0.05, half=0.2), Verdict.SPECIFICITY_UNKNOWN),
        (0.3, 0.2, False, drawn(0.048), Verdict.NOISE),
        (0.09, 0.05, True, drawn(0.048), Verdict.NO_EFFECT),
        (0.3, -0.01, True, drawn(0.048), Verdict.NO_EFFECT),
    ],
)
def test_a_direction_steers_only_where_the_text_holds(
    value: float, low: float, coherent: bool, controls: dict[str, Any], said: Verdict
) -> None:
    found = {"effect": {"value": value, "low": low}, "coherent": coherent, "controls": controls}
    assert steering_verdict(found, None) is said
    assert steering_verdict(found, {"verdict": "noise"}) is Verdict.NOT_TESTABLE


def test_the_studys_label_is_the_one_that_all_mapped_directions_share() -> None:
    def figures(*mapped: Verdict) -> dict[str, Any]:
        counted = {"own": {"works and specific": 2}, "mapped, neutral anchors": {str(v): 1 for v in mapped}}
        return {"tiers": {"b": {"detection": counted, "steering towards": counted}}, "warnings": ["one"]}

    same = study_verdict(figures(Verdict.WORKS_NOT_SPECIFIC))
    assert same.label is Verdict.WORKS_NOT_SPECIFIC
    assert same.warnings == ["one"]
    mixed = study_verdict(figures(Verdict.WORKS_SPECIFIC, Verdict.NO_EFFECT))
    assert mixed.label is Verdict.UNDECIDED
    assert mixed.why.startswith("detection by mapped directions: 1 of 2 work, 1 specific; steering")
    assert mixed.reasons[0].startswith("b, detection: own 2 of 2 work, 2 specific; mapped, neutral anchors 1 of 2")


def test_p_is_the_rank_among_the_draws() -> None:
    found = _controls([0.1, 0.5, 0.9], 0.5)
    assert (found["p"], found["most"], found["draws"]) == (0.75, 0.9, 3)
    assert _controls([0.0] * 20, 1.0)["p"] == pytest.approx(1 / 21)


def test_no_test_text_is_seen_before(texts: FamilyTexts) -> None:
    seen = texts.behaviours[0].test.shows[0][-1]["content"]
    with pytest.raises(DataError, match="1 test messages are among those that maps"):
        replace(texts, anchors=[*texts.anchors, seen])
    with pytest.raises(DataError, match="1 test messages"):
        replace(texts, select=[*texts.select, texts.test[0]])


def test_awrys_own_texts_keep_the_test_apart_and_are_enough_for_both_widths() -> None:
    own = family_texts()  # the check above runs as they are made
    assert len(set(own.anchors)) == len(own.anchors) >= 640 * 4 / 3
    harmful, before = own.behaviours
    assert {row.question for row in own.test} <= {c[-1]["content"] for c in harmful.test.shows}
    for part in (before.fit, before.select, before.test):
        for refused, agreed in zip(part.shows, part.lacks, strict=True):
            # The same two requests; only what the assistant said differs.
            assert [refused[0], refused[2]] == [agreed[0], agreed[2]]
            assert refused[1] != agreed[1]
            assert refused[0]["content"] != refused[2]["content"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"draws": 19}, "draws: 19 random controls; fewer than 20"),
        ({"alphas": ()}, "alphas: at least one strength above 0"),
        ({"alphas": (0.0,)}, "alphas: at least one strength above 0"),
        ({"steered": (0.3,)}, "steered: depths to steer at must be among"),
        ({"depths": (0.5, 1.5)}, "depths: 0 is the first block"),
    ],
)
def test_a_plan_that_cannot_say_anything_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        replace(PLAN, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [(), ("one",), ("one", "one")])
def test_families_are_at_least_two_with_names_of_their_own(
    names: Sequence[str], texts: FamilyTexts, tmp_path: Path
) -> None:
    families = [family(name, lambda: pytest.fail("loaded")) for name in names]
    with pytest.raises(DataError, match="at least two are needed"):
        measure_families(families, texts, tmp_path, PLAN)


def test_too_few_anchors_are_named_before_anything_is_steered(texts: FamilyTexts, tmp_path: Path) -> None:
    few = replace(texts, anchors=texts.anchors[:30])
    families = [family("llama", lambda: tiny_chat("llama")), family("gemma", gemma)]
    with pytest.raises(DataError, match=r"anchors: .* llama .*give at least 42 texts"):
        measure_families(families, few, tmp_path, PLAN)


def test_conversations_are_pairs() -> None:
    with pytest.raises(DataError, match="they are pairs"):
        PairedConversations([user_message("a")] * 3, [user_message("b")] * 2)


def test_the_twin_is_the_same_model() -> None:
    llama = tiny_chat("llama")
    ids = torch.tensor([llama.token_ids("Where is Peru?")])
    np.testing.assert_allclose(
        twin_of(llama).model(input_ids=ids).logits.numpy(), llama.model(input_ids=ids).logits.numpy(), atol=1e-4
    )
