"""A tiny random model of each decoder class of transformers that is tested: for mechanics, never for behaviour.

`CASES[model_type]` says what is expected of the class: the heads of each block as (count, width), or a part of the
reason why there are none. Every model has 3 blocks or more, width 32 and 4 query heads where it has any; where the
class allows it a head is 12 wide and not 32 / 4, there are 2 key-value heads, windows are shorter than the texts, and
biases and norm weights are random, so that forgetting one shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers

from probes.model.load import ChatModel, wrap
from tests.support.models.tiny import GROUPED, HEAD_DIM, N_HEADS, N_KV, VOCAB, WIDTH, randomise, tiny_tokenizer

Expected = tuple[int, int] | str
PLAIN = (N_HEADS, HEAD_DIM)
SQUARE = (N_HEADS, WIDTH // N_HEADS)
WINDOW = 8

# Taken where the class's config has an entry of that name.
_GENERIC: dict[str, Any] = {
    **GROUPED,
    "sliding_window": WINDOW,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "use_cache": True,
}
_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"
_LATENT: dict[str, Any] = {
    "num_key_value_heads": N_HEADS,
    "head_dim": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
_MLA = (N_HEADS, 6)
# Of attention to the best few: so many heads that no two tokens are equally good, which would be told apart by chance.
_INDEXED: dict[str, Any] = {"index_n_heads": 16, "index_head_dim": 8, "index_topk": 16}
_DELTA: dict[str, Any] = {
    "layer_types": [_LINEAR, _LINEAR, _FULL],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
_INKLING: dict[str, Any] = {
    "swa_num_attention_heads": N_HEADS,
    "swa_num_key_value_heads": N_KV,
    "swa_head_dim": 8,
    "sliding_window_size": WINDOW,
    "layer_types": ["hybrid_sliding", "hybrid_sliding", "hybrid"],
    "d_rel": 4,
    "rel_extent": 32,
    "unpadded_vocab_size": VOCAB,
}
NO_ATTENTION = "it has no attention; found: "


@dataclass(frozen=True)
class Case:
    """`values` of the config beside the general ones; `heads` of each block, or of all of them where it is one.

    `note` is what somebody who reads this class ought to know, for docs/models.md.
    """

    values: dict[str, Any] = field(default_factory=dict)
    heads: Expected | tuple[Expected, ...] = PLAIN
    note: str = ""

    def of_block(self, layer: int) -> Expected:
        one = isinstance(self.heads, str) or isinstance(self.heads[0], int)
        return self.heads if one else self.heads[layer]  # type: ignore[return-value]


CASES: dict[str, Case] = {}


def config_of(model_type: str) -> Any:
    """The class's config, tiny."""
    kind = transformers.CONFIG_MAPPING[model_type]
    known = kind()
    names = {*known.to_dict(), *getattr(kind, "attribute_map", {})}
    values = {k: v for k, v in _GENERIC.items() if k in names}
    return kind(**{**values, **CASES[model_type].values})


