"""Steering inside vLLM is steering in transformers, for the requests that it is for and for no other in their batch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from probes.card import MitigationCard, Probe, save_probe
from probes.model.load import ChatModel, load_chat_model
from probes.steer.generation import generate
from probes.steer.steering import steering
from tests.vllm.models import probe, saved
from tests.vllm.running import run
from tests.vllm.test_parity import Requests, conversation

TOKENS = 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatModel, Path]:
    folder = tmp_path_factory.mktemp("llama")
    model = saved(folder / "model", "llama")
    return load_chat_model(str(model), folder / "state", dtype="float32", device="cpu"), model


def steering_probe(chat: ChatModel, positions: Any, threshold: float) -> Probe:
    recipe = MitigationCard(
        site="residual[1]", mode="subtract", strength=2.0, positions=positions, sigma=1.0, cosine_to_detector=1.0
    )
    return probe(chat, "p", "mean(prompt)", ["residual[1]"], threshold=threshold, recipe=recipe)


def answers(chat: ChatModel, requests: Requests, by: Probe | None) -> list[str]:
    ids = [list(each["ids"]) for each in requests]
    if by is None:
        return [reply.text for reply in generate(chat, ids, max_new_tokens=TOKENS)]
    with steering(chat, by.interventions) as steered:
        return [reply.text for reply in generate(chat, ids, max_new_tokens=TOKENS, steered=steered)]


def spec_of(model: Path, folder: Path, made: Probe, requests: Requests, steer: str, **options: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "connector": {"probes": [str(save_probe(made, folder / "cards"))], "steer": steer},
        "options": {"enable_prefix_caching": False, **options},
        "rounds": [requests],
    }


@pytest.mark.parametrize("positions", ["all", "last"])
def test_who_asks_is_steered_and_his_neighbours_are_not(
    tiny: tuple[ChatModel, Path], tmp_path: Path, positions: str
) -> None:
    chat, model = tiny
    made = steering_probe(chat, positions, 1e6)
    draw = random.Random(5)
    requests: Requests = [
        {"ids": conversation(draw, 10 + n), "max_tokens": TOKENS, **({"aside": {"steer": True}} if n % 2 else {})}
        for n in range(8)
    ]
    found = run(tmp_path, spec_of(model, tmp_path, made, requests, "asked"))
    assert "refused" not in found, found
    plain, steered = answers(chat, requests, None), answers(chat, requests, made)
    # Texts without what stands behind an end: transformers stops there.
    said = [chat.tokenizer.decode(ids, skip_special_tokens=True) for ids in found["rounds"][0]["outputs"]]
    for n, text in enumerate(said):
        wanted = steered[n] if n % 2 else plain[n]
        assert text.strip().startswith(wanted)
    assert sum(a != b for a, b in zip(plain, steered, strict=True)) >= 6
    told = [reading.get("steered") for reading in found["rounds"][0]["readings"]]
    assert [one and one["why"] for one in told] == [None, "asked"] * 4


def test_a_flagged_prompts_answer_is_steered(tiny: tuple[ChatModel, Path], tmp_path: Path) -> None:
    chat, model = tiny
    draw = random.Random(6)
    requests: Requests = [{"ids": conversation(draw, 10 + n), "max_tokens": TOKENS} for n in range(4)]
    found = {
        threshold: run(tmp_path, spec_of(model, tmp_path, steering_probe(chat, "all", threshold), requests, "flagged"))[
            "rounds"
        ][0]
        for threshold in (-1e6, 1e6)
    }
    assert [each["steered"]["why"] for each in found[-1e6]["readings"]] == ["flagged"] * 4
    assert all("steered" not in each for each in found[1e6]["readings"])
    changed = [a != b for a, b in zip(found[-1e6]["outputs"], found[1e6]["outputs"], strict=True)]
    assert sum(changed) >= 3
    # What flags it is read a step after the prompt.
    assert all(a[:2] == b[:2] for a, b in zip(found[-1e6]["outputs"], found[1e6]["outputs"], strict=True))


def test_prefix_caching_is_refused(tiny: tuple[ChatModel, Path], tmp_path: Path) -> None:
    chat, model = tiny
    spec = spec_of(model, tmp_path, steering_probe(chat, "all", 0.0), [], "asked", enable_prefix_caching=True)
    assert "--no-enable-prefix-caching" in run(tmp_path, spec)["refused"]
