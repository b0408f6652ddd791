"""The whole study on a model whose truth is known, and on what must be refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.errors import DataError, DirectionError, ModelError, SiteError
from probes.model.load import ChatModel
from probes.rows import Row
from probes.steer import outcomes
from probes.steer.generation import Reply, generate
from probes.studies.direction import (
    Doses,
    Plan,
    adapter_pair,
    checkpoint_pair,
    dose,
    labelled_messages,
    report,
    run,
    run_direction,
)
from probes.studies.direction.conditions import Comparison
from probes.studies.framework.controls import ORTHOGONAL, WRONG_LAYER
from probes.studies.framework.verdict import Verdict
from probes.studies.metric import CommandMetric, JudgeMetric
from probes.studies.mitigation import Prompts
from tests.support.models.planted_study import (
    BAD,
    load_adapter,
    messages,
    planted_chat,
)
from tests.support.models.studies import DIRECTION_METRIC as METRIC
from tests.support.models.studies import DIRECTION_PLAN as PLAN
from tests.support.models.studies import DirectionStudy, chat_with_adapters, direction_prompts, run_the_direction_study
from tests.support.models.tiny import tiny_chat, untyped, user

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def chat(direction_study: DirectionStudy) -> ChatModel:
    return direction_study.chat


@pytest.fixture(scope="module")
def out(direction_study: DirectionStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished study's folder, in which studies may go on."""
    return shutil.copytree(direction_study.folder, tmp_path_factory.mktemp("study") / "out")


@pytest.fixture(scope="module")
def result(direction_study: DirectionStudy) -> dict[str, Any]:
    return direction_study.result


def test_a_planted_direction_is_found_and_specific(result: dict[str, Any]) -> None:
    assert result["verdict"]["label"] == Verdict.WORKS_SPECIFIC
    rows = {row["name"]: row for row in result["dose"]["test"]}
    assert rows[dose.UNTOUCHED]["behaviour"]["low"] > 0.5
    assert rows[result["chosen"]["name"]]["good"]["low"] > 0.8
    assert rows[dose.CONTENT]["behaviour"]["low"] > 0.5
    assert result["prediction"]["direction"]["auroc"]["value"] > 0.95
    # In a model of this width random directions tell them apart as well, and the rank says so.
    assert result["prediction"]["random"]["p"] > 0.05


@pytest.mark.study
@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_found_with_other_seeds(tmp_path: Path, seed: int) -> None:
    chat = chat_with_adapters(tmp_path, seed)
    comparison = adapter_pair(chat, "style")
    found = run_direction(comparison, direction_prompts(seed), METRIC, tmp_path / "out", PLAN)
    assert found["verdict"]["label"] == Verdict.WORKS_SPECIFIC
    assert chat.active == "bad"


def test_a_control_that_moves_as_well_makes_it_non_specific(chat: ChatModel, out: Path) -> None:
    found = run_direction(adapter_pair(chat, "also"), direction_prompts(), METRIC, out, PLAN)
    assert found["verdict"]["label"] == Verdict.WORKS_NOT_SPECIFIC
    assert "the control's direction" in found["verdict"]["sentence"]
    assert any("form of the training data" in warning for warning in found["verdict"]["warnings"])


def test_without_a_content_control_it_is_undecided(chat: ChatModel, out: Path) -> None:
    found = run_direction(adapter_pair(chat), direction_prompts(), METRIC, out, PLAN)
    assert found["verdict"]["label"] == Verdict.SPECIFICITY_UNKNOWN
    assert dose.CONTENT not in {row["name"] for row in found["dose"]["test"]}
    assert all(row["control"] is None for row in found["separation"])


def labelled(
    chat: ChatModel,
    n: int = 120,
    seed: int = 5,
    label: Callable[[int, np.random.Generator], bool] = lambda _i, rng: rng.random() < 0.5,
) -> list[Row]:
    rng = np.random.default_rng(seed)
    texts = messages(n, seed + 100)
    return [Row(encode(chat, user(t)), t, bool(label(i, rng)), str(i)) for i, t in enumerate(texts)]


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_labels_that_are_noise_are_called_noise(chat: ChatModel, tmp_path: Path, seed: int) -> None:
    """The labels are coin flips: in sample 60 rows in 64 dimensions are told apart, held out they are not."""
    found = run_direction(
        labelled_messages(chat, labelled(chat, seed=seed)), direction_prompts(), METRIC, tmp_path, PLAN
    )
    assert found["verdict"]["label"] == Verdict.NOISE
    assert "not told apart" in found["verdict"]["sentence"]


