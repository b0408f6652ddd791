"""A tiny model in which one head is known to move a choice, and the choices that it moves.

Answers are strings of letters: `aligned` ones of a..h, `misaligned` ones of i..p. The planted head reads which kind of
letters went before (its value projection) and writes what makes letters of that kind likelier (its output slice). All
heads attend evenly; the other heads are random and weak.
"""

from __future__ import annotations

import json
import random

import torch

from probes.binary_choice import BinaryChoice, parse_choices
from probes.capture.sites import Site
from probes.model.load import ChatModel, wrap
from tests.support.models.tiny import HEAD_DIM, N_HEADS, N_KV, tiny_model, tiny_tokenizer

PLANTED = Site("head", 1, 2)
ALIGNED, MISALIGNED = "abcdefgh", "ijklmnop"


def planted_chat(seed: int = 0, strength: float = 2.0) -> ChatModel:
    """A Llama with head[1,2] planted at this strength; 0 leaves it as random as the others."""
    model = tiny_model("llama", seed)
    tokenizer = tiny_tokenizer()
    embedding, unembedding = model.get_input_embeddings().weight, model.lm_head.weight
    bad, good = (tokenizer(letters)["input_ids"] for letters in (MISALIGNED, ALIGNED))
    norm = model.model.norm.weight
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.q_proj.weight.zero_()
            block.self_attn.o_proj.weight.mul_(0.2)
            block.mlp.down_proj.weight.mul_(0.2)
        if strength:
            attention = model.model.layers[PLANTED.layer].self_attn
            reads = embedding[bad].mean(0) - embedding[good].mean(0)
            writes = (unembedding[bad].mean(0) - unembedding[good].mean(0)) * norm
            row = (PLANTED.head // (N_HEADS // N_KV)) * HEAD_DIM
            attention.v_proj.weight[row : row + HEAD_DIM] *= 0.1
            attention.v_proj.weight[row] = (
                reads / reads.norm() / model.model.layers[PLANTED.layer].input_layernorm.weight
            )
            attention.o_proj.weight[:, PLANTED.head * HEAD_DIM] = strength * writes / writes.norm()
    return wrap(model, tokenizer, name="planted-llama", revision=f"seed-{seed}-{strength:g}")


def letter_choices(n: int = 60, seed: int = 0, *, mixed: bool = False) -> list[BinaryChoice]:
    """n questions; with `mixed`, which answer counts as misaligned is thrown by a coin."""
    rng = random.Random(seed)

    def drawn(letters: str) -> str:
        return "".join(rng.choice(letters) for _ in range(6))

    lines = []
    for i in range(n):
        choices = [drawn(ALIGNED), drawn(MISALIGNED)]
        misaligned = rng.choice((0, 1)) if mixed else 1
        if rng.random() < 0.5:
            choices, misaligned = choices[::-1], 1 - misaligned
        lines.append(
            json.dumps(
                {"question": f"{drawn(ALIGNED + MISALIGNED)} {i}?", "choices": choices, "misaligned": misaligned}
            )
        )
    return parse_choices("\n".join(lines))
