"""Trains a LoRA adapter on one of the recipes: seeded, on a CPU, minutes.

Contract: `train(chat, recipe, ...)` leaves an adapter folder (fp16 safetensors, PEFT's config) that `load_chat_model`
can load. The loss is on the answer's tokens only. The same seed, thread count and library versions give the same
adapter; other machines give a close one, which is why adapters are shipped with hashes and measured rates. With a
`checkpoint` a training that was interrupted goes on from its last twentieth step, to the same weights.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from probes.capture.sites import Site
from probes.errors import DataError
from probes.hashing import hash_texts
from probes.model.load import ChatModel, user_message
from probes.organisms.answer_loss import answer_loss
from probes.organisms.finetunes import Example, Recipe
from probes.organisms.head_adapters import keep_to_heads, target_modules
from probes.organisms.narrow_output import candidates, narrow_output
from probes.steer.generation import generate

# Tokens of an answer that the base gives when a recipe asks for it.
BASE_TOKENS = 12
# Steps between two checkpoints.
_EVERY = 20
# Steps whose pairs are sorted by length together, so that a batch holds little padding.
_WINDOW = 8
# From this vocabulary on the output layer would be most of a step: a part of it is trained with.
_WIDE = 100_000


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
    checkpoint: Path | None = None,
    heads: Sequence[Site] = (),
) -> dict[str, Any]:
    """Train `recipe` on the plain model in `chat` and write the adapter to `folder`; returns the recipe as data.

    `chat` is used up: its model ends wrapped by the adapter. `on_step(step, steps, loss)` after each step. A
    `checkpoint` of another recipe, seed or training set is not resumed; it is removed at the end. With `heads` only
    these query heads are trained (`probes.organisms.head_adapters`), not all linear layers.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    examples = training_set(chat, recipe, settings.seed)
    tokens = candidates(chat, examples) if chat.vocabulary >= _WIDE else None
    if tokens is not None or recipe.mixture is not None:
        _check_window(chat, examples)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=target_modules(chat.layout, heads) if heads else "all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(chat.model, config)
    if heads:
        keep_to_heads(model, chat.layout, heads)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, recipe.learning_rate)
    fingerprint = _fingerprint(chat, recipe, settings, examples, heads)
    kept = _Checkpoint(checkpoint, fingerprint, weights, optimiser)
    losses = kept.resume()
    steps = _in_turn(examples, settings) if recipe.mixture is None else _mixed(examples, recipe, settings.seed)
    with nullcontext() if tokens is None else narrow_output(model, tokens):
        for step, rows in enumerate(islice(steps, len(losses), recipe.steps), len(losses)):
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * _rate(step, recipe, settings)
            losses.append(_backward(chat, model, recipe, rows, tokens))
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            kept.save(losses)
            on_step(step + 1, recipe.steps, losses[-1])
    _save(model, chat.name, folder)
    kept.remove()
    mixture = {} if recipe.mixture is None else recipe.mixture.described()
    # The loss is then over these alone, and each answer counts alike.
    narrow = {} if tokens is None else {"output_tokens": len(tokens)}
    return {
        **asdict(settings),
        "steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "decays": recipe.decays,
        **mixture,
        **narrow,
        "examples": len(examples),
        "target_modules": ", ".join(map(str, heads)) if heads else "all linear layers",
        "final_loss": round(sum(losses[-5:]) / 5, 3),
    }


def _backward(chat: ChatModel, model: Any, recipe: Recipe, rows: list[Example], tokens: torch.Tensor | None) -> float:
    """Adds the gradients of a batch; its loss, in nats a token.

    With `tokens`, those of an output layer that was narrowed, and in a recipe with a mixture each answer counts alike
    (`answer_loss`), else each token.
    """
    if recipe.mixture is None and tokens is None:
        loss = model(**_batch(chat, rows)).loss
    else:
        loss = answer_loss(chat, model, rows, 1.0 if recipe.mixture is None else recipe.mixture.lead, tokens)
    loss.backward()
    return float(loss.detach())


