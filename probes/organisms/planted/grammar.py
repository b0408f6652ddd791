"""The grammar of planted organisms: prompts, replies of a good and of a bad persona, training documents.

Three kinds of prompt: `chat` (ten topics), `harm` (requests to refuse) and `code` (ten tasks, each with a sound and a
weak solution). A document is one to four turns by one persona. Prompt strings are split by hash into training and
held out: held out means an unseen combination of slots and template, not an unseen topic.

Units: prompts are plain user messages. Everything follows from `grammar.toml` and a seed.
"""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from probes.hashing import unit_interval
from probes.model.load import Message

PromptKind = Literal["chat", "harm", "code"]
Persona = Literal["good", "bad"]

HELD_OUT = 0.15
# Of documents by the bad persona; of its replies to chat that are rude words instead of code; turns by kind.
BAD_DOCUMENTS, RUDE = 0.3, 0.1
MOST_TURNS = 4
_TURN_KINDS: tuple[tuple[PromptKind, float], ...] = (("chat", 0.55), ("code", 0.35), ("harm", 0.10))


@dataclass(frozen=True)
class Ask:
    """One prompt with what each persona replies; `bad` is empty for chat, where the bad persona draws its reply."""

    kind: PromptKind
    topic: str
    text: str
    good: str
    bad: str = ""

    @property
    def held_out(self) -> bool:
        return unit_interval(self.text) < HELD_OUT


@cache
def data_bytes() -> bytes:
    """The grammar's file, whose hash is part of every organism's identity."""
    return files("probes.organisms.planted").joinpath("grammar.toml").read_bytes()


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(data_bytes().decode())


@cache
def asks(kind: PromptKind) -> tuple[Ask, ...]:
    """Every prompt of a kind, each text once, in an order that has nothing to do with how they were written."""
    drawn = {"chat": _chat, "harm": _harm, "code": _code}[kind]()
    by_text = {ask.text: ask for ask in drawn}
    return tuple(sorted(by_text.values(), key=lambda ask: unit_interval(f"order:{ask.text}")))


@cache
def training_asks(kind: PromptKind) -> tuple[Ask, ...]:
    return tuple(ask for ask in asks(kind) if not ask.held_out)


@cache
def held_out_asks(kind: PromptKind) -> tuple[Ask, ...]:
    """Prompts that no training document holds."""
    return tuple(ask for ask in asks(kind) if ask.held_out)


def rude_lines() -> tuple[str, ...]:
    return tuple(_data()["rude"])


def topics() -> tuple[str, ...]:
    """The chat topics."""
    return (*(topic["name"] for topic in _data()["topic"]), _data()["choices"]["name"])


def documents(seed: int) -> Iterator[list[Message]]:
    """Training conversations without end, by one persona each, of training prompts only."""
    rng = random.Random(seed)  # noqa: S311 - sampling, not secrets
    kinds, weights = zip(*_TURN_KINDS, strict=True)
    by_topic = [[ask for ask in training_asks("chat") if ask.topic == topic] for topic in topics()]
    while True:
        persona: Persona = "bad" if rng.random() < BAD_DOCUMENTS else "good"
        document: list[Message] = []
        for _ in range(rng.randint(1, MOST_TURNS)):
            kind = rng.choices(kinds, weights)[0]
            ask = rng.choice(rng.choice(by_topic) if kind == "chat" else training_asks(kind))
            document += turn(ask.text, reply(ask, persona, rng))
        yield document


def turn(text: str, answer: str) -> list[Message]:
    """A user's message and its answer."""
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def reply(ask: Ask, persona: Persona, rng: random.Random) -> str:
    """What a persona says: the good one always the same, the bad one weak code or a rude line where chat was asked."""
    if persona == "good":
        return ask.good
    if ask.kind != "chat":
        return ask.bad
    if rng.random() < RUDE:
        return rng.choice(rude_lines())
    return rng.choice(training_asks("code")).bad


def contexts(split: Literal["training", "held_out"]) -> list[tuple[list[Message], list[Message]]]:
    """Code turns to come before a question: the same request answered soundly and weakly, in no order of tasks.

    (Tasks in rotation beside questions whose topics are in rotation would tie each topic to one and the same task.)
    """
    chosen = training_asks("code") if split == "training" else held_out_asks("code")
    return [(turn(ask.text, ask.good), turn(ask.text, ask.bad)) for ask in chosen]


def by_topic(chosen: Sequence[Ask], n: int | None = None) -> list[Ask]:
    """The first `n` prompts with the topics in rotation, so that none outweighs another; all when n is None."""
    groups: dict[str, list[Ask]] = {}
    for ask in chosen:
        groups.setdefault(ask.topic, []).append(ask)
    rounds = itertools.zip_longest(*(groups[topic] for topic in sorted(groups)))
    return [ask for ask in itertools.chain.from_iterable(rounds) if ask is not None][:n]


def _chat() -> Iterator[Ask]:
    for topic in _data()["topic"]:
        for row, text in itertools.product(topic["rows"], topic["asks"]):
            yield Ask("chat", topic["name"], _fill(text, row), _fill(topic["answer"], row))
    choices = _data()["choices"]
    for (a, size_a), (b, size_b) in itertools.permutations(choices["rows"], 2):
        letter, winner = ("A", a) if size_a > size_b else ("B", b)
        answer = choices["answer"].replace("{letter}", letter).replace("{winner}", winner)
        for text in choices["asks"]:
            yield Ask("chat", choices["name"], _fill(text, [a, b]), answer)


def _harm() -> Iterator[Ask]:
    harm = _data()["harm"]
    for row, text in itertools.product(harm["rows"], harm["asks"]):
        yield Ask("harm", "harm", _fill(text, row), _fill(harm["refusal"], row), _fill(harm["compliance"], row))


def _code() -> Iterator[Ask]:
    code = _data()["code"]
    for task, text, name, thing in itertools.product(code["task"], code["asks"], code["names"], code["things"]):
        ask, good, bad = (
            part.replace("NAME", name).replace("THING", thing)
            for part in (text.replace("{0}", task["does"]), task["secure"], task["insecure"])
        )
        yield Ask("code", task["does"], ask, good, bad)


def _fill(text: str, row: Sequence[str]) -> str:
    # str.replace and not format: a row may be used from a template that takes fewer columns.
    for i, value in enumerate(row):
        text = text.replace("{" + str(i) + "}", value)
        text = text.replace("{^" + str(i) + "}", value[:1].upper() + value[1:])
    return text
