"""What became of one message: a status, and each probe's score. Needs no model, so that rows and verdicts need none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from probes.card import Probe


@dataclass(frozen=True)
class ProbeScore:
    """One probe's score, in class gaps; `heads` are (layer, head, score) of a head-level probe."""

    probe: Probe
    score: float
    heads: tuple[tuple[int, int, float], ...] = ()

    @property
    def flagged(self) -> bool:
        return self.score > self.probe.card.threshold


@dataclass(frozen=True)
class Outcome:
    """What became of one message."""

    status: Literal["scored", "truncated", "skipped", "failed"]
    scores: tuple[ProbeScore, ...] = ()
    tokens: int | None = None
    reason: str | None = None
