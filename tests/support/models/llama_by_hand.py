"""A Llama written out in plain torch from the papers' formulas, one prompt and no batch: the reference of ablations.

It shares nothing with `probes`: rotary embeddings, grouped heads, the causal mask and the ablation of one head are
written down again. `off` is (layer, query head); kinds and eps as in `probes.heads.ablation`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def _rotate(x: Tensor, base: float) -> Tensor:
    """Rotary embedding of (tokens, head_dim): pairs are (i, i + head_dim / 2)."""
    tokens, width = x.shape
    half = width // 2
    angle = torch.arange(tokens)[:, None] * base ** (-torch.arange(half) / half)[None]
    first, second = x[:, :half], x[:, half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], 1)


def llama_logits(
    model: Any, ids: list[int], off: tuple[int, int] | None = None, kind: str = "undifferentiated", eps: float = 1e-5
) -> Tensor:
    """Logits (tokens, vocabulary) of a LlamaForCausalLM on one prompt, with one head ablated."""
    config, body = model.config, model.model
    heads, groups, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    base = config.rope_parameters["rope_theta"]
    hidden = body.embed_tokens.weight[torch.tensor(ids)]
    unseen = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    for number, layer in enumerate(body.layers):
        x = _rms(hidden, layer.input_layernorm.weight, config.rms_norm_eps)
        attention = layer.self_attn
        q, k, v = (x @ p.weight.T for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        outputs = []
        for head in range(heads):
            group = head * groups // heads
            mine = q[:, head * width : (head + 1) * width]
            theirs = k[:, group * width : (group + 1) * width]
            values = v[:, group * width : (group + 1) * width]
            scores = _rotate(mine, base) @ _rotate(theirs, base).T / math.sqrt(width)
            if off == (number, head) and kind == "undifferentiated":
                scores = eps * scores
            out = scores.masked_fill(unseen, -torch.inf).softmax(-1) @ values
            outputs.append(eps * out if off == (number, head) and kind == "scaling" else out)
        hidden = hidden + torch.cat(outputs, 1) @ attention.o_proj.weight.T
        x = _rms(hidden, layer.post_attention_layernorm.weight, config.rms_norm_eps)
        gate = x @ layer.mlp.gate_proj.weight.T
        hidden = hidden + (gate * gate.sigmoid() * (x @ layer.mlp.up_proj.weight.T)) @ layer.mlp.down_proj.weight.T
    unembedding: Tensor = model.lm_head.weight.T
    return _rms(hidden, body.norm.weight, config.rms_norm_eps) @ unembedding


def kl_by_hand(plain: Tensor, ablated: Tensor) -> float:
    """KL in nats between the next-token distributions at the last position."""
    p, q = plain[-1].double().softmax(-1), ablated[-1].double().softmax(-1)
    return float((p * (p / q).log()).sum())
