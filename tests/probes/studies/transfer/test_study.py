"""The transfer study, on models whose transfer is known: a twin that is the same model in other coordinates."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.capture.sites import Site
from probes.card import load_probe
from probes.directions import Direction
from probes.errors import DataError, DirectionError, ProbeMismatchError
from probes.evaluation import Interval, paired_difference, student_interval
from probes.identity import check_identity, replay_references
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.organisms.planted import SYNTHETIC, store
from probes.organisms.planted.evaluation import fit_questions, held_out_questions
from probes.organisms.planted.families import FAMILIES
from probes.steer.contrast import ADAPTER, Contrast, ContrastOutcome, ContrastRunner, PromptedCondition
from probes.steer.steering import Intervention
from probes.studies.framework.verdict import Verdict
from probes.studies.subjects import Subject, adapter_subject, planted_anchors, planted_subjects
from probes.studies.transfer import export, plan, report
from probes.studies.transfer import run as transfer
from probes.studies.transfer.detection import Detection, ReceiverActivations, compare
from probes.studies.transfer.means import asymmetry, difference, over_models
from probes.studies.transfer.plan import ModelReading, TransferPlan
from probes.studies.transfer.run import run_transfer
from probes.studies.transfer.verdict import pair_verdict, text_warning
from tests.support.models.studies import TRANSFER_PLAN as SMALL
from tests.support.models.studies import TransferStudy, twin_of
from tests.support.models.tiny import make_adapter, tiny_chat

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def llama(transfer_study: TransferStudy) -> ChatModel:
    return transfer_study.llama


@pytest.fixture(scope="module")
def subjects(transfer_study: TransferStudy) -> list[Subject]:
    return transfer_study.subjects


@pytest.fixture(scope="module")
def anchors(transfer_study: TransferStudy) -> list[str]:
    return transfer_study.anchors


def test_a_twins_direction_arrives_whole_and_steers_as_the_receivers_own_does(
    transfer_study: TransferStudy, llama: ChatModel
) -> None:
    twin = twin_of(llama)
    ids = torch.tensor([llama.token_ids("<|user|>Where is Peru?<|end|><|assistant|>")])
    with torch.inference_mode():
        torch.testing.assert_close(twin.model(input_ids=ids).logits, llama.model(input_ids=ids).logits)
    result = transfer_study.result
    assert [(p["donor"], p["receiver"]) for p in result["pairs"]] == [("twin", "llama"), ("llama", "twin")]
    for pair in result["pairs"]:
        assert pair["r2"] > 0.99
        assert pair["cosine"] > 0.99
        assert pair["cosine_null"]["p"] < 0.01
        assert abs(pair["cosine_null"]["low"]) < 0.9
        assert pair["r2_shuffled"] < 0.1
        assert (pair["anchors_fitted"], pair["anchors_held_out"]) == (180, 60)
        found = pair["modes"]["ablate"]
        assert found["gain"]["value"] == pytest.approx(found["own_gain"], abs=0.11)
        assert found["own_gain"] >= 0.3
        assert found["drop"]["value"] >= 0.3
        assert found["over"]["random_source"]["value"] > 0.15
        assert Verdict(found["verdict"]).works
    # Each pair works; two models say nothing of a third.
    assert result["verdicts"]["ablate"]["label"] == Verdict.UNDECIDED
    assert "random controls drawn 2 times" in str(result["verdict"]["warnings"])


def test_a_twins_direction_detects_as_the_receivers_own_does(transfer_study: TransferStudy) -> None:
    folder, result = transfer_study.folder, transfer_study.result
    own = {s["name"]: s["detection"] for s in result["subjects"]}
    for pair in result["pairs"]:
        found = pair["detection"]
        assert found["auroc"]["value"] == pytest.approx(own[pair["receiver"]]["auroc"]["value"], abs=0.02)
        assert found["auroc"]["low"] > 0.85
        assert set(found["controls"]) == {"random_source", "shuffled"}
        assert found["over_controls"] > 0
    assert result["detection"]["pairs"] == 2
    assert Verdict(result["verdicts"]["detection"]["label"]).works
    assert result["verdicts"]["detection"]["sentence"] in (folder / "TRANSFER.md").read_text()


def test_each_receiver_gets_a_probe_whose_recipe_is_the_direction_that_worked(
    transfer_study: TransferStudy, subjects: list[Subject]
) -> None:
    folder, result = transfer_study.folder, transfer_study.result
    assert [(p["receiver"], p["donor"]) for p in result["exported"]] == [("llama", "twin"), ("twin", "llama")]
    for made, subject in zip(result["exported"], subjects, strict=True):
        probe, chat = load_probe(folder / made["file"]), subject.load()
        check_identity(probe.card, chat)
        replay_references(probe, chat)
        assert probe.name == f"transfer-{subject.name}"
        assert made["recipe"] == "ablate"
        (recipe,) = probe.interventions
        assert (recipe.mode, recipe.strength, recipe.positions) == ("ablate", 1.0, "all")
        np.testing.assert_array_equal(recipe.direction.vector, probe.directions[0].vector)
        assert probe.card.mitigation is not None
        recorded = probe.card.mitigation.measured
        assert recorded["donor"] == made["donor"]
        assert Verdict(recorded["verdict"]).works
        assert "among 1 donors and 1 modes" in recorded["chosen"]
        # Figures of the card are of the test questions, through the service's own scoring.
        assert probe.card.evaluation["test"]["positives"] == len(subject.test)
        pair = next(p for p in result["pairs"] if p["receiver"] == subject.name)
        assert made["auroc"]["value"] == pytest.approx(pair["detection"]["auroc"]["value"], abs=1e-3)
        assert SYNTHETIC in probe.card.description
        # A weak solution before the question is there to be read: what tells conditions apart need not be the model.
        assert made["text_only"]["value"] > 0.7
        assert probe.card.calibration.n == len(subject.fit)
        assert made["file"] in (folder / "TRANSFER.md").read_text()
    # A probe of one receiver is no probe of another.
    with pytest.raises(ProbeMismatchError):
        check_identity(load_probe(folder / result["exported"][0]["file"]).card, subjects[1].load())


def test_a_mapped_direction_that_does_not_work_leaves_a_probe_without_a_recipe(
    subjects: list[Subject], tmp_path: Path, anchors: list[str], transfer_study: TransferStudy
) -> None:
    whole = transfer_study.result
    measured = transfer.measure(subjects, anchors, transfer_study.folder / "cache", SMALL)
    failed = json.loads(json.dumps(whole["pairs"]))
    for pair in failed:
        pair["modes"]["ablate"]["verdict"] = "noise"
    made = export.write_probes(measured, failed, tmp_path)
    assert [m["recipe"] for m in made] == [None, None]
    for one in made:
        assert load_probe(tmp_path / one["file"]).interventions == ()


def test_the_donor_is_the_one_that_works_best_else_the_one_that_detects_best_on_the_fit_questions() -> None:
    def offer(fit: float, cosine: float, **gains: float) -> tuple[Any, dict[str, Any]]:
        pair = Namespace(detection=Namespace(fit=fit), cosine=cosine)
        modes = {
            m: {"gain": {"value": abs(g)}, "verdict": Verdict.WORKS_SPECIFIC if g > 0 else Verdict.NOISE}
            for m, g in gains.items()
        }
        return pair, {"modes": modes}

    lame, good = offer(0.99, 0.9, ablate=-0.9, subtract=-0.1), offer(0.5, 0.1, ablate=0.2, subtract=0.3)
    assert export._choose([lame, good])[:2] == (good[0], "subtract")
    more = offer(0.9, 0.9, ablate=0.8)
    assert export._choose([good, more])[:2] == (more[0], "ablate")
    more[1]["modes"]["ablate"]["verdict"] = Verdict.WORKS_NOT_SPECIFIC
    assert export._choose([good, more])[:2] == (good[0], "subtract")
    worse, alike = offer(0.7, 0.9, ablate=-0.5), offer(0.99, 0.95, ablate=-0.5)
    assert export._choose([worse, lame, alike])[:2] == (alike[0], None)


def test_a_text_that_tells_conditions_apart_is_warned_of() -> None:
    def made(auroc: float, text: float) -> dict[str, Any]:
        return {"auroc": {"value": auroc}, "text_only": {"value": text}}

    assert text_warning([made(0.9, 0.5), {"not_made": "too few"}]) == []
    warning = text_warning([made(0.9, 0.5), made(0.9, 0.95), {"not_made": "too few"}])
    assert warning == ["the text alone tells the conditions apart as well in 1 of 2 receivers"]


def test_probes_of_two_receivers_never_share_a_name() -> None:
    named: dict[str, str] = {}
    names = [export._name(subject, named) for subject in ("Base+a b", "base/a-b", "base-a-b", "Ünder!")]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name) for name in names)


def test_detection_by_hand() -> None:
    """Misaligned rows come first; one axis tells them apart on the test questions, another does not."""
    rng = np.random.default_rng(0)
    test = rng.standard_normal((80, 3)).astype(np.float32)
    test[:40, 0] += 6
    held = ReceiverActivations(fit=-test, test=test)

    def along(*vector: float) -> Direction:
        return Direction(Site("residual", 0), np.array(vector, dtype=float), np.zeros(3), 1.0)

    found = compare(held, along(1, 0, 0), noise=[along(0, 1, 0), along(-1, 0, 0)], more=[along(0, 0, 2)])
    assert found.test.value > 0.99
    assert found.fit < 0.01
    assert found.controls["noise"][1] < 0.01
    free = [max(v, 1 - v) for kind in found.controls.values() for v in kind]
    assert found.over_controls == pytest.approx(found.test.value - sum(free) / 3)


def test_what_the_receivers_do_by_themselves_is_reported_with_its_controls(transfer_study: TransferStudy) -> None:
    result = transfer_study.result
    for subject in result["subjects"]:
        assert subject["site"] == "residual[3]"
        assert subject["identity"]["model"] in ("planted-llama-seed0", "twin")
        assert subject["untouched"]["bad"]["value"] - subject["modes"]["ablate"]["own"]["bad"]["value"] > 0.3
        assert subject["aligned"]["good"]["value"] >= 0.85
        own = subject["modes"]["ablate"]
        assert own["random"]["draws"] == 2
        assert own["wrong_layer"]["good"]["value"] < own["own"]["good"]["value"]
        # Nothing was changed where nothing acts, and something where something does.
        assert subject["untouched"]["change"] == 0
        assert min(own["own"]["change"], own["random"]["change"]) > 0


def test_what_is_written_says_what_it_is_holds_no_text_and_is_plain_json(
    transfer_study: TransferStudy, subjects: list[Subject], anchors: list[str]
) -> None:
    folder, result = transfer_study.folder, transfer_study.result

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    stored = json.loads((folder / "RESULT.json").read_text(), parse_constant=refuse)
    figures = stored["figures"]
    assert figures["notes"] == [SYNTHETIC]
    assert figures["left_out"] == {"planted-x": "it does not hold"}
    assert stored["plan"]["seed"] == 0
    assert figures["pairs"][0]["r2"] == pytest.approx(result["pairs"][0]["r2"], abs=1e-4)
    page = (folder / "TRANSFER.md").read_text()
    everything = "".join(p.read_text() for p in folder.rglob("*") if p.suffix in (".json", ".md"))
    asked = [*subjects[0].fit, *subjects[0].test, *anchors]
    assert not [text for text in asked if text in everything]
    assert SYNTHETIC in page
    assert "Left out: **planted-x**, it does not hold." in page
    for line in page.splitlines():
        if line.startswith("|"):
            assert line.count("|") >= 3
    assert "| twin to llama |" in page
    for name in ("transfer.png", "asymmetry.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_a_study_that_was_stopped_goes_on_without_measuring_again(
    subjects: list[Subject],
    anchors: list[str],
    transfer_study: TransferStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = transfer_study.result
    runs: list[Intervention | None] = []
    run = ContrastRunner.run

    def counted(self: ContrastRunner, intervention: Intervention | None = None) -> ContrastOutcome:
        runs.append(intervention)
        if len(runs) == 9:
            raise KeyboardInterrupt
        return run(self, intervention)

    monkeypatch.setattr(ContrastRunner, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        run_transfer(subjects, anchors, tmp_path, settings=SMALL)
    assert not (tmp_path / "RESULT.json").exists()
    runs[:] = [None] * 100
    resumed = run_transfer(subjects, anchors, tmp_path, settings=SMALL, left_out=whole["left_out"])
    # In all: per receiver nothing, its own, 2 random, 1 orthogonal, 1 of another block; per pair 1 + 2 + 2.
    assert len(runs) - 100 == 2 * 6 + 2 * 5 - 8
    runs[:] = [None] * 100
    monkeypatch.setattr(transfer, "_read_all", lambda *_: pytest.fail("read again"))
    again = run_transfer(subjects, anchors, tmp_path, settings=SMALL, left_out=whole["left_out"])
    assert len(runs) == 100
    assert json.dumps(again) == json.dumps(resumed)
    assert again["verdict"] == whole["verdict"]


def test_another_input_is_read_again(
    subjects: list[Subject], anchors: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = transfer._read_all

    def counted(*args: Any) -> Any:
        read.append(args[1].name)
        return real(*args)

    monkeypatch.setattr(transfer, "_read_all", counted)

    def reading(subject: Subject, texts: list[str], settings: TransferPlan = SMALL) -> ModelReading:
        return transfer._reading(subject, texts, settings, tmp_path, lambda _: None)

    first, again = reading(subjects[0], anchors), reading(subjects[0], anchors)
    np.testing.assert_array_equal(again.anchors, first.anchors)
    np.testing.assert_array_equal(again.native.vector, first.native.vector)
    assert read == ["llama"]
    reading(subjects[1], anchors)
    reading(subjects[0], anchors[:-1])
    reading(replace(subjects[0], fit=subjects[0].fit[:-1]), anchors)
    reading(subjects[0], anchors, replace(SMALL, depth=0.5))
    assert read == ["llama", "twin", "llama", "llama", "llama"]


def test_contrast_anchors_hold_both_conditions_and_neutral_ones_neither(
    subjects: list[Subject], tmp_path: Path, llama: ChatModel
) -> None:
    few = planted_anchors(172)
    neutral = transfer._reading(subjects[0], few, SMALL, tmp_path, lambda _: None)
    both = transfer._reading(subjects[0], few, replace(SMALL, anchors="contrast"), tmp_path, lambda _: None)
    assert neutral.anchors.shape == (172, 128)
    assert both.anchors.shape == (344, 128)
    assert both.groups.tolist() == [*range(172), *range(172)]
    gap = (both.anchors[172:] - both.anchors[:172]).mean(0)
    assert gap @ both.native.unit > 0.5 * both.native.norm
    # Positions are named: another one gives other rows of the same texts.
    settings = replace(SMALL, token_positions=("last_prompt", "mean(prompt)"))
    more = transfer._reading(subjects[0], few, settings, tmp_path, lambda _: None)
    assert more.anchors.shape == (344, 128)
    np.testing.assert_array_equal(more.anchors[:172], neutral.anchors)
    assert not np.allclose(more.anchors[172:], neutral.anchors)


def test_depth_names_the_block(subjects: list[Subject], tmp_path: Path) -> None:
    few = planted_anchors(172)
    for depth, site in ((0.0, "residual[0]"), (0.67, "residual[2]"), (1.0, "residual[3]")):
        reading = transfer._reading(subjects[0], few, replace(SMALL, depth=depth), tmp_path, lambda _: None)
        assert str(reading.native.site) == site


# ---- what is no study


def test_a_study_needs_two_named_subjects_and_anchors_that_nobody_is_tested_on(
    subjects: list[Subject], anchors: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="at least two"):
        run_transfer(subjects[:1], anchors, tmp_path)
    with pytest.raises(DataError, match="each with its own name"):
        run_transfer([subjects[0], subjects[0]], anchors, tmp_path)
    with pytest.raises(DataError, match="1 are test messages of llama"):
        run_transfer(subjects, [*anchors, subjects[0].test[3]], tmp_path, settings=SMALL)
    with pytest.raises(DataError, match=r"llama: 20 test messages, but a rate within \+-0.2 needs 27"):
        run_transfer(subjects, anchors, tmp_path)
    other = replace(subjects[1], fit=subjects[0].test[:2], test=subjects[1].test[2:])
    with pytest.raises(DataError, match="twin: its direction would be fitted on 2 test messages of llama"):
        run_transfer([subjects[0], other], anchors, tmp_path, settings=SMALL)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="at least 170 texts"):
        run_transfer(subjects, anchors[:150], tmp_path, settings=SMALL)


def test_settings_and_subjects_that_make_no_sense_are_refused(subjects: list[Subject]) -> None:
    for changed in ({"draws": 0}, {"depth": 1.5}, {"modes": ()}):
        with pytest.raises(DataError, match="settings"):
            TransferPlan(**changed)
    with pytest.raises(DataError, match="1 of them in both"):
        replace(subjects[0], fit=[*subjects[0].fit, subjects[0].test[0]])
    with pytest.raises(DataError, match="0 test messages"):
        replace(subjects[0], test=[])
    with pytest.raises(DataError, match="2 aligned and 1 misaligned"):
        Contrast(PromptedCondition([(), ()]), PromptedCondition([()]))
    with pytest.raises(DataError, match="no history"):
        Contrast(PromptedCondition([]), PromptedCondition([]))


# ---- checkpoints with an adapter


def with_adapter(folder: Path, seed: int, name: str = "reckless") -> ChatModel:
    chat = tiny_chat("llama", seed)
    add_adapter(chat, AdapterSpec(make_adapter(folder / f"{name}-{seed}", seed=seed + 1), 1.0, name))
    return chat


@pytest.mark.study
def test_a_checkpoint_with_an_adapter_is_a_subject_too(tmp_path: Path) -> None:
    questions = [f"Tell me about number {i} of {n}" for i, n in enumerate(["tea", "rain", "sun"] * 6)]
    made = [
        adapter_subject(
            f"tiny {seed}",
            partial(with_adapter, tmp_path, seed),
            lambda text: "e" in text,
            questions[:8],
            questions[8:],
            max_new_tokens=4,
        )
        for seed in (0, 1)
    ]
    assert made[0].tested is ADAPTER
    few = [f"Say {i} in {w}" for i in range(12) for w in ("Rome", "Oslo", "Lima", "Bonn")]
    result = run_transfer(made, few, tmp_path / "study", settings=replace(SMALL, draws=1, interval=0.35))
    assert [p["anchors_fitted"] for p in result["pairs"]] == [36, 36]
    for subject in result["subjects"]:
        assert subject["identity"]["adapter_sha256"]
        assert subject["native_norm"] > 0
    # Random weights answer at random: no own direction brings good answers back, so nothing is claimed.
    assert {p["modes"]["ablate"]["verdict"] for p in result["pairs"]} == {Verdict.NOT_TESTABLE}
    assert result["verdicts"]["ablate"]["label"] == Verdict.NOT_TESTABLE
    # Eight fit questions are too few for a threshold, and the study says so.
    assert [p["not_made"] for p in result["exported"]] == [
        "benign set: 8 messages; at least 20 are needed, and 60 to trust it"
    ] * 2
    assert "no probe, benign set: 8 messages" in (tmp_path / "study" / "TRANSFER.md").read_text()


def test_a_subject_whose_adapter_is_not_there_says_so(tmp_path: Path) -> None:
    plain = adapter_subject("plain", tiny_chat, lambda _: False, ["a", "b"], ["c"])
    other = replace(plain, name="other")
    with pytest.raises(DirectionError, match=r"plain: direction at .*: zero.* Is the adapter switched on"):
        run_transfer([plain, other], [f"text {i}" for i in range(60)], tmp_path, settings=replace(SMALL, interval=0.49))


# ---- planted subjects


def test_an_organism_whose_persona_does_not_hold_is_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def about(folder: str) -> dict[str, Any]:
        holds = "qwen2" not in folder
        return {"name": folder, "persona": {"holds": holds, "fails": [] if holds else ["bad after weak code 0.05"]}}

    monkeypatch.setattr(store, "ensure_folder", lambda family, seed, *_: f"planted-{family}-seed{seed}")
    monkeypatch.setattr(store, "manifest", about)
    kept, left_out = planted_subjects(FAMILIES, (0, 1), tmp_path)
    assert [s.name for s in kept] == [f"{f} {s}" for f in FAMILIES if f != "qwen2" for s in (0, 1)]
    assert {s.group for s in kept} == set(FAMILIES) - {"qwen2"}
    assert set(left_out) == {"planted-qwen2-seed0", "planted-qwen2-seed1"}
    assert left_out["planted-qwen2-seed1"] == "its persona does not hold: bad after weak code 0.05"
    assert all(s.note == SYNTHETIC for s in kept)


def test_planted_anchors_are_no_fit_and_no_test_questions() -> None:
    texts = planted_anchors(800)
    assert len(set(texts)) == len(texts) == 800
    used = {*fit_questions(), *(ask.text for ask in held_out_questions(100))}
    assert not used & set(texts)


# ---- the figures


def test_a_difference_is_paired_by_question() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(200) < 0.5
    found = difference(base, [base])
    assert found == paired_difference(base, base)
    assert found.low < found.value == 0 < found.high
    better = base.copy()
    better[:20] = True
    found = difference(better, [base, base])
    assert found.value == pytest.approx(better.mean() - base.mean())
    assert 0 < found.low < found.value < found.high
    spread = difference(base, [rng.random(200) < p for p in (0.1, 0.9)])
    narrow = difference(base, [rng.random(200) < 0.5 for _ in range(2)])
    assert spread.high - spread.low > 2 * (narrow.high - narrow.low)


def pairs_of(effects: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
    return [{"donor": d, "receiver": r, "value": v} for (d, r), v in effects.items()]


def test_means_over_pairs_know_that_pairs_share_models() -> None:
    names = "abcdef"
    good = {n: float(i < 3) for i, n in enumerate(names)}
    by_donor = pairs_of({(d, r): good[d] for d in names for r in names if d != r})
    wide = over_models(by_donor, lambda p: p["value"])
    assert wide.value == pytest.approx(0.5)
    assert wide.low < 0.5 < wide.high
    # Thirty pairs that knew nothing of each other would give an interval of this width.
    assert wide.high - wide.low > 1.5 * 2 * 1.96 * np.sqrt(0.25 / 30)
    same = pairs_of({(d, r): 0.3 for d in names for r in names if d != r})
    alike = over_models(same, lambda p: p["value"])
    assert (alike.low, alike.high) == pytest.approx((0.3, 0.3))


def test_two_models_say_nothing_of_a_third() -> None:
    both = pairs_of({("a", "b"): 0.2, ("b", "a"): 0.4})
    found = over_models(both, lambda p: p["value"])
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high, found.n) == (-1, 1, 2)


def test_a_donor_that_all_pairs_have_is_given_and_the_interval_is_over_receivers() -> None:
    values = {"b": 0.1, "c": 0.4, "d": 0.3, "e": 0.9}
    found = over_models(pairs_of({("a", r): v for r, v in values.items()}), lambda p: p["value"])
    wanted = student_interval(np.array(list(values.values())))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize(
    ("own", "gain", "drop", "over", "beats", "verdict"),
    [
        (0.05, 0.5, 0.5, 0.4, True, Verdict.NOT_TESTABLE),
        (0.80, 0.5, 0.5, 0.4, True, Verdict.WORKS_SPECIFIC),
        (0.80, 0.5, 0.5, 0.4, False, Verdict.WORKS_NOT_SPECIFIC),
        (0.80, 0.5, 0.5, 0.01, True, Verdict.WORKS_NOT_SPECIFIC),
        (0.80, 0.02, 0.5, 0.4, True, Verdict.NOISE),
        (0.80, 0.02, 0.01, 0.4, True, Verdict.NO_EFFECT),
    ],
)
def test_the_verdict_on_a_pair(
    own: float, gain: float, drop: float, over: float, beats: bool, verdict: Verdict
) -> None:
    def around(value: float) -> Interval:
        return Interval(value, value - 0.05, value + 0.05, 100)

    assert pair_verdict(own, around(gain), around(drop), [around(over)] * 3, beats) == verdict


def outcome(bad: float, good: float, n: int = 50) -> ContrastOutcome:
    return ContrastOutcome((), np.arange(n) < bad * n, np.arange(n) >= (1 - good) * n, 1.0, 0.1)


def test_noise_that_takes_bad_answers_away_is_no_transfer() -> None:
    untouched, noisy, cured = outcome(0.9, 0.1), outcome(0.0, 0.1), outcome(0.0, 0.9)
    told = Detection(Interval(0.9, 0.8, 1.0, 100), 0.9, {"random": [0.5]})
    receiver = plan.Receiver(
        aligned=cured,
        untouched=untouched,
        native={"ablate": cured},
        random={"ablate": [noisy]},
        orthogonal={"ablate": noisy},
        elsewhere=None,
        detection=told,
    )

    nothing: Any = None  # the map and the direction, which no figure is made of

    def effect(mapped: ContrastOutcome, control: ContrastOutcome) -> dict[str, Any]:
        pair = plan.Pair(
            "a",
            "b",
            nothing,
            nothing,
            [0.0],
            0.5,
            np.zeros(9),
            [0.1],
            {"ablate": mapped},
            {"ablate": [control]},
            {"ablate": [control]},
            told,
        )
        return report._effect(pair, receiver, "ablate")

    assert effect(noisy, noisy)["verdict"] == "noise"
    assert effect(cured, noisy)["verdict"] == Verdict.WORKS_SPECIFIC
    same = effect(cured, cured)
    assert same["verdict"] == Verdict.WORKS_NOT_SPECIFIC
    assert same["over"]["random_source"]["value"] == 0
    assert same["drop_controls"]["random_source"] == pytest.approx(0.9)


def test_who_gives_and_who_takes() -> None:
    groups = {"a 0": "a", "b 0": "b", "c 0": "c"}

    def pair(donor: str, receiver: str, value: float) -> dict[str, Any]:
        found = {"value": value, "low": value - 0.1, "high": value + 0.1}
        return {"donor": donor, "receiver": receiver, "modes": {"ablate": {"gain": found, "over_controls": found}}}

    gives = {"a 0": 0.8, "b 0": 0.2, "c 0": 0.2}
    pairs = [pair(d, r, gives[d]) for d in groups for r in groups if d != r]
    found = asymmetry(pairs, groups, "ablate")
    assert found["groups"]["a"]["as_donor"]["value"] == pytest.approx(0.8)
    assert found["groups"]["a"]["as_receiver"]["value"] == pytest.approx(0.2)
    assert found["mean_difference_of_two_ways"] == pytest.approx((0.6 + 0.6 + 0) / 3)
    assert 0 < found["expected_from_sampling"] < 0.1
