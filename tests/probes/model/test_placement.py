"""Several devices and quantised weights, as far as a CPU goes: what is on a disk, 4 and 8 bits, FP8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from probes.capture.aggregation import parse_aggregation
from probes.capture.sites import Site, parse_site, site_width
from probes.directions import Direction
from probes.errors import ModelError
from probes.model.load import AdapterSpec, ChatModel, load_chat_model
from probes.scoring import Reader, score_all
from probes.steer.generation import generate
from tests.support.models.tiny import VOCAB, make_adapter, saved_tiny, tiny_tokenizer, token_prompts

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
]

SITES = ("residual[0]", "head[1,2]", "residual[1]", "residual[2]", "final")
ITEMS = token_prompts(5, [3, 9, 1, 30])
ON_DISK = {
    **{"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"},
    **{"model.layers.2": "cpu", "model.norm": "disk", "lm_head": "cpu"},
}


# Whole numbers of what a kernel for 4 bits takes at a time.
WIDE = transformers.LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    pad_token_id=256,
    eos_token_id=257,
)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    made = tmp_path / "tiny-llama"
    transformers.LlamaForCausalLM(WIDE).save_pretrained(made)
    tiny_tokenizer().save_pretrained(made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tiny-llama"
    saved_tiny(made)
    return made


def load(folder: Path, **options: Any) -> ChatModel:
    return load_chat_model(str(folder), folder.parent, dtype="float32", **options)


def scores(chat: ChatModel, name: str) -> np.ndarray[Any, Any]:
    site, draw = parse_site(name), np.random.default_rng(0)
    width = site_width(site, chat.layout)
    direction = Direction(site, draw.normal(size=width), draw.normal(size=width), 1.0)
    return score_all(chat, ITEMS, [Reader((direction,), parse_aggregation("mean(prompt)"))])


def test_weights_that_a_map_puts_on_disk_score_alike(folder: Path) -> None:
    whole, spread = load(folder), load(folder, device_map=json.dumps(ON_DISK))
    assert any(p.is_meta for p in spread.layout.blocks[1].parameters())  # they come when they are needed
    assert spread.device == torch.device("cpu")
    for site in SITES:
        np.testing.assert_array_equal(scores(spread, site), scores(whole, site), err_msg=site)
    assert spread.identity == whole.identity
    assert generate(spread, ["Hello"], max_new_tokens=4) == generate(whole, ["Hello"], max_new_tokens=4)


def test_a_map_and_a_part(folder: Path) -> None:
    part = load(folder, device_map=json.dumps(ON_DISK), sites=[Site("residual", 1)])
    np.testing.assert_array_equal(scores(part, "residual[1]"), scores(load(folder), "residual[1]"))
    with pytest.raises(ModelError, match="was not loaded"):
        scores(part, "residual[2]")


def test_words_for_a_map_are_transformers_own(folder: Path) -> None:
    np.testing.assert_array_equal(scores(load(folder, device_map="auto"), "final"), scores(load(folder), "final"))


@pytest.mark.parametrize("text", ["everywhere", "{}", "[1]", '{"model": null}', "{"])
def test_a_map_that_is_none_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(ModelError, match="device_map: write one of auto, balanced"):
        load(folder, device_map=text)


def test_contradictions_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="device_map: the setting device is set as well"):
        load(folder, device_map="auto", device="cpu")
    with pytest.raises(ModelError, match="quantization: 'tiny' is none of bitsandbytes-4bit"):
        load(folder, quantization="tiny")
    with pytest.raises(ModelError, match="cannot load"):
        load(folder, device_map=json.dumps({"": "cuda:77"}))


@pytest.mark.parametrize(("name", "said"), [("bitsandbytes-4bit", "4 bit"), ("bitsandbytes-8bit", "8 bit")])
def test_weights_are_quantised_as_they_are_loaded(wide: Path, tmp_path: Path, name: str, said: str) -> None:
    adapter = AdapterSpec(make_adapter(tmp_path / "adapter", config=WIDE), 1.0)
    whole = load(wide, quantization=name, adapters=[adapter])
    assert whole.identity.dtype == f"float32, bitsandbytes {said}"
    plain = load(wide, adapters=[adapter])
    assert plain.identity.dtype == "float32"
    for site in SITES:
        quantised, exact = scores(whole, site), scores(plain, site)
        assert np.isfinite(quantised).all()
        assert not np.array_equal(quantised, exact)
        part = load(wide, quantization=name, adapters=[adapter], sites=[parse_site(site)])
        np.testing.assert_array_equal(scores(part, site), quantised, err_msg=site)
    if said == "8 bit":
        np.testing.assert_allclose(scores(whole, "final"), scores(plain, "final"), atol=0.05)


def test_a_quantised_checkpoint_needs_no_setting(wide: Path, tmp_path: Path) -> None:
    whole: Any = load(wide, quantization="bitsandbytes-4bit")
    saved = tmp_path / "quantised"
    whole.model.save_pretrained(saved)
    tiny_tokenizer().save_pretrained(saved)
    again = load(saved)
    assert again.identity.dtype == "float32, bitsandbytes 4 bit"
    np.testing.assert_array_equal(scores(again, "head[1,2]"), scores(whole, "head[1,2]"))


def test_fp8_is_read_in_the_numbers_that_a_cpu_has(folder: Path, tmp_path: Path) -> None:
    """Blocks of 4 x 4 with a scale each, as such checkpoints have them of 128 x 128."""
    made: dict[str, torch.Tensor] = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        made[name] = weight
        if "proj" in name:
            rows, columns = weight.shape
            blocks = weight.reshape(rows // 4, 4, columns // 4, 4)
            scale = blocks.abs().amax((1, 3)) / 448
            made[name] = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
            made[f"{name}_scale_inv"] = scale
    (quantised := tmp_path / "fp8").mkdir()
    save_file(made, quantised / "model.safetensors", {"format": "pt"})
    tiny_tokenizer().save_pretrained(quantised)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [4, 4], "activation_scheme": "dynamic"}
    (quantised / "config.json").write_text(json.dumps(config))
    chat, exact = load(quantised), load(folder)
    for site in SITES:
        np.testing.assert_allclose(scores(chat, site), scores(exact, site), atol=0.2, err_msg=site)
        assert not np.array_equal(scores(chat, site), scores(exact, site))
    part = load(quantised, sites=[Site("residual", 1)])
    np.testing.assert_array_equal(scores(part, "residual[1]"), scores(chat, "residual[1]"))
