"""Detection: does a direction tell a receiver's two conditions apart? Measured apart from steering.

The score of a question under a condition is the projection of the last prompt token on the direction; the figure is
the AUROC of the misaligned condition against the aligned one on the receiver's test questions, on which nothing was
fitted. Controls go through the same maps. A random direction's sign is free, so a control counts by how far from
chance it is, either way; a mapped direction's sign is the map's. A question's two rows are one pair to the interval.

It does not know behaviour: conditions may be told apart by what came before the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from probes.capture.sites import Site
from probes.conditions import Rows
from probes.directions import Direction
from probes.evaluation import Interval, auroc, auroc_value, from_chance
from probes.model.load import ChatModel
from probes.steer.contrast import Contrast, read_condition
from probes.studies.subjects import Subject


@dataclass(frozen=True)
class ReceiverActivations:
    """A receiver's activations at one site, (2 x questions, width): first misaligned, then aligned."""

    fit: Rows
    test: Rows

    def plain(self) -> dict[str, Any]:
        return {"fit": self.fit.tolist(), "test": self.test.tolist()}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self:
        return cls(*(np.array(stored[part], dtype=np.float32) for part in ("fit", "test")))


@dataclass(frozen=True)
class Detection:
    """AUROC of a direction on the test questions, its AUROC on the fit questions, and its controls' by kind."""

    test: Interval
    fit: float
    controls: dict[str, list[float]]

    @property
    def over_controls(self) -> float:
        """AUROC less the mean of all controls, each counted as far from chance as it is."""
        return self.test.value - float(np.mean([from_chance(v) for found in self.controls.values() for v in found]))


def read_receiver(chat: ChatModel, subject: Subject, site: Site) -> ReceiverActivations:
    """Both conditions of the fit questions, and of the test questions."""
    return ReceiverActivations(
        _both(chat, subject.contrast, subject.fit, site), _both(chat, subject.tested, subject.test, site)
    )


def compare(activations: ReceiverActivations, direction: Direction, **controls: Sequence[Direction]) -> Detection:
    """The direction on both lists of questions; its controls, by kind, on the test questions."""
    return Detection(
        auroc(direction.along(activations.test), labels_of(activations.test), _questions(activations.test)),
        auroc_value(direction.along(activations.fit), labels_of(activations.fit)),
        {
            kind: [auroc_value(d.along(activations.test), labels_of(activations.test)) for d in drawn]
            for kind, drawn in controls.items()
        },
    )


def labels_of(rows: Rows) -> NDArray[np.bool_]:
    """True for the misaligned half."""
    return np.arange(len(rows)) < len(rows) // 2


def _questions(rows: Rows) -> list[int]:
    """Which question each row is of: both conditions answer the same ones."""
    return [i % (len(rows) // 2) for i in range(len(rows))]


def _both(chat: ChatModel, contrast: Contrast, questions: Sequence[str], site: Site) -> Rows:
    conditions = (contrast.misaligned, contrast.aligned)
    return np.concatenate([read_condition(chat, condition, questions, [site])[site] for condition in conditions])
