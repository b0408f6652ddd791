from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from probes.errors import LayoutError, ModelError, SiteError
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
    projections_of,
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
    assert layout.heads_at(0).kv_count == (N_HEADS if family in ("gpt2", "gpt_neox") else N_KV)
    assert layout.heads_at(0).width == (WIDTH // N_HEADS if family in SQUARE else HEAD_DIM)
    for block, projection in zip(layout.blocks, projections_of(layout), strict=True):
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
    assert layout.heads_at(0).width == HEAD_DIM


def test_the_head_dim_of_the_config_wins_over_width_by_heads() -> None:
    model = tiny_model("llama")
    assert find_layout(model).heads_at(0).width * N_HEADS == 48 != model.config.hidden_size


def test_an_encoder_decoder_is_refused() -> None:
    config = transformers.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    with pytest.raises(LayoutError, match="T5ForConditionalGeneration: an encoder-decoder") as caught:
        find_layout(transformers.T5ForConditionalGeneration(config))
    assert isinstance(caught.value, ModelError)


class Attention(nn.Module):
    def __init__(self, taken: int = 32, name: str = "o_proj", norm: str = "q_norm") -> None:
        super().__init__()
        setattr(self, name, nn.Linear(taken, 32))
        setattr(self, norm, nn.LayerNorm(taken))


class Block(nn.Module):
    def __init__(self, attention: Attention | None, name: str = "self_attn") -> None:
        super().__init__()
        if attention is not None:
            setattr(self, name, attention)
        self.mlp = nn.Linear(32, 32)


class Stack(nn.Module):
    def __init__(self, blocks: list[Block], norm: str = "norm") -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        setattr(self, norm, nn.LayerNorm(32))

    def forward(self, input_ids: Any) -> Any:
        return input_ids


class Unreached(Stack):
    def forward(self, hidden: Any) -> Any:
        return hidden


class HandMade(nn.Module):
    def __init__(self, *stacks: nn.Module, **config: Any) -> None:
        super().__init__()
        values = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "head_dim": 8, **config}
        text = SimpleNamespace(**values)
        self.config = SimpleNamespace(get_text_config=lambda **_: text)
        for i, stack in enumerate(stacks):
            setattr(self, f"stack{i}", stack)


def hand_made(*blocks: Block, norm: str = "norm", **config: Any) -> HandMade:
    return HandMade(Stack(list(blocks), norm), **config)


def plain() -> list[Block]:
    return [Block(Attention()), Block(Attention())]


def test_a_hand_made_stack_is_found() -> None:
    model = HandMade(Stack(plain()))
    layout = find_layout(model)
    assert layout.decoder is model.stack0
    assert layout.heads_at(0).kv_count == 4


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (HandMade(Stack(plain()), Stack(plain())), "found: stack0.layers (2), stack1.layers (2)"),
        (hand_made(*plain(), norm="unheard_of"), "no final norm beside the blocks"),
        (hand_made(*plain(), norm="unheard_of"), "found: unheard_of (LayerNorm)"),
        (HandMade(), "found: none"),
        (hand_made(Block(None)), "one ModuleList of 2 blocks (config.num_hidden_layers)"),
        (hand_made(Block(None)), "found: stack0.layers (1)"),
        (HandMade(Unreached(plain())), "found: stack0.layers (2), in a module that takes no input_ids"),
        (hand_made(*plain(), hidden_size=None), "its config names no hidden_size"),
    ],
)
def test_what_was_looked_for_and_found_is_told(model: HandMade, said: str) -> None:
    with pytest.raises(LayoutError, match=r"^HandMade: ") as caught:
        find_layout(model)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (Block(Attention(name="unheard_of")), "self_attn (Attention) has no output projection called o_proj"),
        (Block(Attention(taken=40)), "self_attn.o_proj takes 40 values, but there are 4 heads of 8 values"),
        (Block(Attention(taken=42)), "self_attn.o_proj takes 42 values"),
        (Block(Attention(norm="sub_norm")), "norms the outputs of several heads together (sub_norm)"),
        (Block(None), "it has no attention; found: mlp (Linear)"),
        (Block(Attention(), name="mixer"), "it has no attention; found: mixer (Attention), mlp (Linear)"),
    ],
)
def test_a_block_without_heads_says_why_and_others_have_theirs(odd: Block, why: str) -> None:
    layout = find_layout(hand_made(odd, Block(Attention())))
    assert layout.blocks_with_heads == (1,)
    with pytest.raises(SiteError, match=r"block 0 has no heads that can be read: .*; blocks with heads: 1$") as caught:
        layout.heads_at(0)
    assert why in str(caught.value)


def test_a_projection_that_blocks_share_belongs_to_none_of_them() -> None:
    shared = Attention()
    layout = find_layout(hand_made(Block(shared), Block(Attention()), Block(shared), num_hidden_layers=3))
    assert layout.blocks_with_heads == (1,)
    assert layout.heads[0] == "its attention is one with that of blocks 2"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_lora_is_seen_through() -> None:
    from peft import LoraConfig, get_peft_model

    plain = tiny_model("llama")
    blocks = blocks_of("llama", plain)
    wrapped = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear"))
    layout = find_layout(wrapped)
    assert list(layout.blocks) == blocks
    assert layout.heads_at(0).width == HEAD_DIM
    assert all(type(p).__module__.startswith("peft") for p in projections_of(layout))
    taken = torch.zeros(1, 1, N_HEADS * HEAD_DIM)
    assert layout.heads_at(0).projection(taken).shape == (1, 1, WIDTH)
