from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from probes.errors import LayoutError, ModelError
from probes.model.layout import find_layout
from tests.support.models.tiny import (
    FAMILIES,
    HEAD_DIM,
    MULTIMODAL,
    N_BLOCKS,
    N_HEADS,
    N_KV,
    SQUARE,
    WIDTH,
    attention_of,
    blocks_of,
    decoder_of,
    tiny_model,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_finds_the_parts_of_every_family(family: str) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    assert list(layout.blocks) == blocks_of(family, model)
    assert layout.decoder is decoder_of(family, model)
    assert layout.n_blocks == N_BLOCKS
    assert layout.width == WIDTH
    assert layout.n_heads == N_HEADS
    assert layout.n_kv_heads == (N_HEADS if family in ("gpt2", "gpt_neox") else N_KV)
    assert layout.head_dim == (WIDTH // N_HEADS if family in SQUARE else HEAD_DIM)
    for block, projection in zip(layout.blocks, layout.projections, strict=True):
        assert projection in list(attention_of(block).children())


@pytest.mark.parametrize("family", FAMILIES)
def test_final_norm_is_the_decoders_last_module(family: str) -> None:
    model = tiny_model(family)
    name = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}.get(family, "model.norm")
    assert find_layout(model).final_norm is model.get_submodule(name)


@pytest.mark.parametrize("family", MULTIMODAL)
def test_multimodal_wrappers_are_unwrapped_to_their_text_decoder(family: str) -> None:
    model = tiny_model(family)
    layout = find_layout(model)
    assert layout.decoder is model.get_submodule("model.language_model")
    assert list(layout.blocks) == blocks_of(family, model)
    assert layout.width == WIDTH
    assert layout.head_dim == HEAD_DIM


def test_the_head_dim_of_the_config_wins_over_width_by_heads() -> None:
    model = tiny_model("llama")
    assert find_layout(model).head_dim * N_HEADS == 48 != model.config.hidden_size


def unknown_models() -> list[Any]:
    state_space = transformers.MambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=2)
    encoder_decoder = transformers.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    return [transformers.MambaForCausalLM(state_space), transformers.T5ForConditionalGeneration(encoder_decoder)]


@pytest.mark.parametrize("model", unknown_models(), ids=["mamba", "t5"])
def test_an_unknown_layout_says_what_was_looked_for(model: Any) -> None:
    with pytest.raises(LayoutError) as caught:
        find_layout(model)
    text = str(caught.value)
    assert type(model).__name__ in text
    assert "ModuleList of 2 blocks" in text
    for name in ("self_attn", "attn", "attention"):
        assert name in text
    assert text.endswith("found: none")
    assert isinstance(caught.value, ModelError)


class Attention(nn.Module):
    def __init__(self, taken: int = 32, name: str = "o_proj") -> None:
        super().__init__()
        setattr(self, name, nn.Linear(taken, 32))


class Block(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.self_attn = attention


class HandMade(nn.Module):
    def __init__(self, attention: Callable[[], Attention] = Attention, stacks: int = 1, norm: bool = True) -> None:
        super().__init__()
        text = SimpleNamespace(num_hidden_layers=2, num_attention_heads=4, hidden_size=32, head_dim=8)
        self.config = SimpleNamespace(get_text_config=lambda **_: text)
        for i in range(stacks):
            stack = nn.Module()
            stack.layers = nn.ModuleList(Block(attention()) for _ in range(2))
            if norm:
                stack.norm = nn.LayerNorm(32)
            setattr(self, f"stack{i}", stack)


def test_a_hand_made_stack_is_found() -> None:
    model = HandMade()
    layout = find_layout(model)
    assert layout.decoder is model.stack0
    assert layout.n_kv_heads == 4


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (HandMade(stacks=2), "found: stack0, stack1"),
        (HandMade(norm=False), "no final norm beside the blocks; looked for norm"),
        (HandMade(attention=lambda: Attention(name="unheard_of")), "block 0 has no attention output projection"),
        (HandMade(attention=lambda: Attention(taken=40)), "takes 40 values, but the config says 32"),
    ],
    ids=["two stacks", "no norm", "no projection", "wrong width"],
)
def test_each_missing_part_is_named(model: HandMade, said: str) -> None:
    with pytest.raises(LayoutError, match="HandMade") as caught:
        find_layout(model)
    assert said in str(caught.value)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_lora_is_seen_through() -> None:
    from peft import LoraConfig, get_peft_model

    plain = tiny_model("llama")
    blocks = blocks_of("llama", plain)
    wrapped = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear"))
    layout = find_layout(wrapped)
    assert list(layout.blocks) == blocks
    assert layout.head_dim == HEAD_DIM
    assert all(type(p).__module__.startswith("peft") for p in layout.projections)
    taken = torch.zeros(1, 1, N_HEADS * HEAD_DIM)
    assert layout.projections[0](taken).shape == (1, 1, WIDTH)
