"""A score as threshold rules see it: what was measured, and the labels of its message.

Contract: `flagged` says whether the probe's threshold was passed; a score for which it is false is seen only by rules
on other measures, which have limits of their own. Those of turns are None where a probe reads no turns of the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from storage.coordinates import Coordinates, clean

# `trajectory`: the running maximum over the turns of a conversation, with decay; `path_length`: how far the score went
# from turn to turn. All are in class gaps.
Measure = Literal["score", "trajectory", "path_length"]
UNITS: dict[Measure, str] = {
    "score": "class gaps",
    "trajectory": "class gaps over turns",
    "path_length": "class gaps from turn to turn",
}

# (tenant, conversation id).
Conversation = tuple[str | None, str]


@dataclass(frozen=True)
class Flagged:
    """A score above its threshold, or with turns that a rule is on, and the labels of its message."""

    probe: str
    score: float
    threshold: float
    tenant: str | None
    model: str | None
    coordinates: Coordinates
    message_id: str | None
    conversation_id: str | None = None
    day: date | None = None
    # A judge is asked about it, and has not answered.
    waiting: bool = False
    flagged: bool = True
    trajectory: float | None = None
    path_length: float | None = None
    # How the message was read, the turn with the highest value, from 0, and whether that is new in this message.
    reading: str | None = None
    turn: int | None = None
    turn_new: bool | None = None

    @property
    def conversation(self) -> Conversation | None:
        """The conversation that the message belongs to, as the tables have it."""
        return (clean(self.tenant), clean(self.conversation_id)) if self.conversation_id else None

    @property
    def evidence(self) -> dict[str, Any]:
        """What decided the score, as alerts tell it; what is not known is left out."""
        return evidence(self.reading, self.turn, self.turn_new)

    def value(self, measure: Measure) -> float | None:
        """Of a measure; None where the message has none."""
        return {"score": self.score, "trajectory": self.trajectory, "path_length": self.path_length}[measure]


def evidence(reading: str | None, turn: int | None, turn_new: bool | None) -> dict[str, Any]:
    """The same of a row of `scores`."""
    known = {"reading": reading, "turn": turn, "turn_new": turn_new}
    return {name: value for name, value in known.items() if value is not None}
