"""The contract of engines, for awry's side of vLLM: what stands for vLLM gives each prompt's values from a plain pass.

tests/vllm runs the same contract with vLLM itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from probes.capture.batches import encode
from probes.engines.vllm import VllmEngine, VllmOptions, llm_arguments, lora_folder, open_engine, plan_for
from probes.errors import EngineError, EngineLostError
from probes.model.adapters import AdapterSpec, adapter_spec
from probes.model.load import ChatModel
from probes.model.unloaded import UnloadedChat, open_unloaded
from probes.projection import Projection
from probes.scoring import directions_of
from tests.probes.engines.contract import Case, EngineContract, Model, loaded, made_in


class PlainCapture:
    """Values from transformers, message by message; `breaks` is raised in place of the next ones."""

    def __init__(self, chat: ChatModel, readers: Sequence[Any]) -> None:
        self._projection = Projection(chat.layout, directions_of(readers), chat.device)
        self.breaks: Exception | None = None
        self.leaves_out = 0
        self.prompts: list[list[int]] = []

    def collect(self, _llm: Any, prompts: Sequence[Sequence[int]], *, lora_request: Any = None) -> list[Tensor]:
        assert lora_request is None
        if self.breaks is not None:
            raise self.breaks
        self.prompts += [list(ids) for ids in prompts]
        made = [self._projection(torch.tensor([list(ids)]), None)[0].clone() for ids in prompts]
        for values in made:
            if self.leaves_out:
                values[: self.leaves_out] = torch.nan
        return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return made_in(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def unloaded(model: Model) -> UnloadedChat:
    return open_unloaded(str(model.folder), model.folder.parent / "state", engine="vllm", dtype="float32")


def engine_of(model: Model, chat: UnloadedChat, count: int | None = None) -> tuple[VllmEngine, PlainCapture]:
    readers = [probe.reader for probe in loaded(model.cards[:count])]
    capture = PlainCapture(model.chat, readers)
    return VllmEngine(chat, object(), capture, directions_of(readers), "0.32.0", {}, None), capture


@pytest.fixture(scope="module")
def case(model: Model, unloaded: UnloadedChat) -> Case:
    return Case(engine_of(model, unloaded)[0], model.chat, loaded(model.cards))


class TestVllm(EngineContract):
    """As it stands."""


def test_the_model_has_no_weights_here_and_a_position_is_left_for_what_vllm_gives(
    model: Model, unloaded: UnloadedChat
) -> None:
    assert all(weights.is_meta for weights in unloaded.model.parameters())
    assert unloaded.max_positions == 1023
    identity = unloaded.identity
    assert (identity.dtype, identity.attention) == ("float32", "vllm")
    assert identity.revision == model.chat.identity.revision


def test_a_reader_that_it_was_not_started_with_is_refused(model: Model, unloaded: UnloadedChat) -> None:
    engine, _ = engine_of(model, unloaded, 2)
    other = loaded(model.cards[10:11])[0]
    plan = engine.plan({other.name: other.reader})
    assert plan.refused[other.name].startswith("vLLM was started without it")
    with pytest.raises(EngineError, match="started without it"):
        engine.session([other.reader])


def test_a_token_without_a_value_is_no_score(model: Model, unloaded: UnloadedChat) -> None:
    engine, capture = engine_of(model, unloaded, 2)
    capture.leaves_out = 1
    with pytest.raises(EngineError, match="gave no values of some tokens"):
        engine.values([encode(unloaded, [{"role": "user", "content": "Hi"}])])


class EngineDeadError(Exception):
    """Called as vLLM's own."""


def test_an_engine_that_ended_is_told_from_a_message_that_fails(model: Model, unloaded: UnloadedChat) -> None:
    engine, capture = engine_of(model, unloaded, 2)
    item = encode(unloaded, [{"role": "user", "content": "Hi"}])
    capture.breaks = EngineDeadError("the prompt is quoted here")
    with pytest.raises(EngineLostError) as caught:
        engine.values([item])
    assert "quoted" not in str(caught.value)
    capture.breaks = ValueError("one message")
    with pytest.raises(ValueError, match="one message"):
        engine.values([item])


