"""Scores inside vLLM are those of transformers on the same tokens, whatever vLLM does with its KV cache."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from probes.model.load import ChatModel, load_chat_model
from tests.vllm.models import CONFIGS, cards, saved
from tests.vllm.running import compare, run

TOLERANCE = 1e-4
Requests = list[dict[str, Any]]
# The model, its folder and the probes' cards.
Made = tuple[ChatModel, Path, list[Path]]


def conversation(draw: random.Random, length: int, *, system: bool = False) -> list[int]:
    """A user's turn, and what stands before it, in the tiny template's ids."""

    def text(count: int) -> list[int]:
        return [draw.randrange(33, 126) for _ in range(count)]

    before = [260, *text(12), 257] if system else []
    return [*before, 258, *text(6), 257, 259, *text(5), 257, 258, *text(length), 257, 259]


@pytest.fixture(scope="module", params=CONFIGS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    model = saved(folder / "model", request.param)
    chat = load_chat_model(str(model), folder / "state", dtype="float32", device="cpu")
    return chat, model, cards(chat, folder / "cards")


def test_every_aggregation_and_span(made: Made, tmp_path: Path) -> None:
    """16 requests at once, of unlike lengths, in no order; then again with what the prefix cache has of them; with
    chunks of a prompt, since a step takes 64 tokens."""
    chat, model, paths = made
    draw = random.Random(1)
    first: Requests = [
        {"ids": conversation(draw, draw.randrange(4, 200), system=n % 2 == 0), "max_tokens": draw.choice((1, 2, 9))}
        for n in range(16)
    ]
    # What goes on from what is cached, and the same once more.
    second = [*({"ids": [*each["ids"], *conversation(draw, 20)], "max_tokens": 5} for each in first[:6]), *first[6:10]]
    draw.shuffle(second)
    spec = {
        "model": str(model),
        "connector": {"probes": [str(path) for path in paths]},
        "options": {"max_num_batched_tokens": 64, "enable_chunked_prefill": True, "enable_prefix_caching": True},
        "rounds": [first, second],
    }
    found = run(tmp_path, spec)
    assert "refused" not in found, found
    compare(chat, paths, first, found["rounds"][0], TOLERANCE)
    compare(chat, paths, second, found["rounds"][1], TOLERANCE)
    assert sum(reading["tokens"]["cached"] > 0 for reading in found["rounds"][1]["readings"]) >= 3
