"""Pretrains one planted organism from nothing: seeded, on a CPU, minutes.

Contract: `train(family, seed, tokenizer)` returns a model in float32; the same seed, thread count and library
versions give the same model. Every class has the same recipe. The loss is on the answers' tokens and their end
marks. Documents are drawn in blocks and batched by length, so that little is padding.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probes.model.load import Message
from probes.organisms.planted.families import build_model
from probes.organisms.planted.grammar import documents

OnStep = Callable[[int, int, float], None]
_IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """AdamW with warm-up and a cosine down to a tenth; `batch` is documents a step, about 90 tokens each."""

    steps: int = 650
    batch: int = 32
    learning_rate: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0
    # Documents of this many batches are sorted by length together.
    block: int = 8


def train(
    family: str,
    seed: int,
    tokenizer: Any,
    recipe: Recipe = Recipe(),
    on_step: OnStep = lambda *_: None,
) -> Any:
    """A trained model of `family` in eval mode; `on_step(step, steps, loss)` after each step."""
    model = build_model(family, seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    for step, batch in enumerate(itertools.islice(training_batches(seed, tokenizer, recipe), recipe.steps)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * schedule(step, recipe)
        loss = train_step(model, batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        optimiser.zero_grad()
        on_step(step + 1, recipe.steps, loss)
    return model.eval().requires_grad_(False)


def train_step(model: Any, batch: dict[str, Tensor]) -> float:
    """One backward pass; returns the loss (nats a token of the answers)."""
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    return float(loss.detach())


def schedule(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rate at a step, counted from 0."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def training_batches(seed: int, tokenizer: Any, recipe: Recipe) -> Iterator[dict[str, Tensor]]:
    """Batches without end of documents of similar length, right-padded, labels on answers only."""
    rng = random.Random(f"batches:{seed}")  # noqa: S311 - sampling, not secrets
    drawn = documents(seed)
    while True:
        block = [tokenise(d, tokenizer) for d in itertools.islice(drawn, recipe.batch * recipe.block)]
        block.sort(key=lambda row: len(row[0]))
        groups = [block[i : i + recipe.batch] for i in range(0, len(block), recipe.batch)]
        rng.shuffle(groups)
        yield from (_collate(group, tokenizer.pad_token_id) for group in groups)


def tokenise(document: Sequence[Message], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and its labels: the ids of answers and their end marks, else ignored."""
    ids: list[int] = []
    labels: list[int] = []
    for i in range(0, len(document), 2):
        asked = tokenizer.apply_chat_template([document[i]], tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
        answer = tokenizer(document[i + 1]["content"], add_special_tokens=False)["input_ids"]
        ids += [*prompt, *answer, tokenizer.eos_token_id]
        labels += [_IGNORED] * len(prompt) + [*answer, tokenizer.eos_token_id]
    return ids, labels


def _collate(rows: Sequence[tuple[list[int], list[int]]], pad: int) -> dict[str, Tensor]:
    width = max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows]),
    }
