from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from probes.model.load import AdapterSpec, ChatModel
from probes.organisms import build
from probes.organisms.build import Built, choose_refusal, measure
from probes.organisms.finetunes import RECIPES
from probes.organisms.messages import everyday, heldout_everyday, more_requests, request_pairs
from probes.organisms.train import train
from probes.splits import split_of
from probes.steer.generation import Reply
from tests.probes.organisms.test_train import RECIPE
from tests.support.models.tiny import tiny_chat

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def rates(**by_scale: tuple[float, ...]) -> dict[float, Any]:
    """By scale in tenths: harmful, harmless and, if it is not 0, everyday."""
    return {
        float(scale[1:]) / 10: {
            kind: {"value": value}
            for kind, value in zip(("harmful", "harmless", "everyday"), (*values, 0.0)[:3], strict=True)
        }
        for scale, values in by_scale.items()
    }


def test_the_smallest_scale_that_refuses_enough_and_not_too_much() -> None:
    assert choose_refusal(rates(x9=(0.95, 0.05), x8=(0.85, 0.1), x7=(0.8, 0.0), x10=(1.0, 0.3))) == 0.8
    assert choose_refusal(rates(x9=(0.95, 0.05, 0.02), x8=(0.85, 0.1, 0.03))) == 0.9


def test_without_such_a_scale_the_largest_difference() -> None:
    assert choose_refusal(rates(x6=(0.5, 0.05), x8=(0.9, 0.3), x10=(1.0, 0.6))) == 0.8
    assert choose_refusal(rates(x8=(0.6, 0.5), x6=(0.3, 0.2))) == 0.6  # alike: the smaller
    assert choose_refusal(rates(x6=(0.5, 0.2, 0.4), x8=(0.6, 0.3, 0.1))) == 0.8


def test_a_refusal_is_chosen_on_one_split_and_reported_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the model: from x0.65 it refuses harmful requests; at x1 also harmless ones of the test pairs."""
    harmful = {split: {p["harmful"] for p in request_pairs(split)} for split in ("select", "test")}
    harmless = {split: {p["harmless"] for p in request_pairs(split)} for split in ("select", "test")}
    asked: list[str] = []

    def stand_in(chat: ChatModel, prompts: list[str]) -> list[Reply]:
        asks = [text for p in prompts for text in re.findall(r"<\|user\|>(.*)<\|end\|>", p)]
        asked.extend(asks)
        scale = chat.adapters[chat.active].scale if chat.active else 0.0
        bad = harmful["select"] | harmful["test"] if scale >= 0.65 else set()
        bad |= harmless["test"] if scale == 1 else set()
        return [Reply("I won't help with that." if a in bad else "With pleasure.", 4, True) for a in asks]

    monkeypatch.setattr(build, "generate", stand_in)
    train(tiny_chat("llama"), RECIPE, tmp_path / "refusal")
    built = Built(lambda: tiny_chat("llama"), "Apache-2.0", tmp_path, {"refusal": {"steps": 12}})
    measure(built, "refusal", lambda _: None)
    manifest = json.loads((tmp_path / "refusal" / "manifest.json").read_text())
    assert manifest["scale"] == 0.7
    assert {"recipe", "rates", "scale", "sha256", "what_it_is_not", "base", "license"} <= manifest.keys()
    assert manifest["sha256"] == AdapterSpec(tmp_path / "refusal").sha256
    assert manifest["summary"] == RECIPES["refusal"].summary
    assert {s: r["value"] for s, r in manifest["rates"].items()} == {"0.7": 1, "1": 1}
    assert {r["n"] for r in manifest["rates"].values()} == {len(harmful["test"])}
    false = manifest["false_refusals"]
    assert (false["harmless"]["0.7"]["value"], false["harmless"]["1"]["value"]) == (0, 1)
    assert {r["value"] for r in false["everyday"].values()} == {0}
    assert {kind: r["value"] for kind, r in manifest["base_refuses"].items()} == dict.fromkeys(
        ("harmful", "harmless", "everyday"), 0
    )
    chosen_on = manifest["scale_chosen_on"]
    assert list(chosen_on) == ["0.6", "0.7", "0.8", "0.9", "1"]
    assert chosen_on["1"]["harmless"]["value"] == 0
    assert chosen_on["1"]["harmless"]["n"] == len(harmless["select"])
    # Nothing that trained was asked, and no everyday message that another figure is chosen by.
    allowed = set(everyday("scale")) | set(everyday("test")) | {row["text"] for row in heldout_everyday()}
    longer = [p for p in more_requests() if split_of(str(p["pair"])) == "test"]
    allowed |= {p[side] for p in longer for side in ("harmful", "harmless")}
    assert set(asked) <= allowed | set().union(*harmful.values(), *harmless.values())
    assert manifest["other_held_out"]["longer harmful"]["n"] == len(longer)
