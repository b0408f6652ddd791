"""What an attack family is: a kind of transformation of a message, with many wordings.

Contract: a family turns a conversation into another that asks for the same thing. `Family.wordings` draws from all its
wordings by a seed; `attacked` applies one to a conversation, and the outcome follows from (seed, family, row, wording)
alone. The message that is changed is the last user turn (the last turn where there is none), or, for a probe that reads
responses, the response, where that makes sense (`Family.changes`).

Parts: a family's wordings are split in two by the word that says most in them (the language asked for, the person that
is played), so that what a choice was made under is not what figures are reported on. A family that holds out
(`holds_out`) has no wordings for choices at all.

Does not know: models, scores.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from probes.errors import DataError
from probes.hashing import sha256_text

Turns = list[dict[str, Any]]
# "prompt": what the probe reads ends before the reply; "response": it reads the reply.
Target = Literal["prompt", "response"]
Part = Literal["choose", "report", "all"]
# "text": how a text is written, whoever wrote it; "request": what a user says beside it; "turns": which turns hold it.
Changes = Literal["text", "request", "turns"]


@dataclass(frozen=True)
class Markers:
    """What a template writes between turns, as a sender could write it; empty strings where it has none."""

    to_user: str = ""
    to_assistant: str = ""
    to_system: str = ""
    control: tuple[str, ...] = ()


@dataclass(frozen=True)
class Materials:
    """What wordings are made of beside awry's own words: benign texts, how tokens are counted, the model's markers."""

    benign: Sequence[str] = ()
    tokens: Callable[[str], int] = field(default=lambda text: -(-len(text) // 4), repr=False)
    markers: Markers = field(default_factory=Markers)


@dataclass(frozen=True)
class Wording:
    """One transformation. `label` says it in awry's words, never in a message's; `key` is what parts are split by."""

    label: str
    text: Callable[[str, random.Random], str] | None = field(default=None, repr=False)
    turns: Callable[[Turns, random.Random], Turns] | None = field(default=None, repr=False)
    key: str = ""


@dataclass(frozen=True)
class Family:
    """A kind of attack. `holds_out`: nothing may be chosen by it; its figures are reported apart."""

    name: str
    about: str
    make: Callable[[Materials], Sequence[Wording]] = field(repr=False)
    changes: Changes = "text"
    holds_out: bool = False

    def wordings(self, materials: Materials, *, seed: int, count: int, part: Part = "report") -> tuple[Wording, ...]:
        """At most `count` wordings of a part, drawn by the seed."""
        if self.holds_out:
            if part == "choose":
                raise DataError(f"attacks: {self.name} holds out; nothing may be chosen by it")
            part = "all"
        made = list(self.make(materials))
        mine = made if part == "all" else _part_of(made, part)
        return tuple(_spread(mine, min(count, len(mine)), rng_of(seed, self.name, "wordings")))

    def changed(self, target: Target) -> Target:
        """What this family changes of a message that is read for `target`."""
        return "response" if target == "response" and self.changes == "text" else "prompt"


@dataclass(frozen=True)
class Attacked:
    """A conversation under one wording."""

    turns: Turns
    response: str | None
    wording: str


def attacked(
    family: Family,
    wording: Wording,
    turns: Sequence[Mapping[str, Any]],
    response: str | None = None,
    *,
    seed: int,
    row: int,
    target: Target = "prompt",
) -> Attacked:
    """One conversation under one wording; `row` numbers the messages of a run. The input is left as it is."""
    rng = rng_of(seed, family.name, str(row), wording.label)
    copied = [dict(turn) for turn in turns]
    if wording.turns is not None:
        return Attacked(wording.turns(copied, rng), response, wording.label)
    change = wording.text or _same
    if family.changed(target) == "response":
        if response is None:
            raise DataError(f"attacks: row {row + 1} has no response, and the probe reads responses")
        return Attacked(copied, change(response, rng), wording.label)
    at = request_turn(copied)
    copied[at]["content"] = change(text_of(copied[at]), rng)
    return Attacked(copied, response, wording.label)


def request_turn(turns: Sequence[Mapping[str, Any]]) -> int:
    """Index of the turn that asks: the last of the user's, or the last of all."""
    if not turns:
        raise DataError("attacks: a message without turns; give at least one user turn")
    users = [i for i, turn in enumerate(turns) if turn.get("role") == "user"]
    return users[-1] if users else len(turns) - 1


def text_of(turn: Mapping[str, Any]) -> str:
    """What a turn says; parts of other kinds are left out."""
    content = turn.get("content")
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and "text" in part)
    return content if isinstance(content, str) else ""


def rng_of(seed: int, *names: str) -> random.Random:
    """Random numbers that follow from the seed and the names, the same on every machine."""
    return random.Random("/".join([str(seed), *names]))  # noqa: S311 - an experiment's seed, nothing secret


def _same(text: str, _rng: random.Random) -> str:
    return text


def _spread(wordings: Sequence[Wording], count: int, rng: random.Random) -> list[Wording]:
    """A draw that takes one wording of each key before a second of any."""
    groups: dict[str, list[Wording]] = {}
    for wording in rng.sample(wordings, len(wordings)):
        groups.setdefault(wording.key or wording.label, []).append(wording)
    drawn: list[Wording] = []
    while len(drawn) < count:
        drawn += [group.pop() for group in groups.values() if group]
    return drawn[:count]


def _part_of(wordings: Sequence[Wording], part: Part) -> list[Wording]:
    """One half of the wordings, by the hash of their keys; a single key is in both."""
    keys = sorted({wording.key or wording.label for wording in wordings}, key=sha256_text)
    if len(keys) < 2:
        return list(wordings)
    kept = set(keys[part == "report" :: 2])
    return [wording for wording in wordings if (wording.key or wording.label) in kept]
