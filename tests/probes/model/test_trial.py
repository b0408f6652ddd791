"""A forward pass without weights finds what does not run as its parts look."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from probes.errors import LayoutError
from probes.model.checkpoint import inspect
from probes.model.layout import find_layout
from probes.model.trial import TESTED, is_tested, try_out
from tests.support.models.classes import CASES, config_of
from tests.support.models.refused import REFUSED, refused_model
from tests.support.models.tiny import GROUPED, tiny_model


def built(model_type: str) -> Callable[[], Any]:
    config = config_of(model_type)
    return lambda: transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gemma3n_text", "nanochat", "qwen3_next", "mixtral", "inkling2_text"]
)
def test_a_class_that_is_read_passes(name: str) -> None:
    assert try_out(built(name))


def test_the_classes_that_need_no_trial_are_those_with_a_test() -> None:
    assert set(CASES) == TESTED
    assert is_tested(tiny_model("gemma3_vision"))
    # A checkpoint's own code may use the name of a class that it has changed.
    own = type("LlamaForCausalLM", (transformers.LlamaForCausalLM,), {"__module__": "transformers_modules.mine"})
    assert not is_tested(own(transformers.LlamaConfig(**GROUPED)))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_read_is_refused_without_weights(name: str) -> None:
    def look() -> None:
        with torch.device("meta"):
            whole = refused_model(name)
        find_layout(whole)
        try_out(lambda: refused_model(name, dtype=torch.bfloat16))

    with pytest.raises(LayoutError) as caught:
        look()
    assert REFUSED[name].why in str(caught.value)


class Odd(transformers.LlamaForCausalLM):  # type: ignore[misc]
    """A decoder of a checkpoint's own code, which does something else with its parts."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__(transformers.LlamaConfig(**GROUPED))
        decoder = self.model
        decoder.forward = lambda input_ids, **_: (forward(decoder, decoder.embed_tokens(input_ids)),)


class Plain(nn.Module):
    """A block that a test can call without masks and rotations."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


def in_order(decoder: Any, x: torch.Tensor) -> torch.Tensor:
    for block in decoder.layers:
        x = block(x)
    return x


CASES_OF_OWN_CODE: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], str | None]] = {
    "plain": (lambda d, x: d.norm(in_order(d, x)), None),
    "norm on the embeddings too": (lambda d, x: d.norm(in_order(d, d.norm(x))), None),
    "looped": (lambda d, x: d.norm(in_order(d, in_order(d, x))), "run more than once"),
    "one left out": (lambda d, x: d.norm(d.layers[2](d.layers[0](x))), "block 1 is not run on text"),
    "backwards": (lambda d, x: d.norm(d.layers[0](d.layers[1](d.layers[2](x)))), "out of order"),
    "no norm": (in_order, "none that is run there"),
    "norm before": (lambda d, x: in_order(d, d.norm(x)), "none that is run there"),
    "more behind the norm": (lambda d, x: d.norm(in_order(d, x)) * 2, "something comes after it"),
    "streams": (
        lambda d, x: d.norm(in_order(d, x.unsqueeze(2).expand(-1, -1, 2, -1))),
        "block 0 returns (1, 3, 2, 32)",
    ),
}


@pytest.mark.parametrize("case", CASES_OF_OWN_CODE)
def test_a_decoder_that_does_something_else_is_refused(case: str) -> None:
    forward, why = CASES_OF_OWN_CODE[case]

    def make() -> Any:
        model = Odd(forward)
        model.model.layers = nn.ModuleList(Plain() for _ in range(3))
        return model

    if why is None:
        assert try_out(make)
        return
    with pytest.raises(LayoutError) as caught:
        try_out(make)
    assert why in str(caught.value)


def test_code_that_asks_for_values_is_not_judged() -> None:
    def forward(decoder: Any, x: torch.Tensor) -> torch.Tensor:
        if float(x.sum()) > 0:
            return x
        return in_order(decoder, x)

    def make() -> Any:
        model = Odd(forward)
        model.model.layers = nn.ModuleList(Plain() for _ in range(3))
        return model

    assert not try_out(make)


CODE = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

class OwnConfig(LlamaConfig):
    model_type = "llama"

class OwnModel(LlamaModel):
    def forward(self, input_ids=None, **kwargs):
        x = self.embed_tokens(input_ids)
        rotations = self.rotary_emb(x, torch.arange(x.shape[1]).unsqueeze(0))
        for block in [*self.layers] * TIMES:
            x = block(x, position_embeddings=rotations)
        return (self.norm(x),)

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = OwnModel(config)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_checkpoints_own_code_is_tried_out_before_its_weights_are_read(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("transformers.dynamic_module_utils", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_MODULES_CACHE", str(tmp_path / "modules"), raising=False)
    own = {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}}
    values = transformers.LlamaConfig(**GROUPED).to_dict() | own
    folder = tmp_path / f"times{times}"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "own.py").write_text(CODE.replace("TIMES", str(times)))
    if times == 1:
        assert inspect(str(folder), name="own", trust_remote_code=True).model_class.__name__ == "OwnForCausalLM"
        return
    with pytest.raises(LayoutError, match=r"OwnForCausalLM: .* run more than once"):
        inspect(str(folder), name="own", trust_remote_code=True)


def test_streams_are_refused_before_weights_are_read(tmp_path: Path) -> None:
    config = transformers.CONFIG_MAPPING["deepseek_v4"](num_hidden_layers=2)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(LayoutError, match=r"found: block 0 returns \(1, 3, 4, 4096\)"):
        inspect(str(tmp_path), name="streams")
