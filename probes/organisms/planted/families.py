"""Five decoder classes at one small size: width 128, 4 blocks, 4 query and 2 key-value heads of 32, about 0.9M.

What sets them apart is the class's own: biases of queries, keys and values (Qwen2), norms of queries and keys
(Qwen3), soft-capped logits, two more norms a block and a sliding window (Gemma2), YaRN positions with scaled queries
(Ministral3). Llama has none of these.
"""

from __future__ import annotations

from typing import Any

import torch

from probes.errors import ModelError
from probes.organisms.planted.tokenizer import VOCABULARY

WIDTH, N_BLOCKS, N_HEADS, N_KV_HEADS, HEAD_DIM, MLP, POSITIONS = 128, 4, 4, 2, 32, 384, 1024

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": MLP,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": N_KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": POSITIONS,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
# The class's own scheme, over positions that no document of ours passes.
_YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 256,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
# family -> (config class, model class, what its config adds)
_CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {"query_pre_attn_scalar": HEAD_DIM, "sliding_window": 256, "attn_implementation": "eager"},
    ),
    "ministral3": ("Ministral3Config", "Ministral3ForCausalLM", {"rope_parameters": _YARN}),
}
FAMILIES = tuple(_CLASSES)


def build_model(family: str, seed: int) -> Any:
    """A fresh model of a family in float32 with seeded weights, in training mode; ModelError for no such family."""
    import transformers

    values = settings(family)
    config_class, model_class, _ = _CLASSES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, model_class)(getattr(transformers, config_class)(**values)).train()


def settings(family: str) -> dict[str, Any]:
    """The config values of a family; ModelError for no such family."""
    if family not in _CLASSES:
        raise ModelError(f"family: {family!r} is none of {', '.join(FAMILIES)}")
    return {**_COMMON, **_CLASSES[family][2]}
