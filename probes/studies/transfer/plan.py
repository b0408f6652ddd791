"""The plan of a transfer study and what it measures: plain data that the steps of the study hand to each other.

Units: `strength` is in the mode's own units (`probes.steer.steering`), cosines and R2 have none, rates are shares of
the test questions. Knows nothing of how anything is measured (`run`), summarised (`report`) or exported (`export`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.directions import Direction
from probes.errors import DataError
from probes.steer.contrast import ContrastOutcome
from probes.steer.steering import Mode, Positions
from probes.studies.subjects import Subject
from probes.studies.transfer.detection import Detection
from probes.studies.transfer.maps import RidgeMap

Anchors = Literal["neutral", "contrast"]


@dataclass(frozen=True)
class TransferPlan:
    """How maps are fitted and directions applied.

    `depth` 0 is block 0, 1 the last block. `draws` is the number of random donor directions, of shuffled maps and of
    random receiver directions. `token_positions` are named; the first is where directions are read. `interval` is the
    widest half-width that a rate on the test questions may have.
    """

    anchors: Anchors = "neutral"
    depth: float = 1.0
    modes: tuple[Mode, ...] = ("ablate", "subtract")
    strength: float = 1.0
    steered: Positions = "all"
    token_positions: tuple[str, ...] = ("last_prompt",)
    draws: int = 5
    interval: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 <= self.depth <= 1 or not self.modes:
            raise DataError(
                f"settings: draws {self.draws} must be at least 1, depth {self.depth:g} within 0..1, and at least one "
                "mode given"
            )


@dataclass(frozen=True)
class ModelReading:
    """What one model gives to maps: anchors (rows, width), the text each row came from, its own direction."""

    subject: Subject
    identity: dict[str, Any]
    anchors: NDArray[np.float32]
    groups: NDArray[np.int_]
    native: Direction
    elsewhere: Direction | None


@dataclass(frozen=True)
class Receiver:
    """A receiver without a donor, by mode: nothing, its own direction, and directions of equal norm.

    `detection` is of its own direction, beside random ones.
    """

    aligned: ContrastOutcome
    untouched: ContrastOutcome
    native: dict[Mode, ContrastOutcome]
    random: dict[Mode, list[ContrastOutcome]]
    orthogonal: dict[Mode, ContrastOutcome]
    elsewhere: dict[Mode, ContrastOutcome] | None
    detection: Detection


@dataclass(frozen=True)
class Pair:
    """One ordered pair: the map, the mapped direction, where it points, what it does, by mode, and what it detects."""

    donor: str
    receiver: str
    map: RidgeMap
    direction: Direction
    shuffled_r2: list[float]
    cosine: float
    cosine_null: NDArray[np.float64]
    shuffled_cosines: list[float]
    mapped: dict[Mode, ContrastOutcome]
    random_source: dict[Mode, list[ContrastOutcome]]
    shuffled: dict[Mode, list[ContrastOutcome]]
    detection: Detection


@dataclass(frozen=True)
class Measured:
    """Everything that was measured, in the order of the subjects given."""

    settings: TransferPlan
    anchors: int
    readings: list[ModelReading]
    receivers: list[Receiver]
    pairs: list[Pair]