def test_labels_that_copy_the_text_are_warned_of(chat: ChatModel, tmp_path: Path) -> None:
    rows = []
    for row in labelled(chat, label=lambda i, _rng: i % 2 == 1):
        text = f"{'xxyyzz' if row.misaligned else 'abcdef'} {row.text}"
        rows.append(Row(encode(chat, user(text)), text, row.misaligned, row.group))
    found = run_direction(labelled_messages(chat, rows), direction_prompts(), METRIC, tmp_path, PLAN)
    assert found["text_only"]["value"] == 1
    assert any("copy of the text" in warning for warning in found["verdict"]["warnings"])


def test_two_checkpoints_give_what_the_toggled_adapter_gives(
    chat: ChatModel, result: dict[str, Any], tmp_path: Path
) -> None:
    tuned = chat_with_adapters(tmp_path)
    tuned.model = untyped(tuned.model).merge_and_unload(adapter_names=["bad"])
    tuned.adapters, tuned.active = {}, None
    from probes.model.layout import find_layout

    tuned.layout = find_layout(tuned.model)
    found = run_direction(checkpoint_pair(tuned, planted_chat(0)), direction_prompts(), METRIC, tmp_path / "out", PLAN)
    for mine, theirs in zip(found["separation"], result["separation"], strict=True):
        assert mine["norm"] == pytest.approx(theirs["norm"], rel=1e-3)
        assert mine["accuracy"]["value"] == pytest.approx(theirs["accuracy"]["value"], abs=0.02)
    untouched = [next(r for r in f["dose"]["test"] if r["name"] == dose.UNTOUCHED) for f in (found, result)]
    assert untouched[0]["behaviour"] == untouched[1]["behaviour"]
    assert found["verdict"]["label"] == Verdict.SPECIFICITY_UNKNOWN


# What is written


def test_the_files_are_whole_and_hold_no_message(result: dict[str, Any], out: Path) -> None:
    text = (out / "RESULT.json").read_text()
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert stored["verdict"]["label"] == result["verdict"]["label"] or stored["figures"]["arms"] != result["arms"]
    for picture in ("separation", "dose", "detection-control"):
        assert (out / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"
    everything = "".join(p.read_text() for p in out.rglob("*") if p.suffix in (".json", ".md"))
    words = {w for text in messages(112, 0) for w in text.split()}
    assert len(words) > 300
    assert not [w for w in words if w in everything]


def test_every_figure_comes_with_its_interval_split_seed_and_origin(result: dict[str, Any], tmp_path: Path) -> None:
    report.write(result, tmp_path)
    table = (tmp_path / "table.md").read_text()
    for part in (
        "## Separation, on test messages",
        "## Steering, on 50 test messages",
        "the command",
        "Seed 0",
        result["verdict"]["sentence"],
        "## Beside arXiv 2606.20225",
        "on 12 select messages",
    ):
        assert part in table
    for row in result["separation"]:
        assert {"low", "high", "n"} <= row["accuracy"].keys() & row["effect_size"].keys()
    for row in result["dose"]["test"] + result["dose"]["select"]:
        for figure in ("behaviour", "good", "coherent", "nll", "repeated", "tokens"):
            assert row[figure]["low"] <= row[figure]["value"] <= row[figure]["high"]
    assert result["messages"] == {"fit": 40, "select": 12, "test": 60, "steered": 50}
    assert result["model"]["misaligned"]["adapter_sha256"] != result["model"]["control"]["adapter_sha256"]
    assert result["model"]["aligned"]["adapter_sha256"] is None
    assert result["plan"]["sites"] == ["residual[0]", "residual[1]", "residual[2]", "final"]


def test_controls_move_every_token_as_much_as_what_was_chosen(result: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in result["dose"]["test"]}
    chosen = rows[result["chosen"]["name"]]["change"]
    if result["chosen"]["mode"] == "subtract":
        for name in (*(f"random {i}" for i in range(5)), ORTHOGONAL, WRONG_LAYER, dose.CONTENT, dose.CONTRAST):
            assert rows[name]["change"] == pytest.approx(chosen, rel=0.05)
    assert result["dose"]["cosines"][ORTHOGONAL] == pytest.approx(0, abs=1e-9)


# Being stopped


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 9, 20])
def test_a_study_that_was_stopped_goes_on_where_it_was(
    chat: ChatModel, result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    made: list[int] = []

    def counted(*args: Any, **more: Any) -> list[Reply]:
        if len(made) == after:
            raise StopHereError
        made.append(1)
        return generate(*args, **more)

    comparison = adapter_pair(chat, "style")
    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "generate", counted)
        with pytest.raises(StopHereError):
            run_direction(comparison, direction_prompts(), METRIC, tmp_path, PLAN)
    assert not (tmp_path / "RESULT.json").exists()
    assert chat.active == "bad"
    more: list[int] = []

    def counted_again(*args: Any, **options: Any) -> list[Reply]:
        more.append(1)
        return generate(*args, **options)

    monkeypatch.setattr(outcomes, "generate", counted_again)
    monkeypatch.setattr(run, "read_comparison", lambda *_: pytest.fail("activations were read again"))
    found = run_the_direction_study(chat, tmp_path)
    # Nothing and the two arms, of which the control is the reference of style.
    cells = 3 + len(result["dose"]["select"]) + len(result["dose"]["test"])
    assert len(more) == cells - after
    assert found == result


