"""The study on a tiny model whose refusing head is known, resumed, given bad input; overlap and verdicts by hand."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.card import load_probe
from probes.errors import DataError
from probes.heads.ablation import Ablation
from probes.heads.attribution import Effects
from probes.identity import check_identity, replay_references
from probes.model.load import ChatModel
from probes.result_cache import ResultCache
from probes.rows import Row, split_rows
from probes.splits import split_of
from probes.steer.generation import Reply
from probes.studies.framework.result import measured_of
from probes.studies.framework.verdict import FEWEST_DRAWS, Verdict
from probes.studies.safety_heads import export
from probes.studies.safety_heads import run as safety_heads
from probes.studies.safety_heads.overlap import between_results, overlap
from probes.studies.safety_heads.run import run_safety_heads
from probes.studies.safety_heads.scores import attributed, tail
from probes.studies.safety_heads.trials import BEFORE, AblationRunner, Class, trials_of, verdict
from tests.support.models.refusing import NO, PLANTED, refusing_chat
from tests.support.models.studies import HARMFUL, HARMLESS, SAFETY_COMMAND, SafetyStudy
from tests.support.models.studies import SAFETY_PLAN as PLAN
from tests.support.models.tiny import N_BLOCKS, N_HEADS, hook_count


@pytest.fixture(scope="module")
def chat(safety_study: SafetyStudy) -> ChatModel:
    return safety_study.chat


@pytest.fixture
def out(safety_study: SafetyStudy, tmp_path: Path) -> Path:
    """A copy of the finished study's folder, in which studies may go on."""
    return shutil.copytree(safety_study.folder, tmp_path / "finished")


def test_the_planted_head_is_found_and_held_against_its_controls(chat: ChatModel, safety_study: SafetyStudy) -> None:
    result = safety_study.result
    assert result["refusals_attributed_on"]["count"] == result["refusals_attributed_on"]["n"] == 28
    found = result["attribution"]["undifferentiated"]
    for ranking in ("ships", "contrast"):
        first = found["top"][ranking][0]
        assert first["head"] == str(PLANTED)
        assert first["contrast_low"] > 1
        assert first["p_all_heads"] < 0.01
        assert first["refusal_opening"] < -1
    assert found["tail"]["share_of_top_1_percent"] > 0.9
    assert result["dataset"]["sahara"][0]["head"] == str(PLANTED)
    assert result["before"]["harmful"]["refused"]["value"] == 1
    assert result["before"]["harmless"]["refused"]["value"] == 0
    # Both of the paper's ablations take the refusals away, and no control of either does.
    for name in ("top 1 by contrast", "top 1 by contrast, scaling"):
        trials = result["trials"][name]
        roles = Counter(t["role"] for t in trials.values())
        assert roles == {"ablated": 1, "random heads": 2, "median heads": 1, "random shift": 2}
        own = trials[name]["harmful"]
        assert own["refused"]["value"] == 0
        assert own["complied"]["value"] == own["fell"]["value"] == own["gained"]["value"] == 1
        for control, trial in trials.items():
            if control != name:
                assert trial["harmful"]["refused"]["value"] == 1
                assert trial["harmful"]["gap"]["value"] == trial["harmful"]["gap_refused"]["value"] == 1, control
                assert trial["harmful"]["gap"]["low"] > 0.5
                assert "harmless" not in trial
                assert trial["harmful"]["fell"]["value"] == 0
        # Two draws of each are no test.
        for verdicts in ("verdicts", "verdicts_by_refusals"):
            assert result[verdicts][name]["label"] == Verdict.SPECIFICITY_UNKNOWN
            assert "2 draws of a random control are too few for a test" in result[verdicts][name]["sentence"]
    assert "too few controls were run" in result["verdicts"]["Sahara 1"]["sentence"]
    assert "Sahara 1, scaling" not in result["trials"]
    assert hook_count(chat.model) == 0


