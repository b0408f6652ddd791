"""What the scheduler's side holds of requests: values by step, and the readings that come of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probes.vllm.collect import Collector, Scheduled
from probes.vllm.requests import Requests, public_id
from probes.vllm.settings import ConnectorSettings

BLOCK = 4


class Said:
    """A maker that says which values it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[np.ndarray[Any, Any], list[int], int]] = []

    def __call__(self, values: Any, ids: list[int], n_prompt: int, _lora: Any = None) -> list[Any]:
        self.given.append((values, ids, n_prompt))
        return []

    def why_not(self, _probe: Any, _lora: Any) -> str | None:
        return None


class Sink:
    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.sizes: list[int] = []

    def put(self, make: Any, size: int = 0) -> None:
        self.made.append(make())
        self.sizes.append(size)

    def close(self) -> None:
        pass


class Running:
    """A request as vLLM's scheduler has it, run token by token."""

    def __init__(self, name: str, prompt: int, **more: Any) -> None:
        self.request_id = name
        self.num_prompt_tokens = prompt
        self.all_token_ids = list(range(prompt))
        self.kv_transfer_params = more.get("params")
        self.lora_request = None
        self.status = SimpleNamespace(name="FINISHED_LENGTH_CAPPED")

    @property
    def num_tokens(self) -> int:
        return len(self.all_token_ids)


def value_of(slot: int) -> float:
    return float(slot)


def run(
    requests: Requests, collector: Collector, request: Running, tokens: int, *, blocks: list[int], cached: int = 0
) -> None:
    """Prefill, then one token a step; each step's values are there with the step after it."""
    requests.begin(request)
    start, late = cached, None
    for _ in range(tokens):
        stop = request.num_tokens
        step = collector.plan([Scheduled(request.request_id, start, stop, blocks)])
        start = stop
        request.all_token_ids.append(1000 + stop)
        if late is not None:
            collector.take(late)
            requests.progress()
        late = np.array([[value_of(slot)] for slot in step.slots], np.float32)
    requests.finish(request)
    collector.plan([])
    collector.take(late)
    requests.progress()


def made(**settings: Any) -> tuple[Requests, Collector, Said, Sink]:
    collector, maker, sink = Collector(1, BLOCK), Said(), Sink()
    given = ConnectorSettings.read({"probes": ["p"], "readings": "memory", **settings})
    return Requests(collector, maker, sink, given, model="m"), collector, maker, sink  # type: ignore[arg-type]


def test_every_token_but_the_last_has_its_value_by_its_slot() -> None:
    requests, collector, maker, sink = made()
    run(requests, collector, Running("r", 6), 5, blocks=[7, 2, 9], cached=4)
    assert [reading["kind"] for reading in sink.made] == ["final"]
    values, ids, n_prompt = maker.given[0]
    assert values[:, 0].tolist() == [28, 29, 30, 31, 8, 9, 10, 11, 36, 37]
    assert (len(ids), n_prompt, sink.made[0]["tokens"]) == (11, 6, {"prompt": 6, "response": 4, "cached": 4})
    assert len(collector) == 0


def test_a_reading_on_the_way_has_all_of_its_values() -> None:
    requests, collector, maker, sink = made(partial_every=3)
    run(requests, collector, Running("r", 5), 11, blocks=list(range(5)))
    assert [reading["kind"] for reading in sink.made] == ["partial"] * 3 + ["final"]
    assert [reading["tokens"]["response"] for reading in sink.made] == [3, 6, 9, 10]
    for (values, *_), reading in zip(maker.given, sink.made, strict=True):
        assert not np.isnan(values).any()
        assert len(values) == 5 + reading["tokens"]["response"]


def test_what_waits_counts_with_all_that_it_holds() -> None:
    requests, collector, _, sink = made()
    run(requests, collector, Running("r", 5), 4, blocks=[0, 1, 2])
    assert sink.sizes[0] >= 8 * 4 + 9 * 4


@pytest.mark.parametrize(
    ("given", "kept"),
    [({"a": 1}, {"a": 1}), ({"a": "x" * 9000}, None), (["a"], None), ("a", None), (None, None)],
)
def test_attributes_are_small_objects(given: Any, kept: Any) -> None:
    requests, collector, _, sink = made()
    run(requests, collector, Running("r", 5, params={"awry": {"attributes": given}}), 2, blocks=[0, 1, 2])
    assert sink.made[0].get("attributes") == kept


@pytest.mark.parametrize("params", [None, [], "x", {"awry": 3}, {"awry": None}])
def test_whatever_a_client_sends_along_it_is_read(params: Any) -> None:
    requests, collector, _, sink = made()
    run(requests, collector, Running("r", 5, params=params), 2, blocks=[0, 1, 2])
    assert sink.made[0]["verified"] == []


def test_a_request_that_is_aborted_with_a_step_on_its_way() -> None:
    """Its values come when it is gone: they are left out, and nothing of it stays."""
    requests, collector, maker, sink = made()
    request = Running("r", 5)
    requests.begin(request)
    step = collector.plan([Scheduled("r", 0, 5, [0, 1])])
    request.status = SimpleNamespace(name="FINISHED_ABORTED")
    requests.finish(request)
    assert sink.made == []
    collector.take(np.array([[value_of(slot)] for slot in step.slots], np.float32))
    assert (sink.made[0]["finish"], len(maker.given[0][0]), len(collector)) == ("abort", 5, 0)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("chatcmpl-9b1f-a3747d0f", "chatcmpl-9b1f"),
        ("1_chatcmpl-9b1f-a3747d0f", "chatcmpl-9b1f"),
        ("cmpl-9b1f-0-a3747d0f", "cmpl-9b1f"),
        ("0_cmpl-9b1f-12-a3747d0f", "cmpl-9b1f"),
        ("resp_9b1f-a3747d0f", "resp_9b1f"),
        ("mine", "mine"),
    ],
)
def test_the_id_is_the_clients(inside: str, outside: str) -> None:
    assert public_id(inside) == outside
