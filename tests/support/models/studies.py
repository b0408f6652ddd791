"""The four studies as the tests run them: on small models whose truth is known, with plans that take seconds.

`tests.support.models.study_fixtures` runs each once a session; the tests of a study and the page of claims read what
it left.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from probes.binary_choice import BinaryChoice
from probes.capture.sites import Site
from probes.heads.search import SearchPlan
from probes.model.load import ChatModel, wrap
from probes.organisms.planted import SYNTHETIC, store
from probes.organisms.planted.evaluation import fit_questions, held_out_questions, persona_contrast
from probes.organisms.planted.evaluation import is_bad as is_bad_persona
from probes.studies.direction import Doses, Plan, adapter_pair, run_direction
from probes.studies.head_steering.fine_tune import FineTunePlan
from probes.studies.head_steering.plan import HeadsPlan, Messages
from probes.studies.head_steering.run import HeadsResult, run_heads
from probes.studies.metric import JudgeMetric
from probes.studies.mitigation import Prompts
from probes.studies.safety_heads.plan import SafetyPlan
from probes.studies.safety_heads.run import run_safety_heads
from probes.studies.subjects import Subject, planted_anchors
from probes.studies.transfer.plan import TransferPlan
from probes.studies.transfer.run import run_transfer
from tests.support.models import planted_head
from tests.support.models.planted_head import ALIGNED, MISALIGNED, letter_choices
from tests.support.models.planted_study import ALSO_BAD, BAD, STYLE, is_bad, load_adapter, messages, planted_chat
from tests.support.models.refusing import NO, refusing_chat, requests

# A direction: the planted model, whose adapters write along known directions.

DIRECTION_METRIC = JudgeMetric("brace", is_bad)
DIRECTION_PLAN = Plan(max_new_tokens=6, steered=50, permutations=20, doses=Doses(subtract=(0.25, 1.0)))
_ADAPTERS = {"style": STYLE, "also": ALSO_BAD, "bad": BAD}


@dataclass(frozen=True)
class DirectionStudy:
    folder: Path
    chat: ChatModel
    result: dict[str, Any]


def direction_prompts(seed: int = 0, fit: int = 40, select: int = 12, test: int = 60) -> Prompts:
    texts = messages(fit + select + test, seed)
    return Prompts(texts[:fit], texts[fit : fit + select], texts[fit + select :])


def chat_with_adapters(folder: Path, seed: int = 0) -> ChatModel:
    """The planted model with its adapters made in `folder`; `bad` is the one in use."""
    chat = planted_chat(seed)
    for name, written in _ADAPTERS.items():
        load_adapter(chat, folder, seed, name, **written)
    return chat


def run_the_direction_study(chat: ChatModel, folder: Path) -> dict[str, Any]:
    """Against the style adapter; where `folder` holds an earlier run, what is there is not measured again."""
    return run_direction(
        adapter_pair(chat, "style"),
        direction_prompts(),
        DIRECTION_METRIC,
        folder,
        DIRECTION_PLAN,
        name="planted",
        command="the command",
    )


# Heads that carry a choice: a model with one planted head.

HEADS_PLAN = HeadsPlan(
    name="letters",
    search=SearchPlan(alpha=4, alphas=(0.5, 1.0, 2.0, 4.0), strongest=16, keep=6, max_heads=2, search_questions=8),
    form="likelihood",
    interval=0.25,
    max_new_tokens=8,
    fine_tune=FineTunePlan(steps=30, batch=8, learning_rate=5e-3),
    examples=(2, 8),
)


def mostly_misaligned(text: str) -> bool:
    return sum(c in MISALIGNED for c in text) > sum(c in ALIGNED for c in text)


def letter_messages(kind: str, n: int) -> list[str]:
    rng = random.Random(kind)
    return ["".join(rng.choice(ALIGNED + MISALIGNED) for _ in range(8)) + f" {kind}{i}" for i in range(n)]


HEADS_METRIC = JudgeMetric("misaligned letters", mostly_misaligned)
HEADS_MESSAGES = Messages(letter_messages("s", 6), letter_messages("t", 16), letter_messages("b", 20))


@dataclass(frozen=True)
class HeadsStudy:
    folder: Path
    chat: ChatModel
    found: HeadsResult


def run_the_heads_study(
    folder: Path,
    chat: ChatModel | None = None,
    choices: list[BinaryChoice] | None = None,
    plan: HeadsPlan = HEADS_PLAN,
    heads: Sequence[Site] | None = None,
) -> HeadsResult:
    chat = chat or planted_head.planted_chat(0)
    choices = choices if choices is not None else letter_choices(60)
    return run_heads(chat, choices, HEADS_MESSAGES, HEADS_METRIC, folder, plan, heads=heads)


# Heads that carry refusal: a model with one refusing head.

SAFETY_PLAN = SafetyPlan(
    subspaces=((1, False), (2, True)),
    steps=2,
    top=(1,),
    listed=3,
    draws=2,
    interval=0.35,
    max_new_tokens=6,
    resamples=200,
)
HARMFUL, HARMLESS = requests(40, harmful=True), requests(40, harmful=False)
# With what a table in Markdown must escape.
SAFETY_COMMAND = "awry study safety-heads | tee log"


@dataclass(frozen=True)
class SafetyStudy:
    folder: Path
    chat: ChatModel
    result: dict[str, Any]
    progress: list[tuple[str, int, int]]


def run_the_safety_study(folder: Path) -> SafetyStudy:
    chat = refusing_chat()
    steps: list[tuple[str, int, int]] = []
    result = run_safety_heads(
        chat,
        HARMFUL,
        HARMLESS,
        folder,
        SAFETY_PLAN,
        metric=NO,
        command=SAFETY_COMMAND,
        on_progress=lambda *step: steps.append(step),
    )
    return SafetyStudy(folder, chat, result, steps)


# Transfer: a planted organism, and the same model in other coordinates.

TRANSFER_PLAN = TransferPlan(modes=("ablate",), draws=2, interval=0.25)


@dataclass(frozen=True)
class TransferStudy:
    folder: Path
    llama: ChatModel
    subjects: list[Subject]
    anchors: list[str]
    result: dict[str, Any]


def twin_of(chat: ChatModel, seed: int = 0) -> ChatModel:
    """The same function with the residual stream's dimensions in another order: RMS norms allow no other rotation."""
    model = copy.deepcopy(chat.model)
    order = torch.randperm(chat.layout.width, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.copy_(weight[order])
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.copy_(weight[order, :])
            else:
                weight.copy_(weight[:, order])
    return wrap(model, chat.tokenizer, name="twin", revision=f"order-{seed}")


def _twins(llama: ChatModel) -> list[Subject]:
    twin = twin_of(llama)
    subject = Subject(
        name="llama",
        group="llama",
        load=lambda: llama,
        contrast=persona_contrast("training"),
        test_contrast=persona_contrast("held_out"),
        judge=is_bad_persona,
        fit=fit_questions(40),
        test=[ask.text for ask in held_out_questions(20)],
        note=SYNTHETIC,
    )
    return [subject, replace(subject, name="twin", group="twin", load=lambda: twin)]


def run_the_transfer_study(folder: Path, no_state: Path) -> TransferStudy:
    llama = store.ensure_organism("llama", 0, no_state)
    subjects, anchors = _twins(llama), planted_anchors(240)
    left_out = {"planted-x": "it does not hold"}
    result = run_transfer(subjects, anchors, folder, settings=TRANSFER_PLAN, left_out=left_out)
    return TransferStudy(folder, llama, subjects, anchors, result)