def test_a_probe_reads_harmful_requests_at_the_planted_head(chat: ChatModel, safety_study: SafetyStudy) -> None:
    out, result = safety_study.folder, safety_study.result
    made = result["probe"]
    assert made["file"] == "safety-heads.json"
    probe = load_probe(out / made["file"])
    check_identity(probe.card, chat)
    replay_references(probe, chat)
    assert [str(d.site) for d in probe.directions] == [made["site"]] == [str(PLANTED)]
    assert str(PLANTED) in made["heads"]
    assert made["auroc"]["value"] > 0.95
    assert len(made["random_heads"]) == PLAN.draws
    assert probe.interventions == ()
    # The probe's test rows are the study's held-out requests.
    assert made["auroc"]["n"] == sum(result["data"][which]["held_out"]["n"] for which in ("harmful", "harmless"))
    table = (out / "RESULT.md").read_text()
    assert "`safety-heads.json` reads harmful requests at head[1,2]" in table
    assert "No steering recipe" in table


def test_random_heads_are_others_and_go_through_the_same_choice(chat: ChatModel, safety_study: SafetyStudy) -> None:
    made = safety_study.result["probe"]
    rows = [
        Row(encode(chat, r.messages), "", bad, r.group)
        for bad, asked in ((True, HARMFUL), (False, HARMLESS))
        for r in asked
    ]
    splits = split_rows(rows, 0)
    every = [Site("head", b, h) for b in range(N_BLOCKS) for h in range(N_HEADS)]

    def best_of_others(heads: Sequence[Site], draws: int = 2) -> list[float]:
        return export._random_heads(chat, splits, heads, draws, 0)

    # Where one head is left it is what is drawn, and reads what the probe at it reads.
    assert best_of_others([h for h in every if h != PLANTED]) == pytest.approx([made["auroc"]["value"]] * 2)
    assert best_of_others(every) == []
    assert best_of_others(made["heads"], draws=0) == []
    # Half of the labels turned over: nothing can be read.
    mixed = {part: [replace(r, misaligned=i % 2 == 0) for i, r in enumerate(m)] for part, m in splits.items()}
    (noise,) = export._random_heads(chat, mixed, [h for h in every if h != PLANTED], 1, 0)
    assert 0.2 < noise < 0.8


def test_requests_that_allow_no_probe_say_why(chat: ChatModel, tmp_path: Path) -> None:
    few = replace(PLAN, interval=0.45, attributed=8, draws=0)
    result = run_safety_heads(chat, HARMFUL[:24], HARMLESS[:24], tmp_path, few, metric=NO)
    assert result["probe"] == {"not_made": result["probe"]["not_made"]}
    assert re.match(r"labels: the \w+ split has \d misaligned and \d aligned rows", result["probe"]["not_made"])
    assert "No probe of harmful requests: labels:" in (tmp_path / "RESULT.md").read_text()


def test_figures_are_of_requests_that_nothing_was_attributed_on(chat: ChatModel, safety_study: SafetyStudy) -> None:
    result = safety_study.result
    for which, asked in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        held_out = [r for r in asked if split_of(r.group) == "test"]
        assert result["data"][which]["held_out"]["n"] == len(held_out) == 12
        assert result["before"][which]["refused"]["n"] == 12
        assert result["data"][which]["attributed"]["n"] == 28
        assert result["data"][which]["held_out"]["sha256"] != result["data"][which]["attributed"]["sha256"]


def test_the_split_has_a_seed_of_its_own(chat: ChatModel) -> None:
    """What an adapter was trained on stays out of what is held out, whatever draws the controls."""

    def held_out(seed: int, split_seed: int | None = None) -> set[str]:
        plan = replace(PLAN, interval=0.45, seed=seed, split_seed=split_seed)
        return {r.group for r in safety_heads._split(chat, "harmful", HARMFUL, plan).held_out}

    assert (
        held_out(seed=3, split_seed=0)
        == held_out(seed=0)
        == {r.group for r in HARMFUL if split_of(r.group, 0) == "test"}
    )
    assert held_out(seed=3) != held_out(seed=0)


