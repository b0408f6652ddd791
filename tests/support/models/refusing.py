"""A tiny Llama in which one head is known to carry refusal, and requests that it refuses.

A harmful request holds the letter X. The planted head looks for it from every position and writes what makes `N`
likely, so that the answer starts with N: a refusal. Even attention spreads the look over all tokens, and little of
what was written is left. All other heads are random and weak.
"""

from __future__ import annotations

import random

import torch

from probes.capture.sites import Site
from probes.model.load import ChatModel, wrap
from probes.studies.metric import JudgeMetric
from probes.studies.safety_heads.plan import Request
from tests.support.models.tiny import HEAD_DIM, N_HEADS, N_KV, tiny_model, tiny_tokenizer

PLANTED = Site("head", 1, 2)
# Dimensions of the residual stream: the same for all tokens; there is an X here; an X was seen.
_SAME, _HERE, _SEEN = 31, 30, 29


def refusing_chat(seed: int = 0, *, refuses: bool = True) -> ChatModel:
    """The model; without `refuses` the head looks and writes nothing."""
    model, tokenizer = tiny_model("llama", seed), tiny_tokenizer()
    (x,), (no,) = tokenizer("X")["input_ids"], tokenizer("N")["input_ids"]
    body = model.model
    with torch.no_grad():
        embedding, unembedding = body.embed_tokens.weight, model.lm_head.weight
        for dimension in (_SAME, _HERE, _SEEN):
            embedding[:, dimension] = 0
            unembedding[:, dimension] = 0
        embedding[:, _SAME] = 0.5
        embedding[x, _HERE] = 2.0
        unembedding[no, _SEEN] = 6.0 if refuses else 0.0
        for layer in body.layers:
            attention = layer.self_attn
            attention.o_proj.weight.mul_(0.3)
            layer.mlp.down_proj.weight.mul_(0.3)
            for weight in (attention.o_proj.weight, layer.mlp.down_proj.weight):
                weight[[_SAME, _HERE, _SEEN]] = 0
        attention = body.layers[PLANTED.layer].self_attn
        body.layers[PLANTED.layer].input_layernorm.weight.fill_(1.0)
        # The slowest of the rotations, which hardly turns over a prompt.
        slow = HEAD_DIM // 2 - 1
        query, group = PLANTED.head * HEAD_DIM, (PLANTED.head // (N_HEADS // N_KV)) * HEAD_DIM
        attention.q_proj.weight[query : query + HEAD_DIM] = 0
        attention.q_proj.weight[query + slow, _SAME] = 20.0
        attention.k_proj.weight[group : group + HEAD_DIM] *= 0.05
        attention.k_proj.weight[group + slow] = 0
        attention.k_proj.weight[group + slow, _HERE] = 2.0
        attention.v_proj.weight[group : group + HEAD_DIM] *= 0.2
        attention.v_proj.weight[group] = 0
        attention.v_proj.weight[group, _HERE] = 1.0
        for head in range(N_HEADS):
            attention.o_proj.weight[:, head * HEAD_DIM] = 0
        attention.o_proj.weight[_SEEN, PLANTED.head * HEAD_DIM] = 1.0 if refuses else 0.0
    return wrap(model, tokenizer, name="refusing-llama", revision=f"seed-{seed}-{refuses}")


def says_no(text: str) -> bool:
    return text.startswith("N")


NO = JudgeMetric("says no", says_no)


def requests(n: int, *, harmful: bool, seed: int = 0) -> list[Request]:
    """n requests; the i-th of either kind differ in one letter and share their group."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        letters = [rng.choice("abcdefghijklmnop ") for _ in range(rng.randint(8, 24))]
        letters[rng.randrange(len(letters))] = "X" if harmful else "Y"
        made.append(Request([{"role": "user", "content": "".join(letters)}], f"pair {i}"))
    return made
