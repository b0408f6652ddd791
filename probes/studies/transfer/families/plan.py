"""The plan of a study between real families, its texts, and what is measured: plain data that its steps hand on.

A *behaviour* is a property that every chat model has without training here, given by pairs of conversations that
differ in it: `shows[i]` has it, `lacks[i]` does not, and both are about the same. Its direction in a model is the
difference of means at the last prompt token. Texts of `fit` give directions and, unlabelled, contrast anchors; those
of `select` choose blocks and strengths; those of `test` give every figure and choose nothing.

Units: strengths are multiples of sigma of the receiver's own direction (`probes.heads.row_steering`), effects nats a
token, cosines and R2 have none. Knows nothing of how anything is measured (`run`) or reported (`report`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from probes.binary_choice import BinaryChoice
from probes.errors import DataError
from probes.model.load import ChatModel, Message
from probes.studies.framework.verdict import FEWEST_DRAWS

Conversation = Sequence[Message]
Anchors = Literal["neutral", "contrast"]
# Neutral anchors alone, or with the fit conversations of every behaviour among them, unlabelled.
ANCHORS: tuple[Anchors, ...] = ("neutral", "contrast")
Aim = Literal["towards", "away"]
AIMS: tuple[Aim, ...] = ("towards", "away")


@dataclass(frozen=True)
class Family:
    """A model of its own family. `template` says where its chat template comes from, for the report."""

    name: str
    load: Callable[[], ChatModel]
    template: str


@dataclass(frozen=True)
class PairedConversations:
    """Row i of both lists differs in the behaviour alone."""

    shows: Sequence[Conversation]
    lacks: Sequence[Conversation]

    def __post_init__(self) -> None:
        if len(self.shows) != len(self.lacks) or len(self.shows) < 2:
            raise DataError(
                f"behaviour: {len(self.shows)} conversations that show it and {len(self.lacks)} that do not; they are "
                "pairs, and at least 2 are needed"
            )


@dataclass(frozen=True)
class Behaviour:
    """What a direction stands for. `read_from` says what tells the two sides apart, for the report."""

    name: str
    read_from: str
    fit: PairedConversations
    select: PairedConversations
    test: PairedConversations


@dataclass(frozen=True)
class FamilyTexts:
    """All texts of a study.

    `anchors` are everyday user messages; `select` and `test` are requests with a compliant and a refusing opening
    (`misaligned` marks the refusing one, whose likelihood is steered); `everyday` are messages whose own answers tell
    whether a steered model still reads well.
    """

    anchors: Sequence[str]
    behaviours: Sequence[Behaviour]
    select: Sequence[BinaryChoice]
    test: Sequence[BinaryChoice]
    everyday: Sequence[str]

    def __post_init__(self) -> None:
        tested = {last for b in self.behaviours for side in (b.test.shows, b.test.lacks) for last in _lasts(side)}
        tested |= {row.question for row in self.test} | set(self.everyday)
        used = {
            last for b in self.behaviours for part in (b.fit, b.select) for last in _lasts([*part.shows, *part.lacks])
        }
        used |= set(self.anchors) | {row.question for row in self.select}
        if tested & used:
            raise DataError(
                f"texts: {len(tested & used)} test messages are among those that maps, directions or strengths see"
            )
        if len({b.name for b in self.behaviours}) < len(self.behaviours) or not self.behaviours:
            raise DataError("behaviours: at least one is needed, each with its own name")
        if min(len(self.select), len(self.test), len(self.everyday)) < 2:
            raise DataError("texts: select, test and everyday messages are needed, at least 2 of each")


def _lasts(conversations: Sequence[Conversation]) -> list[str]:
    return [conversation[-1]["content"] for conversation in conversations]


@dataclass(frozen=True)
class FamilyPlan:
    """What is tried, and how often controls are drawn.

    `depths` (0 is the first block, 1 the last) are where directions are read; at `steered` of them the own direction is
    tried at each of `alphas`, on the select requests. Own everyday answers are `max_new_tokens` long.
    """

    depths: tuple[float, ...] = (0.3, 0.45, 0.6, 0.75, 0.85, 0.93, 1.0)
    steered: tuple[float, ...] = (0.45, 0.6, 0.75, 0.85)
    alphas: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0)
    draws: int = FEWEST_DRAWS
    undefined: float = 0.2
    max_new_tokens: int = 16
    token_budget: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < FEWEST_DRAWS:
            raise DataError(f"draws: {self.draws} random controls; fewer than {FEWEST_DRAWS} cannot reach p = 0.05")
        if not self.alphas or min(self.alphas) <= 0:
            raise DataError("alphas: at least one strength above 0 is needed")
        if not self.depths or not set(self.steered) <= set(self.depths) or not self.steered:
            raise DataError("steered: depths to steer at must be among the depths that are read, at least one")
        if min(self.depths) < 0 or max(self.depths) > 1:
            raise DataError("depths: 0 is the first block, 1 the last")