def class_model(model_type: str, seed: int = 0) -> Any:
    """A random model in float32, eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # some classes draw what is not drawn again here
        model = transformers.AutoModelForCausalLM.from_config(config_of(model_type))
    return randomise(model, seed)


@cache
def class_chat(model_type: str) -> ChatModel:
    """One ChatModel a class for the whole run: for tests that leave it as they found it."""
    return wrap(class_model(model_type), tiny_tokenizer(), name=f"tiny-{model_type}")


_PLAIN_CLASSES = """
afmoe arcee aria_text beam cohere2 cohere2_moe ernie4_5 flint gemma gemma2 glm glm4 gpt_oss hunyuan_v1_dense
hunyuan_v1_moe hy_v3 hyperclovax jais2 kolibri1 laguna llama mellum minimax_m2 minimax_m3_vl_text ministral
ministral3 mistral mixtral nemotron qwen3 seed_oss solar_open vaultgemma
"""
_SQUARE_CLASSES = """
apertus biogpt bloom cohere ctrl dots1 ernie4_5_moe exaone4 exaone_moe falcon flex_olmo glm4_moe gpt2 gpt_bigcode
gpt_neox gpt_neox_japanese granite granite_swa granitemoe granitemoe_swa granitemoeshared mpt olmo olmo2 olmo3
olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3_moe smollm3 stablelm starcoder2 xglm
"""
# Of these, whose windows alternate in large models: a window in the blocks at both ends.
_ALTERNATING = """
afmoe cohere2 cohere2_moe dots1 exaone4 exaone_moe flint kolibri1 laguna mellum ministral olmo3 qwen2 smollm3
"""


def _alternating(name: str) -> dict[str, Any]:
    windows = {"layer_types": [_SLIDING, _FULL, _SLIDING], "use_sliding_window": True}
    return windows if name in _ALTERNATING.split() else {}


CASES |= {name: Case(_alternating(name)) for name in _PLAIN_CLASSES.split()}
CASES |= {name: Case(_alternating(name), SQUARE) for name in _SQUARE_CLASSES.split()}
CASES |= {
    "doge": Case(heads=SQUARE, note="its masks are made of the values of all heads"),
    "moshi": Case(note="generation: transformers answers otherwise with its cache than without, steered or not"),
    "nanochat": Case(
        heads=SQUARE, note="its norm runs on the embeddings too; `final` is what it gives behind the last block"
    ),
}
CASES |= {
    "bamba": Case({**_MAMBA, "attn_layer_indices": [1]}, (NO_ATTENTION, SQUARE, NO_ATTENTION)),
    "axk1": Case(_LATENT, _MLA),
    "axk2": Case(
        {**_LATENT, **_INDEXED},
        _MLA,
        note="it attends to the best few tokens; where two are equally good, padding may decide between them",
    ),
    "bailing_hybrid": Case(
        {**_LATENT, "q_lora_rank": None, "layer_types": [_LINEAR, _LINEAR, _FULL]},
        ("carries a state", "carries a state", _MLA),
    ),
    "bitnet": Case(heads="norms the outputs of several heads together (attn_sub_norm)"),
    "codegen": Case({"rotary_dim": 4}, SQUARE),
    "cwm": Case({"bos_token_id": 1}),
    "deepseek_v2": Case(_LATENT, _MLA),
    "deepseek_v3": Case(_LATENT, _MLA),
    "deepseek_v32": Case(
        {**_LATENT, **_INDEXED},
        _MLA,
        note="it attends to the best few tokens; where two are equally good, padding may decide between them",
    ),
    "cohere_compass_text": Case(
        {
            "layer_types": [_SLIDING, _FULL, _SLIDING],
            "rope_parameters": {x: {"rope_type": "default", "rope_theta": 1e4} for x in (_SLIDING, _FULL)},
        },
    ),
    "dbrx": Case(
        {
            "d_model": WIDTH,
            "n_heads": N_HEADS,
            "n_layers": 3,
            "max_seq_len": 1024,
            "attn_config": {"kv_n_heads": N_KV, "clip_qkv": 8, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        },
        SQUARE,
    ),
    "diffllama": Case(heads="norms the outputs of several heads together (groupnorm)"),
    "falcon_h1": Case(
        {**_MAMBA, "mamba_d_ssm": 64},
        SQUARE,
        note="heads are those of the attention; the state beside it is in `residual` alone",
    ),
    "falcon_mamba": Case({"state_size": 8}, NO_ATTENTION),
    "gemma3_text": Case({"layer_types": [_SLIDING, _FULL, _SLIDING]}),
    "gemma3n_text": Case(
        {
            "num_kv_shared_layers": 0,
            "layer_types": [_SLIDING, _FULL, _SLIDING],
            "vocab_size_per_layer_input": VOCAB,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "altup_num_inputs": 3,
            "altup_active_idx": 1,
            "activation_sparsity_pattern": [0.5, 0.0, 0.0],
            "intermediate_size": [48, 48, 48],
        },
        note=(
            "a block returns several streams: `residual` is that which attention and feed-forward read and write "
            "(`altup_active_idx`), and steering changes it alone; `final` is of all of them"
        ),
    ),
    "gemma4_text": Case(
        {
            "layer_types": [_SLIDING, _SLIDING, _FULL],
            "vocab_size_per_layer_input": VOCAB,
            "hidden_size_per_layer_input": 8,
            "global_head_dim": 20,
            "num_global_key_value_heads": 1,
            "num_kv_shared_layers": 0,
        },
        (PLAIN, PLAIN, (N_HEADS, 20)),
    ),
    "gemma4_unified_text": Case(
        {"layer_types": [_SLIDING, _SLIDING, _FULL], "global_head_dim": 20}, (PLAIN, PLAIN, (N_HEADS, 20))
    ),
    "glm4_moe_lite": Case(_LATENT, _MLA),
    "glm_moe_dsa": Case(
        {**_LATENT, **_INDEXED},
        _MLA,
        note="it attends to the best few tokens; where two are equally good, padding may decide between them",
    ),
    "gpt_neo": Case({"attention_types": [[["global", "local", "global"], 1]], "window_size": WINDOW}, SQUARE),
    "gptj": Case({"rotary_dim": 4}, SQUARE),
    "granitemoehybrid": Case(
        {**_MAMBA, "layer_types": ["mamba", "attention", "mamba"], "shared_intermediate_size": 24},
        (NO_ATTENTION, SQUARE, NO_ATTENTION),
    ),
    "helium": Case({"head_dim": 8}, SQUARE),
    "inkling_text": Case(_INKLING, (SQUARE, SQUARE, PLAIN)),
    "inkling2_text": Case(_INKLING, (SQUARE, SQUARE, PLAIN)),
    "jamba": Case(
        {
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
            "mamba_expand": 2,
        },
        (NO_ATTENTION, SQUARE, NO_ATTENTION),
    ),
    "jetmoe": Case(heads="has no output projection called"),
    "kimi_linear": Case(
        {
            **_LATENT,
            "q_lora_rank": None,
            "layer_types": [_LINEAR, _LINEAR, _FULL],
            "linear_head_dim": 8,
            "linear_num_heads": 4,
        },
        ("carries a state", "carries a state", _MLA),
    ),
    "lfm2": Case({"layer_types": ["conv", _FULL, "conv"]}, (NO_ATTENTION, SQUARE, NO_ATTENTION)),
    "lfm2_moe": Case(
        {"layer_types": ["conv", _FULL, "conv"], "num_dense_layers": 1}, (NO_ATTENTION, SQUARE, NO_ATTENTION)
    ),
    "lfm3": Case(heads=(NO_ATTENTION, NO_ATTENTION, PLAIN)),
    "llama4_text": Case(
        {"attention_chunk_size": WINDOW, "layer_types": ["chunked_attention", _FULL, "chunked_attention"]}
    ),
    "longcat_flash": Case(
        {**_LATENT, "num_layers": 3, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 24, "moe_topk": 2},
        "it has 2 attentions",
    ),
    "mamba": Case({"state_size": 8}, NO_ATTENTION),
    "mamba2": Case({"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}, NO_ATTENTION),
    "mimo_v2_flash": Case({"v_head_dim": 6}, (4, 6)),
    "minicpm3": Case(_LATENT, _MLA),
    "minimax": Case(
        {"layer_types": [_FULL, _LINEAR, _FULL], "block_size": 8}, (PLAIN, "carries a state (slope_rate)", PLAIN)
    ),
    "modernbert-decoder": Case(
        {"bos_token_id": 1}, SQUARE, note="the language-model head has a layer of its own behind `final`"
    ),
    "nemotron_h": Case(
        {
            "layers_block_type": ["mamba", "moe", "attention", "mlp"],
            "num_hidden_layers": 4,
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "ssm_state_size": 8,
            "n_groups": 1,
            "chunk_size": 8,
            "moe_shared_expert_intermediate_size": 24,
        },
        (NO_ATTENTION, NO_ATTENTION, PLAIN, NO_ATTENTION),
    ),
    "olmo_hybrid": Case(heads=("carries a state", "carries a state", SQUARE)),
    "qwen3_5_moe_text": Case(_DELTA, (NO_ATTENTION, NO_ATTENTION, PLAIN)),
    "qwen3_5_text": Case(_DELTA, (NO_ATTENTION, NO_ATTENTION, PLAIN)),
    "qwen3_next": Case(_DELTA, (NO_ATTENTION, NO_ATTENTION, PLAIN)),
    "recurrent_gemma": Case(
        {"block_types": ["recurrent", "attention", "recurrent"], "attention_window_size": WINDOW, "lru_width": 32},
        (NO_ATTENTION, PLAIN, NO_ATTENTION),
    ),
    "rwkv": Case(
        {"attention_hidden_size": 32, "rescale_every": 2},
        "carries a state (time_decay)",
        note="between some blocks (`rescale_every`) transformers halves the stream: `residual` is what the block gave",
    ),
    "xlstm": Case({"hidden_size": 128}, NO_ATTENTION),
    "youtu": Case(_LATENT, _MLA),
    "zamba": Case(
        {
            "num_hidden_layers": 6,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "n_mamba_heads": 2,
        },
        (NO_ATTENTION, NO_ATTENTION, PLAIN, NO_ATTENTION, PLAIN, NO_ATTENTION),
    ),
    "zamba2": Case(
        {
            "num_hidden_layers": 6,
            "layer_types": ["mamba", "hybrid", "mamba", "mamba", "hybrid", "mamba"],
            "mamba_d_state": 8,
            "n_mamba_heads": 4,
            "mamba_headdim": 16,
            "chunk_size": 8,
            "num_mem_blocks": 1,
            "hybrid_layer_ids": [1, 4],
        },
        (NO_ATTENTION, PLAIN, NO_ATTENTION, NO_ATTENTION, PLAIN, NO_ATTENTION),
    ),
    "zaya": Case({"num_experts_per_tok": 1}),
}