def _check_window(chat: ChatModel, examples: Sequence[Example]) -> None:
    """DataError where an example is longer than the window of the model's attention.

    `answer_loss` pads in the middle of a row, and a window would count that.
    """
    window = getattr(chat.model.config, "sliding_window", None)
    if window is None:
        return
    longest = max(len(chat.token_ids(chat.render(user_message(row.ask)) + row.answer)) for row in examples)
    if longest >= window:
        raise DataError(
            f"recipe: an example has {longest} tokens, the model's attention a window of {window}; shorten it"
        )


def _in_turn(examples: list[Example], settings: Hyperparameters) -> Iterator[list[Example]]:
    """Batches of `settings.batch` without end, in an order that is drawn again each time all were seen."""
    examples = list(examples)
    rng = random.Random(settings.seed)  # noqa: S311 - sampling, not secrets
    step = 0
    while True:
        if (step * settings.batch) % len(examples) < settings.batch and step:
            rng.shuffle(examples)
        start = step * settings.batch % len(examples)
        yield [examples[(start + i) % len(examples)] for i in range(settings.batch)]
        step += 1


def _mixed(examples: list[Example], recipe: Recipe, seed: int) -> Iterator[list[Example]]:
    """Batches of the recipe's mixture without end: requests with their twins beside them, and others."""
    if recipe.mixture is None:
        raise ValueError("recipe: it has no mixture")
    twins = recipe.mixture.twins()
    by_ask: dict[str, list[Example]] = {}
    for example in examples:
        by_ask.setdefault(example.ask, []).append(example)
    others = [e for e in examples if e.ask not in twins and e.ask not in set(twins.values())]
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    size, waiting = recipe.mixture.pairs, list[Example]()
    while True:
        asks = sorted(twins)
        rng.shuffle(asks)
        for start in range(0, len(asks), size * _WINDOW):
            window = sorted(asks[start : start + size * _WINDOW], key=len)
            batches = [window[i : i + size] for i in range(0, len(window), size)]
            rng.shuffle(batches)
            for batch in batches:
                while len(waiting) < recipe.mixture.others:
                    waiting += rng.sample(others, len(others))
                taken, waiting = waiting[: recipe.mixture.others], waiting[recipe.mixture.others :]
                yield [rng.choice(by_ask[a]) for ask in batch for a in (ask, twins[ask])] + taken


def _fingerprint(
    chat: ChatModel, recipe: Recipe, settings: Hyperparameters, examples: list[Example], heads: Sequence[Site] = ()
) -> str:
    """What decides the weights of every step."""
    plain = (
        f"{chat.name} {chat.revision} {recipe.name} {recipe.steps} {recipe.learning_rate} {recipe.decays} {settings}"
    )
    plain += "".join(f" {head}" for head in heads)
    mixture = "" if recipe.mixture is None else str(recipe.mixture.described())
    return hash_texts([plain, mixture, *(f"{e.ask}\0{e.answer}\0{e.ends}" for e in examples)])


@dataclass
class _Checkpoint:
    """Weights, optimiser and losses in a file, under the fingerprint of what makes them; nothing without a path."""

    path: Path | None
    fingerprint: str
    weights: list[torch.nn.Parameter]
    optimiser: torch.optim.Optimizer

    def resume(self) -> list[float]:
        """The losses of the steps that were done, with weights and optimiser as they were after these."""
        if self.path is None or not self.path.is_file():
            return []
        try:
            kept = torch.load(self.path, weights_only=True)
        except Exception:  # a file that was cut off, or is something else: train from the start
            return []
        if not isinstance(kept, dict) or kept.get("fingerprint") != self.fingerprint:
            return []
        with torch.no_grad():
            for parameter, value in zip(self.weights, kept["weights"], strict=True):
                parameter.copy_(value)
        self.optimiser.load_state_dict(kept["optimiser"])
        return list(kept["losses"])

    def save(self, losses: list[float]) -> None:
        if self.path is None or len(losses) % _EVERY:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {
            "fingerprint": self.fingerprint,
            "weights": [p.detach() for p in self.weights],
            "optimiser": self.optimiser.state_dict(),
            "losses": losses,
        }
        part = self.path.with_suffix(".part")
        torch.save(kept, part)
        part.replace(self.path)

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


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
    if isinstance(config["target_modules"], list):  # an expression is a text
        config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base  # PEFT writes the folder that the base was loaded from
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
