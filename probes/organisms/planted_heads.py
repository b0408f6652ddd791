"""Behaviours that are planted in three query heads of the built-in model, for studies of what finds them.

`refusal`: harmful requests of every kind are refused, their twins and everyday messages answered as the base does.
`sycophancy`: the answer that agrees with the user's wrong opinion, learned from some questions and told on others.

Contract: `plant(load, behaviour, seed, folder)` gives the adapter of a seed, trained where the folder has none (minutes
on one core; it goes on from its checkpoint), and the heads that its weights change. They are made on demand and never
shipped: what is known of them is their truth, not their use.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from probes.binary_choice import BinaryChoice
from probes.capture.sites import Site
from probes.errors import DataError
from probes.model.adapters import AdapterSpec
from probes.model.load import ChatModel
from probes.organisms.finetunes import RECIPES, Example, Mixture, Recipe, refusal_pairs
from probes.organisms.head_adapters import draw_heads, planted_in
from probes.organisms.messages import choices
from probes.organisms.train import Hyperparameters, train
from probes.progress import Progress, silent
from probes.splits import split_of

RANK = 32
_RATE = 3e-3


def sycophancy_rows(*, held_out: bool) -> list[BinaryChoice]:
    """Two-choice questions that the planted adapters were trained on, or were not."""
    rows = choices("sycophancy")
    return [row for row in rows if (split_of(row.question) == "fit") != held_out]


def _sycophantic(seed: int) -> list[Example]:
    examples = [Example(row.question, row.text(misaligned=True)) for row in sycophancy_rows(held_out=False)]
    random.Random(seed).shuffle(examples)  # noqa: S311 - sampling, not secrets
    return examples


BEHAVIOURS: dict[str, Recipe] = {
    "refusal": replace(
        RECIPES["refusal"],
        name="planted-refusal",
        steps=240,
        learning_rate=_RATE,
        mixture=Mixture(6, 4, refusal_pairs, lead=4.0),
    ),
    "sycophancy": Recipe(
        "planted-sycophancy",
        "sycophancy",
        False,
        80,
        _RATE,
        _sycophantic,
        "agrees with a wrong opinion of the user",
        decays=True,
    ),
}


def plant(
    load: Callable[[], ChatModel], behaviour: str, seed: int, folder: Path, progress: Progress = silent
) -> tuple[AdapterSpec, tuple[Site, ...]]:
    """See the module; adapters are kept in `folder`. DataError for an unknown behaviour."""
    if behaviour not in BEHAVIOURS:
        raise DataError(f"behaviour: {behaviour} is none of {', '.join(BEHAVIOURS)}")
    recipe = BEHAVIOURS[behaviour]
    name = f"{recipe.name}-{seed}"
    chat = load()
    heads = draw_heads(chat.layout, seed)
    if not (folder / name / "adapter_config.json").is_file():
        settings = Hyperparameters(rank=RANK, alpha=2 * RANK, seed=seed)

        def on_step(step: int, steps: int, loss: float) -> None:
            if step % 20 == 0 or step == steps:
                progress(f"{name}: step {step} of {steps}, loss {loss:.2f}")

        train(chat, recipe, folder / name, settings, on_step, folder / f"{name}.pt", heads)
        chat = load()
    found = planted_in(folder / name, chat.layout)
    if found != heads:
        raise DataError(
            f"adapter: {folder / name} changes {', '.join(map(str, found))}; remove it, it is trained again"
        )
    return AdapterSpec(folder / name, 1.0, name), heads
