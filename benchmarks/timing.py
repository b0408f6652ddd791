"""Interleaved timing: paths that share batches take turns batch by batch, so that a machine's drift hits all alike.

Units: seconds of wall clock; tokens are real ones, padding is not counted. The ratio of two paths is the median over
rounds of their ratio within a round; low and high are the extremes of that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.paths import Path
from probes.capture.batches import Batch


@dataclass(frozen=True)
class Ratio:
    """Median over rounds, and the extremes."""

    median: float
    low: float
    high: float


def one_round(paths: Sequence[Path], batches: Sequence[Batch], turn: int) -> dict[str, float]:
    """Tokens/s of each path (by key) over all batches; who goes first rotates with the batch and with `turn`."""
    seconds = dict.fromkeys((path.key for path in paths), 0.0)
    for i, batch in enumerate(batches):
        start = (i + turn) % len(paths)
        for path in (*paths[start:], *paths[:start]):
            started = time.perf_counter()
            path.step(batch)
            seconds[path.key] += time.perf_counter() - started
    tokens = sum(batch.tokens for batch in batches)
    return {key: tokens / spent for key, spent in seconds.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """above / below, round by round."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))