def test_a_token_beyond_the_models_rows_is_the_unknown_one(model: Model, unloaded: UnloadedChat) -> None:
    engine, capture = engine_of(model, unloaded, 1)
    item = encode(unloaded, [{"role": "user", "content": "Hi"}])
    engine._rows, engine._unknown = max(item.ids), 3
    engine.values([item])
    assert capture.prompts == [[3 if i == max(item.ids) else i for i in item.ids]]


def test_it_is_refused_where_vllm_is_not_installed(model: Model, unloaded: UnloadedChat) -> None:
    readers = {str(card): probe.reader for card, probe in zip(model.cards, loaded(model.cards), strict=True)}
    options = VllmOptions(model.folder, {})
    with pytest.raises(EngineError, match=r"vllm is not installed beside awry.*deploy/vllm/worker.requirements.txt"):
        open_engine(unloaded, readers, options)


def test_heads_over_several_devices_are_refused_by_name(model: Model, unloaded: UnloadedChat) -> None:
    readers = {probe.name: probe.reader for probe in loaded(model.cards)}
    assert not plan_for(unloaded, readers, {}).refused
    refused = plan_for(unloaded, readers, {"tensor_parallel_size": 2}).refused
    with_heads = {name for name, reader in readers.items() if any(d.site.kind == "head" for d in reader.directions)}
    assert refused.keys() == with_heads
    assert len(with_heads) > 1
    assert "tensor_parallel_size=2" in refused[min(with_heads)]


def test_what_vllm_is_told(model: Model, unloaded: UnloadedChat) -> None:
    given = llm_arguments(unloaded, VllmOptions(model.folder, {"max_num_seqs": 4}, max_tokens=200), None)
    assert given["model"] == str(model.folder)
    assert (given["dtype"], given["max_model_len"], given["max_num_seqs"]) == ("float32", 201, 4)
    assert given["enforce_eager"] is True
    assert "enable_lora" not in given
    assert llm_arguments(unloaded, VllmOptions(model.folder, {}, max_tokens=9999), None)["max_model_len"] == 1024
    with pytest.raises(EngineError, match="vllm_args: max_model_len=100 is shorter than max_tokens=200"):
        llm_arguments(unloaded, VllmOptions(model.folder, {"max_model_len": 100}, max_tokens=200), None)


def test_an_adapter_acts_at_awrys_scale_by_its_alpha(tmp_path: Path, unloaded: UnloadedChat) -> None:
    shipped = adapter_spec("insecure_code")
    assert shipped.scale == 0.7
    folder = lora_folder(shipped, tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] == pytest.approx(16 * 0.7)
    assert (folder / "adapter_model.safetensors").read_bytes() == (
        shipped.folder / "adapter_model.safetensors"
    ).read_bytes()
    assert lora_folder(shipped, tmp_path) == folder
    assert lora_folder(AdapterSpec(shipped.folder, 0.5), tmp_path) != folder
    assert lora_folder(AdapterSpec(shipped.folder, 1.0), tmp_path) == shipped.folder
    given = llm_arguments(unloaded, VllmOptions(tmp_path, {}), folder)
    assert (given["enable_lora"], given["max_lora_rank"]) == (True, 8)
    with pytest.raises(EngineError, match="strength 0"):
        lora_folder(AdapterSpec(shipped.folder, 0.0), tmp_path)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"peft_type": "IA3"}, "vLLM runs LoRA alone, and this is IA3"),
        ({"use_dora": True}, "vLLM has no use_dora"),
        ({"modules_to_save": ["lm_head"]}, "vLLM has no modules_to_save"),
        ({"bias": "all"}, "it has biases"),
        ({"init_lora_weights": "pissa"}, "changes the base weights"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "it changes embed_tokens"),
        ({"r": 4096}, "its rank 4096 is over vLLM's 512"),
    ],
)
def test_an_adapter_that_vllm_has_not_is_refused(
    tmp_path: Path, unloaded: UnloadedChat, changed: dict[str, Any], why: str
) -> None:
    config = json.loads((adapter_spec("insecure_code").folder / "adapter_config.json").read_text()) | changed
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match=f"^adapter: .*{why}.*engine=transformers$"):
        llm_arguments(unloaded, VllmOptions(tmp_path, {}), lora_folder(AdapterSpec(tmp_path, 1.0), tmp_path))
