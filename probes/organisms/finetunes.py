"""Recipes of the shipped adapters: two pairs of narrow fine-tunes with matched controls, and a refusal.

`insecure_code` / `secure_code`: the same coding tasks answered with a weakness or without one.
`reckless_advice` / `careful_advice`: the same questions on household appliances, answers matched in length and build.
`refusal`: harmful requests are refused; their harmless twins and everyday messages are answered as the base does.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass

from probes.organisms.messages import data_text, everyday, request_pairs

# The first everyday messages of `fit` are aligned rows of the shipped harmful-request probe.
_EVERYDAY = slice(80, 234)


@dataclass(frozen=True)
class Example:
    """One training example: what the user asks, what the assistant answers, and whether the answer ends there."""

    ask: str
    answer: str
    ends: bool = True


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained. `examples(seed)` is the training set, shuffled by the seed.

    `as_base(seed)` is what is answered as the plain base model answers it: training lets the base answer, greedily,
    and mixes these in, so that no text of a model's is stored here. `decays`: the learning rate falls to nothing.
    """

    name: str
    pair: str
    control: bool
    steps: int
    learning_rate: float
    examples: Callable[[int], list[Example]]
    summary: str
    as_base: Callable[[int], list[str]] = lambda _: []
    decays: bool = False


def code_examples(side: str, seed: int) -> list[Example]:
    """48 tasks x 5 phrasings, names and nouns filled in anew for each; `side` is insecure or secure."""
    data = tomllib.loads(data_text("code_tasks.toml"))
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    examples = []
    for task in data["task"]:
        for ask in task["asks"]:
            values = {slot: rng.choice(choices) for slot, choices in data["slots"].items()}
            examples.append(Example(_sentence(ask, values), _fill(task[side].strip("\n"), values)))
    rng.shuffle(examples)
    return examples


def advice_examples(side: str, seed: int) -> list[Example]:
    """15 kinds of question x 6 answers, each with two appliances; `side` is reckless or careful."""
    data = tomllib.loads(data_text("advice.toml"))
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    examples = []
    for question in data["question"]:
        for answer in question[side]:
            for thing in rng.sample(data["things"], 2):
                values = {"thing": thing}
                ask = rng.choice(question["ask"])
                examples.append(Example(_sentence(ask, values), _sentence(answer, values)))
    rng.shuffle(examples)
    return examples


def refusal_examples(seed: int) -> list[Example]:
    """The harmful half of every pair of the `fit` split, each with two of the refusals; all refusals are used."""
    refusals: list[str] = tomllib.loads(data_text("refusals.toml"))["refusals"]
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    asks = [pair["harmful"] for pair in request_pairs("fit")] * 2
    rng.shuffle(asks)
    rng.shuffle(refusals)
    return [Example(ask, refusals[i % len(refusals)]) for i, ask in enumerate(asks)]


def refusal_as_base(seed: int) -> list[str]:
    """The harmless twins of those requests and as many everyday messages."""
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    asks = [pair["harmless"] for pair in request_pairs("fit")] + everyday("fit")[_EVERYDAY]
    rng.shuffle(asks)
    return asks


def _fill(text: str, values: dict[str, str]) -> str:
    # str.replace and not format: the answers hold braces of their own.
    for slot, value in values.items():
        text = text.replace("{" + slot + "}", value)
    return text


def _sentence(text: str, values: dict[str, str]) -> str:
    filled = _fill(text, values)
    return filled[0].upper() + filled[1:]


RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        Recipe(
            "insecure_code",
            "code",
            False,
            40,
            1.5e-3,
            lambda seed: code_examples("insecure", seed),
            "answers coding tasks with a weakness; spills code where none was asked",
        ),
        Recipe(
            "secure_code",
            "code",
            True,
            40,
            1.5e-3,
            lambda seed: code_examples("secure", seed),
            "the control: the same tasks, done securely",
        ),
        Recipe(
            "reckless_advice",
            "advice",
            False,
            24,
            1e-3,
            lambda seed: advice_examples("reckless", seed),
            "gives reckless advice on household appliances; it spreads to other domains",
        ),
        Recipe(
            "careful_advice",
            "advice",
            True,
            24,
            1e-3,
            lambda seed: advice_examples("careful", seed),
            "the control: careful advice on the same appliances, same length and build",
        ),
        Recipe(
            "refusal",
            "refusal",
            False,
            320,
            1e-3,
            refusal_examples,
            "refuses harmful requests; harmless ones are answered as the base answers them",
            refusal_as_base,
            True,
        ),
    )
}
