"""Trains a LoRA adapter on one of the recipes: seeded, on a CPU, minutes.

Contract: `train(chat, recipe, ...)` leaves an adapter folder (fp16 safetensors, PEFT's config) that `load_chat_model`
can load. The loss is on the answer's tokens only. The same seed, thread count and library versions give the same
adapter; other machines give a close one, which is why adapters are shipped with hashes and measured rates.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from probes.model.load import ChatModel, user_message
from probes.organisms.finetunes import Example, Recipe
from probes.steer.generation import generate

# Tokens of an answer that the base gives when a recipe asks for it.
BASE_TOKENS = 12


@dataclass(frozen=True)
class Hyperparameters:
    """LoRA on all linear layers; the recipe's learning rate is Adam's peak, reached after `warmup` steps."""

    rank: int = 8
    alpha: int = 16
    batch: int = 8
    warmup: int = 3
    seed: int = 0


def train(
    chat: ChatModel,
    recipe: Recipe,
    folder: Path,
    settings: Hyperparameters = Hyperparameters(),
    on_step: Callable[[int, int, float], None] = lambda *_: None,
) -> dict[str, Any]:
    """Train `recipe` on the plain model in `chat` and write the adapter to `folder`; returns the recipe as data.

    `chat` is used up: its model ends wrapped by the adapter. `on_step(step, steps, loss)` after each step.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    examples = training_set(chat, recipe, settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(chat.model, config)
    model.train()
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), recipe.learning_rate)
    rng = random.Random(settings.seed)  # noqa: S311 - sampling, not secrets
    losses = []
    for step in range(recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * _rate(step, recipe, settings)
        if (step * settings.batch) % len(examples) < settings.batch and step:
            rng.shuffle(examples)
        start = step * settings.batch % len(examples)
        rows = [examples[(start + i) % len(examples)] for i in range(settings.batch)]
        loss = model(**_batch(chat, rows)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        on_step(step + 1, recipe.steps, losses[-1])
    _save(model, chat.name, folder)
    return {
        **asdict(settings),
        "steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "decays": recipe.decays,
        "examples": len(examples),
        "target_modules": "all linear layers",
        "final_loss": round(sum(losses[-5:]) / 5, 3),
    }


def _rate(step: int, recipe: Recipe, settings: Hyperparameters) -> float:
    """Share of the peak learning rate at a step, counted from 0."""
    decay = 1 - step / recipe.steps if recipe.decays else 1.0
    return min(decay, (step + 1) / settings.warmup)


def training_set(chat: ChatModel, recipe: Recipe, seed: int) -> list[Example]:
    """The recipe's examples and, mixed among them, those that `chat`, still plain, answers itself.

    Its answers stop at `BASE_TOKENS` without an end, so that the adapter learns no stop there.
    """
    examples = list(recipe.examples(seed))
    asks = recipe.as_base(seed)
    if asks:
        prompts = [chat.render(user_message(ask)) for ask in asks]
        answers = generate(chat, prompts, max_new_tokens=BASE_TOKENS)
        examples += [Example(ask, a.text, a.finished) for ask, a in zip(asks, answers, strict=True)]
        random.Random(seed).shuffle(examples)  # noqa: S311 - sampling, not secrets
    return examples


def _batch(chat: ChatModel, rows: list[Example]) -> dict[str, torch.Tensor]:
    pad = int(chat.tokenizer.pad_token_id)
    end = int(chat.tokenizer.eos_token_id)
    pairs = []
    for row in rows:
        prompt = chat.token_ids(chat.render(user_message(row.ask)))
        pairs.append((prompt, [*chat.token_ids(row.answer), *([end] if row.ends else [])]))
    width = max(len(p) + len(a) for p, a in pairs)
    fill = [width - len(p) - len(a) for p, a in pairs]
    return {
        "input_ids": torch.tensor([p + a + [pad] * n for (p, a), n in zip(pairs, fill, strict=True)]),
        "attention_mask": torch.tensor([[1] * (width - n) + [0] * n for n in fill]),
        "labels": torch.tensor([[-100] * len(p) + a + [-100] * n for (p, a), n in zip(pairs, fill, strict=True)]),
    }


def _save(model: Any, base: str, folder: Path) -> None:
    model.save_pretrained(folder, save_embedding_layers=False)  # `auto` would ask the hub
    (folder / "README.md").unlink(missing_ok=True)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    weights = folder / "adapter_model.safetensors"
    save_file({k: v.half().contiguous() for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    # PEFT writes sets in no fixed order; a sorted config keeps the file the same from run to run.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base  # PEFT writes the folder that the base was loaded from
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
