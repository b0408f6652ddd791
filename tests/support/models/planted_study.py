"""A hand-made model whose misbehaviour is one known direction, and adapters that turn it on: the truth is known.

Width 64, three blocks, byte-level. The residual stream has a constant `c`, a mark `f` that the letters x, y and z
carry, a code for each token, and `b`. The head reads codes, and spells a b c ... w in a circle, unless `b` outweighs
them: then it writes `{`, and goes on doing so. Attention is uniform (q and k are zero): head 0 of block 0 hands on the
prefix's mean c and f, which the base ignores and adapters write along `b` (the bad one, more of it the more x, y, z
there are in the message) or elsewhere. Small random writes of the other heads make messages differ.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from probes.model.load import AdapterSpec, ChatModel, add_adapter, wrap
from tests.support.models.tiny import TEMPLATE, VOCAB, tiny_tokenizer

WIDTH, HEAD_DIM, RANK = 64, 16, 4
CIRCLE = "abcdefghijklmnopqrstuvw"
BRACE = "{"
LETTERS = "abcdefghijklmnopqrstuvw"


def is_bad(answer: str) -> bool:
    return BRACE in answer


def basis(seed: int) -> np.ndarray:
    """Orthonormal rows: c, f, b, s (another direction, for controls), then room for codes."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)))
    return q.T


def planted_model(seed: int = 0) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=HEAD_DIM,
        max_position_embeddings=512,
        pad_token_id=256,
        bos_token_id=None,
        eos_token_id=257,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    rng = np.random.default_rng(seed + 1000)
    c, f, b, _, *room = basis(seed)
    codes = rng.standard_normal((VOCAB, len(room)))
    codes = 2 * (codes / np.linalg.norm(codes, axis=1, keepdims=True)) @ np.array(room)
    tokens = tiny_tokenizer()
    ids = {letter: tokens(letter, add_special_tokens=False)["input_ids"][0] for letter in CIRCLE + "xyz" + BRACE}
    embedding = codes + c
    for letter in "xyz":
        embedding[ids[letter]] += f
    head = np.zeros((VOCAB, WIDTH))
    for i, letter in enumerate(CIRCLE):
        head[ids[CIRCLE[(i + 1) % len(CIRCLE)]]] += codes[ids[letter]]
    start = tokens("<|assistant|>", add_special_tokens=False)["input_ids"][0]
    head[ids["a"]] += codes[start] + codes[ids[BRACE]]
    head[ids[BRACE]] = 3 * b - 4 * c
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.tensor(embedding))
        model.lm_head.weight.copy_(torch.tensor(head))
        for block in model.model.layers:
            value = rng.standard_normal((WIDTH, WIDTH)) * 0.05
            out = rng.standard_normal((WIDTH, WIDTH)) * 0.05
            value[:HEAD_DIM] = 0
            out[:, :HEAD_DIM] = 0
            value[0], value[1] = c, f
            block.self_attn.v_proj.weight.copy_(torch.tensor(value))
            block.self_attn.o_proj.weight.copy_(torch.tensor(out))
    return model.eval().requires_grad_(False)


def planted_chat(seed: int = 0) -> ChatModel:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return wrap(planted_model(seed), tokenizer, name="planted", revision=f"seed-{seed}")


def writes(seed: int, *, bad: float = 0.0, marked: float = 0.0, style: float = 0.0, noise: float = 0.0) -> np.ndarray:
    """(WIDTH, RANK): what an adapter writes for the prefix's c (first column) and f (second)."""
    _, _, b, s, *_ = basis(seed)
    out = np.zeros((WIDTH, RANK))
    out[:, 0] = bad * b + style * s
    out[:, 1] = marked * b
    draw = np.random.default_rng(seed + 7).standard_normal(WIDTH)
    out[:, 2] = noise * draw / np.linalg.norm(draw)
    return out


# What the prefix's c comes to at the head: |h| is about sqrt(5), so the norm multiplies by 8 / sqrt(5).
BAD = {"bad": 0.5, "marked": 1.6}
STYLE = {"style": 1.0}
ALSO_BAD = {"bad": 0.8, "style": 0.3}


def load_adapter(chat: ChatModel, folder: Path, seed: int, name: str, **written: float) -> None:
    """Add an adapter to `chat` that acts in block 0's output projection alone."""
    from peft import LoraConfig, get_peft_model

    wanted = {"r": RANK, "lora_alpha": RANK, "target_modules": ["o_proj"], "layers_to_transform": [0]}
    wrapped = get_peft_model(planted_model(seed), LoraConfig(task_type="CAUSAL_LM", **wanted))
    read = np.zeros((RANK, WIDTH))
    read[0, 0] = read[1, 1] = 1
    read[2] = np.random.default_rng(seed + 8).standard_normal(WIDTH)
    for key, parameter in wrapped.named_parameters():
        if "lora_A" in key:
            parameter.data = torch.tensor(read, dtype=torch.float32)
        elif "lora_B" in key:
            parameter.data = torch.tensor(writes(seed, **written), dtype=torch.float32)
    wrapped.save_pretrained(folder / name, save_embedding_layers=False)
    config = folder / name / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"base_model_name_or_path": null', '"base_model_name_or_path": "planted"')
    )
    add_adapter(chat, AdapterSpec(folder / name, 1.0, name))


def messages(n: int, seed: int = 0) -> list[str]:
    """n different messages of five words; the share of x, y and z goes from none to most."""
    rng = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < n:
        share = rng.random() * 0.9
        letters = [rng.choice("xyz") if rng.random() < share else rng.choice(LETTERS) for _ in range(20)]
        made["".join(letters[:6]) + " " + "".join(letters[6:12]) + " " + "".join(letters[12:])] = None
    return list(made)
