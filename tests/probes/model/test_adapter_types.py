"""Adapters that awry would not read are refused by their type; those in the layers score as PEFT has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from probes.errors import ModelError
from probes.model import lora
from probes.model.load import AdapterSpec, add_adapter, load_chat_model
from tests.support.models.tiny import saved_tiny, tiny_chat, tiny_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

IDS = torch.arange(40, 60).unsqueeze(0)
_TUNED: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
PROMPTS = {
    "prompt-tuning": peft.PromptTuningConfig(**_TUNED),
    "p-tuning": peft.PromptEncoderConfig(**_TUNED, encoder_hidden_size=16),
    "prefix": peft.PrefixTuningConfig(**_TUNED),
}
_LAYERS: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
IN_LAYERS = {
    "lora": peft.LoraConfig(**_LAYERS, r=4),
    "rslora": peft.LoraConfig(**_LAYERS, r=4, use_rslora=True),
    "dora": peft.LoraConfig(**_LAYERS, r=4, use_dora=True),
    "ia3": peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "vera": peft.VeraConfig(task_type="CAUSAL_LM", target_modules=["o_proj"], r=4),
    "loha": peft.LoHaConfig(**_LAYERS, r=4),
}


def saved(config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_model("llama"), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize("name", PROMPTS)
def test_what_acts_before_the_decoder_is_refused_before_the_weights_are_read(name: str, tmp_path: Path) -> None:
    adapter = saved(PROMPTS[name], tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"adapter \((PROMPT_TUNING|P_TUNING|PREFIX_TUNING)\) acts by PEFT's own call"):
        add_adapter(tiny_chat("llama"), AdapterSpec(adapter, 1.0))
    folder = tmp_path / "model"
    saved_tiny(folder)
    (folder / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(ModelError, match="acts by PEFT's own call"):
        load_chat_model(str(folder), tmp_path, adapters=[AdapterSpec(adapter, 1.0)], device="cpu")


@pytest.mark.parametrize("name", IN_LAYERS)
def test_what_acts_in_the_layers_is_read_as_peft_has_it(name: str, tmp_path: Path) -> None:
    adapter = saved(IN_LAYERS[name], tmp_path / "adapter")
    chat = tiny_chat("llama")
    with torch.no_grad():
        plain = chat.layout.decoder(input_ids=IDS)[0]
    add_adapter(chat, AdapterSpec(adapter, 1.0))
    wanted: Any = peft.PeftModel.from_pretrained(tiny_model("llama"), str(adapter)).eval()
    with torch.no_grad():
        ours = chat.layout.decoder(input_ids=IDS)[0]
        theirs = wanted(input_ids=IDS, output_hidden_states=True).hidden_states[-1]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (ours - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", IN_LAYERS)
def test_an_adapter_that_is_merged_reads_the_same_and_is_off_in_base(name: str, tmp_path: Path) -> None:
    chat = tiny_chat("llama")
    with torch.no_grad():
        plain = chat.layout.decoder(input_ids=IDS)[0]
    add_adapter(chat, AdapterSpec(saved(IN_LAYERS[name], tmp_path / "adapter"), 0.5 if name == "lora" else 1.0))
    before = chat.identity
    with torch.no_grad():
        apart = chat.layout.decoder(input_ids=IDS)[0]
    assert lora.merge(chat.model)
    with torch.no_grad():
        merged = chat.layout.decoder(input_ids=IDS)[0]
        with chat.base():
            off = chat.layout.decoder(input_ids=IDS)[0]
    np.testing.assert_allclose(merged, apart, atol=1e-5)
    np.testing.assert_allclose(off, plain, atol=1e-5)
    assert chat.identity == before


def test_a_quantised_model_is_not_merged(tmp_path: Path) -> None:
    chat = tiny_chat("llama")
    add_adapter(chat, AdapterSpec(saved(IN_LAYERS["lora"], tmp_path / "adapter"), 1.0))
    chat.model.config.quantization_config = {"quant_method": "bitsandbytes"}  # type: ignore[union-attr]
    assert not lora.merge(chat.model)
    assert not any(getattr(module, "merged", False) for module in chat.model.modules())


def test_an_adapter_that_only_peft_starts_is_refused(tmp_path: Path) -> None:
    # It acts from these tokens on, which PEFT looks for in its own call of the model.
    config = peft.LoraConfig(**_LAYERS, r=4, alora_invocation_tokens=[7, 8])
    with pytest.raises(ModelError, match=r"\(activated LoRA\) acts by PEFT's own call"):
        add_adapter(tiny_chat("llama"), AdapterSpec(saved(config, tmp_path / "adapter"), 1.0))


@pytest.mark.parametrize("text", ["[]", "{", '{"peft_type": "NO_SUCH"}', "{}"])
def test_a_config_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    adapter = saved(IN_LAYERS["lora"], tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match="adapter: "):
        add_adapter(tiny_chat("llama"), AdapterSpec(adapter, 1.0))
