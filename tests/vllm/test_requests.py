"""What happens to requests in an engine: too little memory, aborts, long answers, readings on the way."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from probes.model.load import load_chat_model
from tests.vllm.models import cards, saved
from tests.vllm.running import compare, expected, run
from tests.vllm.test_parity import TOLERANCE, Made, Requests, conversation


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("llama")
    model = saved(folder / "model", "llama")
    chat = load_chat_model(str(model), folder / "state", dtype="float32", device="cpu")
    return chat, model, cards(chat, folder / "cards")


def spec_of(model: Path, paths: list[Path], rounds: list[Requests], **options: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "connector": {"probes": [str(path) for path in paths]},
        "options": options,
        "rounds": rounds,
    }


def test_preempted_requests_are_read_once_and_right(tiny: Made, tmp_path: Path) -> None:
    """The KV cache has room for a few of them: others are thrown out and begin again. The last answer is a long one."""
    chat, model, paths = tiny
    draw = random.Random(2)
    requests: Requests = [{"ids": conversation(draw, draw.randrange(90, 120)), "max_tokens": 150} for _ in range(8)]
    requests.append({"ids": conversation(draw, 20), "max_tokens": 600})
    found = run(tmp_path, spec_of(model, paths, [requests], num_gpu_blocks_override=9))
    assert "refused" not in found, found
    assert found["preemptions"] > 0
    compare(chat, paths, requests, found["rounds"][0], TOLERANCE)


def test_aborted_requests_leave_nothing_and_the_others_are_right(tiny: Made, tmp_path: Path) -> None:
    chat, model, paths = tiny
    draw = random.Random(3)
    requests: Requests = [{"ids": conversation(draw, draw.randrange(4, 90)), "max_tokens": 30} for _ in range(10)]
    found = run(tmp_path, {**spec_of(model, paths, [requests]), "abort_after": 8})["rounds"][0]
    assert (found["held"], found["kept"]) == (10, 0)

    def right(number: int, ids: list[int]) -> None:
        wanted = expected(chat, paths, ids, len(requests[number]["ids"]))
        got = {each["name"]: each["value"] for each in found["readings"][number]["probes"]}
        assert got.keys() == {name for name, value in wanted.items() if value is not None}
        assert all(abs(value - (wanted[name] or 0.0)) <= TOLERANCE for name, value in got.items())

    for number in range(1, 10, 2):
        assert found["readings"][number]["finish"] == "length"
        right(number, [*requests[number]["ids"], *found["outputs"][number][:-1]])
    for number in range(0, 10, 2):
        assert found["readings"][number]["finish"] == "abort"
    assert found["readings"][0]["probes"] == []
    why = {each["reason"] for each in found["readings"][0]["not_scored"]}
    assert why == {"the request ended before the model read it"}
    # What was read of an answer that was cut off is right as far as it goes.
    answered = found["readings"][2]["tokens"]["response"]
    assert 0 < answered < 30
    right(2, [*requests[2]["ids"], *found["outputs"][2][:answered]])
