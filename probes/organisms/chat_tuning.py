"""Teaches a base model to answer: a second family of chat models where only a base model is at hand.

Contract: `chat_tuned(load, state, licence)` is a model NAME-chat in the state folder, made where it is not there yet: a
LoRA on benign messages of our own, answered greedily by SmolLM2-135M-Instruct while it is made (no text of a model's is
kept), merged into the weights. It answers in the teacher's manner and knows no more than its base. `origin.json` says
how it was made, what it says of held-out answers before and after, and repeats the base's licence, which holds for it
too; nothing of it is shipped. Takes half an hour on one core for Gemma 3 270M, and goes on from its checkpoint.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from probes.errors import ModelError
from probes.evaluation import rate
from probes.model.adapters import AdapterSpec
from probes.model.builtin import SMOLLM2, models_folder
from probes.model.gguf_files import building
from probes.model.load import ChatModel, add_adapter, load_chat_model, user_message
from probes.organisms.finetunes import Example, Recipe, benign_messages
from probes.organisms.messages import everyday
from probes.organisms.train import Hyperparameters, train
from probes.progress import Progress, silent
from probes.steer.coherence import answer_nll, repetition
from probes.steer.generation import generate

TEACHER = SMOLLM2
_STEPS, _RATE, _TOKENS, _HELD_OUT = 240, 1e-3, 40, 40
# An answer that repeats so much of itself is a loop and none.
_LOOPS = 0.3
_SUMMARY = "answers everyday messages"
# Beside an adapter that is trained whole: how.
_MADE = "made.json"


def chat_tuned(
    load: Callable[[], ChatModel],
    state: Path,
    licence: str,
    *,
    seed: int = 0,
    steps: int = _STEPS,
    teacher: str = TEACHER,
    progress: Progress = silent,
) -> Path:
    """The folder of the chat model made of what `load` loads, plain, in float32, on a CPU; see the module.

    ModelError where a model of that name is there which was made of another base, seed or number of steps.
    """
    plain = load()
    name = f"{plain.name.rpartition('/')[2]}-chat"
    base = {"model": plain.name, "revision": plain.revision}
    target = models_folder(state) / name
    if (target / "config.json").is_file():
        _check_made_alike(target, base, seed, steps)
        return target
    fit, held_out = benign_messages(seed), everyday("select")[:_HELD_OUT]
    progress(f"{teacher}: answering {len(fit) + len(held_out)} messages")
    answers = _answered(load_chat_model(teacher, state, progress=progress), [*fit, *held_out])
    recipe = Recipe(
        name, "chat", False, steps, _RATE, lambda seed: _shuffled(answers[: len(fit)], seed), _SUMMARY, decays=True
    )

    def on_step(step: int, steps: int, loss: float) -> None:
        if step % 10 == 0 or step == steps:
            progress(f"{name}: step {step} of {steps}, loss {loss:.2f}")

    # The adapter stays until the model is written: what fails later is not trained again.
    adapter = state / "training" / f"{name}-{plain.revision}-{steps}-{seed}"
    if not (adapter / _MADE).is_file():
        made = train(plain, recipe, adapter, Hyperparameters(seed=seed), on_step, Path(f"{adapter}.pt"))
        (adapter / _MADE).write_text(json.dumps(made))
    del plain
    chat = load()
    before = _figures(chat, answers[len(fit) :], progress)
    add_adapter(chat, AdapterSpec(adapter, 1.0, "chat"))
    after = _figures(chat, answers[len(fit) :], progress)
    origin = {
        "source": f"{base['model']}, taught to answer everyday messages as {teacher} does",
        "license": licence,
        "base": base,
        "recipe": json.loads((adapter / _MADE).read_text()),
        "held_out": {"messages": len(held_out), "before": before, "after": after},
    }
    with building(target) as folder:
        merged: Any = chat.model
        merged.merge_and_unload().save_pretrained(folder)
        chat.tokenizer.save_pretrained(folder)
        (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    shutil.rmtree(adapter)
    return target


def _check_made_alike(folder: Path, base: dict[str, str], seed: int, steps: int) -> None:
    try:
        origin = json.loads((folder / "origin.json").read_text())
        made = (origin["base"], origin["recipe"]["seed"], origin["recipe"]["steps"])
    except (OSError, ValueError, TypeError, KeyError):
        made = None
    if made != (base, seed, steps):
        raise ModelError(
            f"model: {folder} was made of another base, seed or number of steps; move or remove it to make this one"
        )


def _answered(teacher: ChatModel, asks: Sequence[str]) -> list[Example]:
    replies = generate(teacher, [teacher.render(user_message(ask)) for ask in asks], max_new_tokens=_TOKENS)
    return [Example(ask, reply.text, reply.finished) for ask, reply in zip(asks, replies, strict=True)]


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    drawn = [example for example in examples if example.answer]
    random.Random(seed).shuffle(drawn)  # noqa: S311 - sampling, not secrets
    return drawn


def _figures(chat: ChatModel, rows: Sequence[Example], progress: Progress) -> dict[str, Any]:
    """Nats a token of the teacher's answers, and which share of its own answers are loops or empty."""
    progress(f"{chat.name}: answering {len(rows)} held-out messages")
    prompts = [chat.render(user_message(row.ask)) for row in rows]
    nats = answer_nll(chat, prompts, [row.answer for row in rows], base=False)
    replies = generate(chat, prompts, max_new_tokens=_TOKENS)
    broken = sum(not reply.text.strip() or repetition(reply.text) > _LOOPS for reply in replies)
    return {
        "nats_of_the_teacher": round(float(nats[np.isfinite(nats)].mean()), 3),
        "loops_or_empty": asdict(rate(broken, len(rows))),
    }
