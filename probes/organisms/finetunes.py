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

from probes.organisms.messages import data_text, everyday, hard_benign, more_requests, plain_requests, requests
from probes.splits import split_of

# Words of a longest question; longer ones are few, and each would set the width of a whole batch.
_WORDS = 34


@dataclass(frozen=True)
class Example:
    """One training example: what the user asks, what the assistant answers, and whether the answer ends there."""

    ask: str
    answer: str
    ends: bool = True


@dataclass(frozen=True)
class Mixture:
    """What a step of training holds, in place of examples in turn: matched pairs whole, and others.

    `twins()` is the twin of each request; a step has `pairs` requests, each with its twin, and `others` further
    examples. With both sides in one step, what moves the weights is what the two do not share. The first tokens of an
    answer, which say whether it refuses, count `lead` times.
    """

    pairs: int
    others: int
    twins: Callable[[], dict[str, str]]
    lead: float = 1.0

    def described(self) -> dict[str, float]:
        """As data, for manifests."""
        return {"pairs_a_step": self.pairs, "others_a_step": self.others, "lead": self.lead}


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained. `examples(seed)` is the training set, shuffled by the seed.

    `as_base(seed)` is what is answered as the plain base model answers it: training lets the base answer, greedily,
    and mixes these in, so that no text of a model's is stored here. `decays`: the learning rate falls to nothing. With
    a `mixture` the loss is that of `probes.organisms.answer_loss`.
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
    mixture: Mixture | None = None

    @property
    def judge(self) -> str:
        """The judge (`probes.organisms.judges`) of what the pair is about."""
        return "reckless" if self.pair == "advice" else self.pair


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


def refusal_pairs() -> dict[str, str]:
    """Harmful requests to train on, each with its harmless twin.

    Of the pairs that `awry fit` splits, its `fit` half alone: what a shipped probe chose by or was tested on is unseen.
    """
    split = [*requests(), *more_requests()]
    pairs = [row for row in split if split_of(str(row["pair"])) == "fit"] + plain_requests()
    return {p["harmful"]: p["harmless"] for p in pairs if _short(p["harmful"]) and _short(p["harmless"])}


def refusal_examples(seed: int) -> list[Example]:
    """Every harmful request, each with three of the refusals; all refusals are used."""
    refusals: list[str] = tomllib.loads(data_text("refusals.toml"))["refusals"]
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    asks = list(refusal_pairs()) * 3
    rng.shuffle(asks)
    rng.shuffle(refusals)
    return [Example(ask, refusals[i % len(refusals)]) for i, ask in enumerate(asks)]


def benign_messages(seed: int) -> list[str]:
    """The harmless twins, everyday messages, and benign ones that sound worse than they are; `fit` rows alone."""
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    asks = [*refusal_pairs().values(), *filter(_short, _benign(trained=True))]
    rng.shuffle(asks)
    return asks


def benign_left_out() -> list[str]:
    """Messages like those of `benign_messages`, none of which is among them: no adapter was trained on these."""
    return _benign(trained=False)


def _benign(*, trained: bool) -> list[str]:
    rows = [(f"fit-{i}", text) for i, text in enumerate(everyday("fit"))]
    rows += [(f"hard-benign-{i}", row["text"]) for i, row in enumerate(hard_benign())]
    return [text for name, text in rows if (split_of(name) == "fit") is trained]


def _short(text: str) -> bool:
    return len(text.split()) <= _WORDS


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
            720,
            1e-3,
            refusal_examples,
            "refuses harmful requests; harmless ones are answered as the base answers them",
            benign_messages,
            True,
            Mixture(5, 6, refusal_pairs, lead=4.0),
        ),
    )
}