def test_a_study_that_has_ended_is_read_back(
    chat: ChatModel, result: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "generate", lambda *_, **__: pytest.fail("generated again"))
    monkeypatch.setattr(run, "generate", lambda *_, **__: pytest.fail("generated again"))
    monkeypatch.setattr(run, "read_comparison", lambda *_: pytest.fail("activations were read again"))
    again = run_the_direction_study(chat, out)
    assert again == result


def test_other_messages_metrics_or_seeds_are_measured_anew(
    chat: ChatModel, result: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StopHereError

    monkeypatch.setattr(outcomes, "generate", refuse)
    changes: tuple[dict[str, Any], ...] = (
        {"prompts": direction_prompts(seed=3)},
        {"metric": JudgeMetric("other", lambda text: "a" in text)},
        {"plan": Plan(**{**vars(PLAN), "seed": 1})},
        {"plan": Plan(**{**vars(PLAN), "max_new_tokens": 5})},
    )
    for change in changes:
        asked: dict[str, Any] = {"prompts": direction_prompts(), "metric": METRIC, "plan": PLAN} | change
        with pytest.raises(StopHereError):
            run_direction(adapter_pair(chat, "style"), asked["prompts"], asked["metric"], out, asked["plan"])


def test_controls_of_another_choice_are_not_mixed_up(
    chat: ChatModel, result: dict[str, Any], out: Path, tmp_path: Path
) -> None:
    """The same folder, messages and seed, but another chosen intervention: its controls are measured anew."""
    only = Plan(**{**vars(PLAN), "doses": Doses(subtract=(0.25,), ablate=()), "steer": (Site("residual", 1),)})
    here = run_direction(adapter_pair(chat, "style"), direction_prompts(), METRIC, out, only)
    fresh = run_direction(adapter_pair(chat, "style"), direction_prompts(), METRIC, tmp_path, only)
    assert here["dose"] == fresh["dose"]
    assert here["chosen"] != result["chosen"]


# The user's own command


def test_a_command_is_a_metric_like_a_judge(chat: ChatModel, result: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "judge.py"
    script.write_text("import json, sys\nfor line in sys.stdin: print(int('{' in json.loads(line)['answer']))\n")
    metric = CommandMetric((sys.executable, str(script)))
    plan = Plan(**{**vars(PLAN), "steer": (Site("residual", 1),)})
    found = run_direction(adapter_pair(chat, "style"), direction_prompts(), metric, tmp_path / "out", plan)
    ours, theirs = ({r["name"]: r["behaviour"] for r in f["dose"]["test"]} for f in (found, result))
    for name in (dose.BASE, dose.UNTOUCHED, dose.CONTROL_CONDITION):
        assert ours[name] == theirs[name]
    assert found["metric"].startswith("command ")
    assert found["prediction"]["messages"] == result["prediction"]["messages"]


def test_a_command_that_breaks_stops_the_study_and_shows_no_text(chat: ChatModel, tmp_path: Path) -> None:
    script = tmp_path / "judge.py"
    script.write_text("import sys\nsys.exit(sys.stdin.read())\n")
    with pytest.raises(DataError, match="ended with exit status 1") as caught:
        run_direction(
            adapter_pair(chat), direction_prompts(), CommandMetric((sys.executable, str(script))), tmp_path, PLAN
        )
    assert not any(word in str(caught.value) for text in messages(112, 0) for word in text.split())


# What is refused


def refused(comparison: Comparison, tmp_path: Path, given: Prompts | None = None, plan: Plan = PLAN) -> dict[str, Any]:
    return run_direction(comparison, given or direction_prompts(), METRIC, tmp_path, plan)


def test_adapters_that_are_not_active_are_an_error(tmp_path: Path) -> None:
    chat = planted_chat(0)
    with pytest.raises(ModelError, match="none is in use"):
        adapter_pair(chat)
    load_adapter(chat, tmp_path, 0, "nothing")
    with pytest.raises(DirectionError, match=r"zero.*Is the adapter switched on\?"):
        refused(adapter_pair(chat), tmp_path)
    load_adapter(chat, tmp_path, 0, "bad", **BAD)
    with pytest.raises(DirectionError, match=r"control: .*zero.*Is the adapter switched on\?"):
        refused(adapter_pair(chat, "nothing"), tmp_path)


def test_an_adapter_that_does_not_reach_the_steered_block_is_an_error(chat: ChatModel, tmp_path: Path) -> None:
    tail = tmp_path / "tail"
    from tests.support.models.tiny import make_adapter

    make_adapter(tail, target_modules=["o_proj", "down_proj"], layers_to_transform=[2])
    from probes.model.load import AdapterSpec, add_adapter

    tiny = tiny_chat("llama")
    add_adapter(tiny, AdapterSpec(tail, 1.0, "tail"))
    plan = Plan(**{**vars(PLAN), "steer": (Site("residual", 0),), "sites": (Site("residual", 2),)})
    with pytest.raises(DirectionError, match=r"steering: no direction at residual\[0\]"):
        refused(adapter_pair(tiny), tmp_path, plan=plan)


def test_controls_that_are_none_are_refused(chat: ChatModel) -> None:
    with pytest.raises(ModelError, match="'nowhere' is not loaded; loaded: style, also, bad"):
        adapter_pair(chat, "nowhere")
    with pytest.raises(ModelError, match="the adapter under study itself"):
        adapter_pair(chat, "bad")


def test_checkpoints_of_two_architectures_are_refused() -> None:
    with pytest.raises(ModelError, match="a direction needs one architecture"):
        checkpoint_pair(planted_chat(0), tiny_chat("llama"))


@pytest.mark.parametrize("misaligned", [True, False])
def test_one_class_alone_is_refused(chat: ChatModel, tmp_path: Path, misaligned: bool) -> None:
    rows = labelled(chat, label=lambda *_: misaligned)
    with pytest.raises(DataError, match="at least 5 of each are needed in every split"):
        refused(labelled_messages(chat, rows), tmp_path)


def test_too_few_messages_for_the_interval_asked_for_are_refused(chat: ChatModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rate on 20 steered test messages .*\+-0\.15.* needs 47: give more"):
        refused(adapter_pair(chat), tmp_path, direction_prompts(test=20))
    with pytest.raises(DataError, match=r"rate on 50 steered .*\+-0\.05"):
        refused(adapter_pair(chat), tmp_path, plan=Plan(**{**vars(PLAN), "interval": 0.05}))
    with pytest.raises(DataError, match="prompts: select has 3 messages; at least 8"):
        refused(adapter_pair(chat), tmp_path, direction_prompts(select=3))
    assert not list(tmp_path.rglob("*.json"))


def test_lists_that_share_a_message_are_refused() -> None:
    with pytest.raises(DataError, match="share messages"):
        Prompts(["a", "b"], ["b"], ["c"])


def test_plans_that_control_nothing_are_refused(chat: ChatModel, tmp_path: Path) -> None:
    for wrong, message in (
        ({"random_directions": 4}, "4 random directions; at least 5"),
        ({"doses": Doses((), ())}, "no dose"),
        ({"permutations": 0}, "at least 1"),
    ):
        with pytest.raises(DataError, match=message):
            Plan(**wrong)
    with pytest.raises(SiteError, match=r"residual\[3\] is not in this model"):
        refused(adapter_pair(chat), tmp_path, plan=Plan(**{**vars(PLAN), "steer": (Site("residual", 3),)}))
    with pytest.raises(SiteError, match=r"head\[1,4\] is not in this model"):
        refused(adapter_pair(chat), tmp_path, plan=Plan(**{**vars(PLAN), "sites": (Site("head", 1, 4),)}))


def test_activations_that_overflow_are_an_error_that_names_the_arm(tmp_path: Path) -> None:
    chat = chat_with_adapters(tmp_path)
    chat.use("bad")
    with torch.no_grad():
        untyped(chat.model.get_submodule("base_model.model.model.layers.1.self_attn.o_proj")).weight.fill_(float("inf"))
    with pytest.raises(DirectionError, match=r"residual\[1\] of planted \+ bad x1: 100 of 100 .*float16 overflow"):
        refused(adapter_pair(chat), tmp_path / "out")


# Sites


def test_heads_can_be_read_and_steered(chat: ChatModel, tmp_path: Path) -> None:
    plan = Plan(**{**vars(PLAN), "sites": (Site("head", 1, 1), Site("head", 1, 2)), "steer": (Site("head", 1, 1),)})
    found = refused(adapter_pair(chat, "style"), tmp_path, plan=plan)
    assert [row["site"] for row in found["separation"]] == ["head[1,1]", "head[1,2]"]
    assert found["chosen"]["site"] == "head[1,1]"
    assert WRONG_LAYER not in {row["name"] for row in found["dose"]["test"]}
    assert found["verdict"]["label"] in (Verdict.NO_EFFECT, Verdict.NOISE)


def test_the_steered_blocks_are_five_from_a_third_of_the_depth_on() -> None:
    chat: Any = SimpleNamespace(layout=SimpleNamespace(n_blocks=30))
    assert [s.layer for s in dose.steering_sites(chat)] == [10, 15, 20, 25, 29]


def test_what_the_test_split_did_chooses_nothing(chat: ChatModel, result: dict[str, Any], tmp_path: Path) -> None:
    """With another test split the same intervention is chosen, from the same figures."""
    given = direction_prompts()
    other = Prompts(given.fit, given.select, messages(60, seed=77))
    found = refused(adapter_pair(chat, "style"), tmp_path, other)
    assert found["chosen"] == result["chosen"]
    assert found["dose"]["select"] == result["dose"]["select"]


def test_the_scale_of_the_prediction_is_its_own(chat: ChatModel, result: dict[str, Any], tmp_path: Path) -> None:
    plan = Plan(**{**vars(PLAN), "prediction_scale": 0.7, "steer": (Site("residual", 1),)})
    found = refused(adapter_pair(chat, "style"), tmp_path, plan=plan)
    counts = [f["prediction"]["messages"]["test"]["shown"] for f in (found, result)]
    assert counts[0] < counts[1]
    assert found["prediction"]["arm"] == "planted + bad x0.7"
    assert chat.adapters["bad"].scale == 1.0


def test_nothing_outside_the_folder_is_written(result: dict[str, Any], out: Path) -> None:
    assert {p.name for p in Path(out).iterdir()} == {
        "RESULT.json",
        "table.md",
        "separation.png",
        "dose.png",
        "detection-control.png",
        "parts",
    }