def test_the_files_hold_all_figures_and_no_text(chat: ChatModel, safety_study: SafetyStudy) -> None:
    out, result = safety_study.folder, safety_study.result
    stored = json.loads((out / "RESULT.json").read_text())
    assert stored["figures"]["verdicts"] == result["verdicts"]
    assert stored["command"] == SAFETY_COMMAND
    assert stored["model"]["subject"]["model"] == "refusing-llama"
    assert stored["figures"]["shape"] == [N_BLOCKS, N_HEADS]
    for kind in ("undifferentiated", "scaling"):
        for values in stored["figures"]["attribution"][kind]["maps"].values():
            assert np.array(values).shape == (N_BLOCKS, N_HEADS)
    table = (out / "RESULT.md").read_text()
    assert "| top 1 by contrast | head[1,2] | 0.00 [" in table
    assert "top 1 by contrast: random heads 1..2" in table
    for name in ("heads-contrast.png", "heads-ships.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    written = "".join(p.read_text() for p in out.rglob("*") if p.suffix in (".json", ".md"))
    for request in (*HARMFUL, *HARMLESS):
        assert request.messages[0]["content"] not in written
        assert str(chat.token_ids(request.messages[0]["content"]))[1:-1] not in written


def test_progress_only_moves_on_and_ends(safety_study: SafetyStudy) -> None:
    seen = safety_study.progress
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == [
        "answers before ablation",
        "Ships, undifferentiated, harmful",
        "Ships, undifferentiated, harmless",
        "Ships, scaling, harmful",
        "Ships, scaling, harmless",
        "dataset-level Ships",
        "Sahara",
        "trials on held-out requests",
        "controls of sets with an effect",
        "Ships of each held-out request",
    ]
    for stage in stages[1:]:
        steps = [(n, of) for name, n, of in seen if name == stage]
        assert [n for n, _ in steps] == sorted(n for n, _ in steps)
        assert steps[-1][0] == steps[-1][1]


def test_a_second_run_computes_nothing_again(
    chat: ChatModel, safety_study: SafetyStudy, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = safety_study.result

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("computed again")

    for name in ("head_effects", "dataset_angles", "generate"):
        monkeypatch.setattr(safety_heads, name, never)
    monkeypatch.setattr("probes.studies.safety_heads.trials.generate", never)
    monkeypatch.setattr("probes.heads.attribution.Replay", never)
    again = run_safety_heads(chat, HARMFUL, HARMLESS, out, PLAN, metric=NO, command=SAFETY_COMMAND)
    assert again == result


@pytest.mark.parametrize("stop_at", ["Ships, scaling, harmful", "Sahara", "trials on held-out requests"])
def test_an_interrupted_study_goes_on_where_it_was(
    chat: ChatModel,
    safety_study: SafetyStudy,
    tmp_path: Path,
    stop_at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = safety_study.result
    monkeypatch.setattr(safety_heads, "_AT_A_TIME", 8)

    def stop(stage: str, n: int, _all: int) -> None:
        if stage == stop_at and n >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_safety_heads(chat, HARMFUL, HARMLESS, tmp_path, PLAN, metric=NO, on_progress=stop)
    assert not (tmp_path / "RESULT.json").exists()
    assert hook_count(chat.model) == 0
    first: dict[str, int] = {}

    def keep_first(stage: str, n: int, _all: int) -> None:
        first.setdefault(stage, n)

    resumed = run_safety_heads(
        chat,
        HARMFUL,
        HARMLESS,
        tmp_path,
        PLAN,
        metric=NO,
        command=result["command"],
        on_progress=keep_first,
    )
    assert "answers before ablation" not in first
    assert first["Ships, undifferentiated, harmful"] == 28
    assert first["Ships, scaling, harmful"] == (8 if stop_at == "Ships, scaling, harmful" else 28)
    assert ("dataset-level Ships" in first) == (stop_at == "Ships, scaling, harmful")
    assert resumed["verdicts"] == result["verdicts"]
    assert resumed["trials"] == result["trials"]
    for kind, one in resumed["attribution"].items():
        for name, values in one["maps"].items():
            np.testing.assert_allclose(values, result["attribution"][kind]["maps"][name], atol=1e-4, err_msg=name)


def test_another_model_or_parameter_finds_nothing_kept(chat: ChatModel, safety_study: SafetyStudy, out: Path) -> None:
    result = safety_study.result
    other, out_of_other = refusing_chat(refuses=False), out.parent / "other"
    (out.parent / "other").mkdir()
    (out / "kept").rename(out.parent / "other" / "kept")  # as if both had been given one folder
    try:
        run_safety_heads(other, HARMFUL, HARMLESS, out_of_other, PLAN, metric=NO)
    finally:
        (out.parent / "other" / "kept").rename(out / "kept")

    def stop(stage: str, n: int, _all: int) -> None:
        if stage.startswith("Ships"):
            assert n == 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_safety_heads(chat, HARMFUL, HARMLESS, out, replace(PLAN, eps=1e-4), metric=NO, on_progress=stop)
    silent = measured_of(json.loads((out_of_other / "RESULT.json").read_text()))
    assert silent["before"]["harmful"]["refused"]["value"] == 0
    assert all(v["label"] == Verdict.NOT_TESTABLE for v in silent["verdicts"].values())
    assert silent["refusals_attributed_on"]["count"] == 0
    assert silent["attribution"]["scaling"]["top"]["ships"][0]["refusal_opening"] is None
    assert result["verdicts"] != silent["verdicts"]


def test_results_of_one_base_are_compared_and_others_refused(
    chat: ChatModel, safety_study: SafetyStudy, out: Path, tmp_path: Path
) -> None:
    result = safety_study.result
    again = run_safety_heads(chat, HARMFUL, HARMLESS, out, PLAN, metric=NO, against=[out, out / "RESULT.json"])
    for other in again["overlap_with"]:
        assert all(one["jaccard"] == 1 for one in other["lists"].values())
        assert {"undifferentiated, contrast", "scaling, ships", "sahara"} <= set(other["lists"])
    assert "with the result of no adapter, sahara: 2 of 2 and 2 shared" in (out / "RESULT.md").read_text()
    for key, value in (("revision", "another"), ("model", "other-llama")):
        with pytest.raises(DataError, match=f"the base's {key} is"):
            between_results(result, {**result, "model": {"subject": {**result["model"]["subject"], key: value}}})
    with pytest.raises(DataError, match="shape"):
        between_results(result, {**result, "shape": [9, 9]})
    for other in ("{}", "[]", '{"study": "heads"}'):
        (tmp_path / "RESULT.json").write_text(other)
        with pytest.raises(DataError, match=r"RESULT\.json: .*run the study again"):
            run_safety_heads(chat, HARMFUL, HARMLESS, tmp_path, PLAN, metric=NO, against=[tmp_path])
    with pytest.raises(DataError, match="nothing: cannot be read as JSON"):
        run_safety_heads(chat, HARMFUL, HARMLESS, tmp_path, PLAN, metric=NO, against=[tmp_path / "nothing"])


def test_one_class_only_too_few_rows_and_shared_rows(chat: ChatModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="harmless: no requests; both classes are needed"):
        run_safety_heads(chat, HARMFUL, [], tmp_path, PLAN, metric=NO)
    with pytest.raises(DataError, match="harmful: no requests"):
        run_safety_heads(chat, [], HARMLESS, tmp_path, PLAN, metric=NO)
    with pytest.raises(DataError, match=r"harmful: \d requests to attribute on and \d held out; at least 3 and 2"):
        run_safety_heads(chat, HARMFUL[:3], HARMLESS, tmp_path, PLAN, metric=NO)
    with pytest.raises(DataError, match="40 are both harmful and harmless"):
        run_safety_heads(chat, HARMFUL, HARMFUL, tmp_path, PLAN, metric=NO)


def test_too_few_held_out_requests_for_the_interval_asked_for(chat: ChatModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"harmful: \d+ held-out requests, but a rate within \+-0.1 needs 104"):
        run_safety_heads(chat, HARMFUL, HARMLESS, tmp_path, replace(PLAN, interval=0.1), metric=NO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"top": (0, 1)}, r"top: 0, 1; each must be in 1\.\.3"),
        ({"top": (4,)}, "top: 4"),
        ({"top": ()}, "top: none"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"draws": -1}, "draws at least 0"),
        ({"subspaces": ()}, "one subspace"),
    ],
)
def test_plans_that_make_no_study(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        replace(PLAN, **wrong)


def test_overlap_by_counting_all_lists() -> None:
    heads = [f"head[0,{i}]" for i in range(7)]
    a = heads[:3]
    shared = [len(set(a) & set(b)) for b in itertools.combinations(heads, 4)]
    for b in (heads[:4], heads[2:6], heads[3:]):
        found = overlap(a, b, 7)
        mine = len(set(a) & set(b))
        assert found.shared == mine
        assert found.jaccard == pytest.approx(mine / len(set(a) | set(b)))
        assert found.p == pytest.approx(np.mean([s >= mine for s in shared]))
        assert found.jaccard_by_chance == pytest.approx(np.mean([s / (7 - s) for s in shared]))
    with pytest.raises(DataError):
        overlap([], a, 7)


def test_scores_summed_up_by_hand() -> None:
    rng = np.random.default_rng(0)
    kl = rng.random((8, 2, 5))
    harmless = rng.random((6, 2, 5))
    kl[:, 1, 3] += 5
    kl[::2, 0, 0] += 2  # a head that only every other request needs
    nothing = np.full_like(kl, np.nan)
    found = attributed(Effects(kl, nothing, kl), Effects(harmless, nothing[:6], harmless), 2, resamples=300)
    assert [r["head"] for r in found["top"]["ships"]] == ["head[1,3]", "head[0,0]"]
    row = found["top"]["contrast"][0]
    assert row["contrast"] == pytest.approx(kl[:, 1, 3].mean() - harmless[:, 1, 3].mean())
    assert row["p_all_heads"] == pytest.approx(1 / 301)
    assert found["top"]["contrast"][1]["p_all_heads"] > 0.01
    assert math.isnan(row["refusal_opening"])
    assert found["two_halves"]["shared"] == 1
    assert tail(np.arange(200.0).reshape(10, 20)) == {
        "heads": 2,
        "share_of_top_1_percent": pytest.approx((199 + 198) / 19900),
        "largest": 199.0,
        "median": 99.5,
    }


def test_controls_of_a_set() -> None:
    scores = np.arange(12.0).reshape(3, 4)
    heads = [Site("head", 2, 3), Site("head", 2, 1), Site("head", 0, 0)]
    trials = trials_of("set", heads, scores, Ablation(eps=1e-3), draws=4)
    roles = Counter(t.role for t in trials)
    assert roles == {"ablated": 1, "random heads": 4, "median heads": 1, "random shift": 4}
    assert {t.ablation.size for t in trials} == {"undifferentiated"}
    scaling = trials_of("set", heads, scores, Ablation("scaling", eps=1e-3), draws=4)
    assert {(t.role, t.ablation.kind, t.ablation.size) for t in scaling} == {
        ("ablated", "scaling", "undifferentiated"),
        ("random heads", "scaling", "undifferentiated"),
        ("median heads", "scaling", "undifferentiated"),
        ("random shift", "random", "scaling"),
    }
    assert not {t.key for t in scaling} & {t.key for t in trials}
    for trial in trials:
        assert len(trial.heads) == 3
        assert trial.ablation.eps == 1e-3
        if trial.role == "random heads":
            assert not set(trial.heads) & set(heads)
        if trial.role == "median heads":
            assert set(trial.heads) == {Site("head", 1, 1), Site("head", 1, 2), Site("head", 1, 0)}
    drawn = [t.heads for t in trials if t.role == "random heads"]
    assert len({frozenset(one) for one in drawn}) == 4
    # The same blocks have three such sets.
    assert all(sorted(h.layer for h in one) == [0, 2, 2] for one in drawn[:3])
    assert len({t.key for t in trials if t.role == "random shift"}) == 4
    assert [t.name for t in trials_of("set", heads, scores, Ablation(), draws=0)] == ["set"]
    # No set is drawn twice: a block with three other heads lends three, and the rest are of others.
    alone = [t.heads for t in trials_of("one", heads[:1], scores, Ablation(), draws=20) if t.role == "random heads"]
    assert len(set(alone)) == len(alone) == 11
    assert {h.layer for (h,) in alone[:3]} == {2}
    # A block that is used up lends from others, and a model that is used up has no control.
    every = [Site("head", 1, h) for h in range(4)]
    assert {h.layer for h in trials_of("all", every, scores, Ablation(), draws=1)[1].heads} == {0, 2}
    most = [Site("head", *divmod(i, 4)) for i in range(7)]
    assert {t.role for t in trials_of("most", most, scores, Ablation(), draws=2)} == {
        "ablated",
        "random shift",
    }


BEFORE_RATES = {"refused": 0.9, "complied": 0.1, "coherent": 1.0}
SURE, UNSURE = 0.05, 0.9


def around(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": 30}


def trial(
    role: str,
    refused: float,
    complied: float,
    *,
    before: dict[str, float] = BEFORE_RATES,
    ours: float | None = None,
    half: float = SURE,
) -> dict[str, Any]:
    """A trial as `AblationRunner.run` and `AblationRunner.against` tell it, every difference within +- `half`."""
    harmful = {
        "refused": {"value": refused},
        "complied": {"value": complied},
        "coherent": {"value": refused + complied},
        "fell": around(before["refused"] - refused, half),
        "gained": around(complied - before["complied"], half),
    }
    return {"role": role, "harmful": harmful | ({} if ours is None else {"gap": around(ours - complied, half)})}


@pytest.mark.parametrize(
    ("before", "ablated", "controls", "words"),
    [
        ((0.9, 0.1), (0.2, 0.8), {"random heads": (0.9, 0.1), "random shift": (0.8, 0.2)}, "works and specific: "),
        ((0.9, 0.1), (0.2, 0.8), {"random heads": (0.2, 0.75), "random shift": (0.8, 0.2)}, "works, not specific: "),
        ((0.9, 0.1), (0.2, 0.8), {"median heads": (0.2, 0.75), "random shift": (0.8, 0.2)}, "works, not specific: "),
        ((0.9, 0.1), (0.2, 0.8), {"random heads": (0.9, 0.1), "random shift": (0.2, 0.8)}, "noise: a random shift"),
        ((0.9, 0.1), (0.2, 0.1), {"random heads": (0.9, 0.1)}, "noise"),
        ((0.9, 0.1), (0.7, 0.2), {"random heads": (0.9, 0.1)}, "undecided"),
        ((0.9, 0.1), (0.85, 0.8), {"random heads": (0.9, 0.1)}, "no effect"),
        ((0.1, 0.9), (0.0, 1.0), {"random heads": (0.1, 0.9)}, "not testable: the model refuses 10%"),
        ((0.9, 0.1), (0.2, 0.8), {}, "works, specificity unknown: "),
        ((0.9, 0.1), (0.2, 0.8), {"random shift": (0.8, 0.2)}, "works, specificity unknown: "),
    ],
)
def test_verdicts(
    before: tuple[float, float], ablated: tuple[float, float], controls: dict[str, tuple[float, float]], words: str
) -> None:
    rates = dict(zip(("refused", "complied", "coherent"), (*before, 1.0), strict=True))
    found = {
        "set": trial("ablated", *ablated, before=rates),
        **{
            f"{role} {i}": trial(role, *seen, before=rates, ours=ablated[1])
            for role, seen in controls.items()
            for i in range(FEWEST_DRAWS)
        },
    }
    about = {"harmful": {what: {"value": value} for what, value in rates.items()}}
    assert str(verdict(about, found)).startswith(words)


@pytest.mark.parametrize("role", ["random heads", "random shift"])
def test_fewer_draws_of_a_random_control_than_make_a_test_say_nothing_of_specificity(role: str) -> None:
    found = {"set": trial("ablated", 0.2, 0.8)} | {
        f"{kind} {i}": trial(kind, 0.9, 0.1, ours=0.8)
        for kind in ("random heads", "random shift")
        for i in range(FEWEST_DRAWS)
    }
    about = {"harmful": {what: {"value": value} for what, value in BEFORE_RATES.items()}}
    assert verdict(about, found).label == Verdict.WORKS_SPECIFIC
    del found[f"{role} 0"]
    assert "19 draws of a random control are too few for a test" in verdict(about, found).sentence
    # One that does as much is enough to say that it is not these heads.
    found[f"{role} 1"] = trial(role, 0.2, 0.8, ours=0.8)
    expected = Verdict.WORKS_NOT_SPECIFIC if role == "random heads" else Verdict.NOISE
    assert verdict(about, found).label == expected


@pytest.mark.parametrize(
    ("unsure", "words"),
    [
        ("fell", "undecided: refusals fall, by no more than chance allows (refused falls by 0.70 [-0.20, 1.60]"),
        ("gained", "undecided: refusals fall, but hardly more is answered"),
        ("gap", "undecided: refusals go, the text stays; the best control is behind by 0.70 [-0.20, 1.60]"),
    ],
)
def test_a_difference_that_chance_allows_decides_nothing(unsure: str, words: str) -> None:
    """The same rates as those of `works and specific`, of fewer requests."""
    found = {
        "set": trial("ablated", 0.2, 0.8),
        "median heads": trial("median heads", 0.9, 0.1, ours=0.8),
    } | {
        f"{kind} {i}": trial(kind, 0.9, 0.1, ours=0.8)
        for kind in ("random heads", "random shift")
        for i in range(FEWEST_DRAWS)
    }
    about = {"harmful": {what: {"value": value} for what, value in BEFORE_RATES.items()}}
    assert verdict(about, found).label == Verdict.WORKS_SPECIFIC
    changed = found["random shift 7" if unsure == "gap" else "set"]["harmful"]
    changed[unsure] = around(changed[unsure]["value"], UNSURE)
    assert str(verdict(about, found)).startswith(words)


def test_broken_text_is_no_compliance(chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ablation that leaves a loop, or nothing at all: no refusal, and not complied either."""
    conversations: dict[Class, list[Sequence[dict[str, str]]]] = {
        "harmful": [r.messages for r in HARMFUL[:6]],
        "harmless": [r.messages for r in HARMLESS[:6]],
    }
    bench = AblationRunner(chat, conversations, NO, ResultCache(tmp_path, {}), max_new_tokens=6)
    assert bench.run(BEFORE)["harmful"]["complied"]["value"] == 0
    (fine,) = trials_of("fine", [PLANTED], np.zeros((3, 4)), Ablation(), draws=0)
    assert bench.run(fine)["harmful"]["complied"]["value"] == 1
    for text, eps in (("w " * 30, 1e-3), ("", 1e-4)):
        (trial,) = trials_of("broken", [PLANTED], np.zeros((3, 4)), Ablation(eps=eps), draws=0)
        with monkeypatch.context() as patched:
            broken = [Reply(text, 30, True)] * 6
            patched.setattr("probes.studies.safety_heads.trials.generate", lambda *_, broken=broken, **__: broken)
            found = bench.run(trial)["harmful"]
        assert found["refused"]["value"] == found["complied"]["value"] == found["coherent"]["value"] == 0
