"""The layout of charts, in units of their viewBox; the templates draw them as SVG.

Contract: x runs from left to right, y downwards, as in SVG. `timeline` spaces scores equally, since the scores of a
batch have one time. `distribution` is a histogram by tenths of a class gap beside that of the calibration, and
`head_map` has one cell a head. Empty input gives no chart (None).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from storage.queries.overview import Score

WIDTH, HEIGHT = 900.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 8.0, 22.0
_CELL = 16.0
# Relative to the values: a smaller range is drawn as a single value.
_MIN_RANGE = 1e-9


@dataclass(frozen=True)
class Tick:
    """A grid line or an axis label: its position and its text."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One score."""

    x: float
    y: float
    score: Score


@dataclass(frozen=True)
class Timeline:
    """`threshold` holds the points of an SVG polyline."""

    dots: list[Dot]
    threshold: str
    rows: list[Tick]
    columns: list[Tick]
    flagged: int


def timeline(scores: Sequence[Score]) -> Timeline | None:
    """Scores in their order, each with the threshold that it was compared with."""
    if not scores:
        return None
    values = [s.score for s in scores] + [s.threshold for s in scores]
    low, high = min(values), max(values)
    # Values too close for the axis are drawn as equal.
    margin = 0.06 * (high - low) if high - low > _MIN_RANGE * max(1.0, abs(low), abs(high)) else 0.5
    up = _scale(low - margin, high + margin, HEIGHT - _BOTTOM, _TOP)
    along = _scale(0, max(1, len(scores) - 1), _LEFT + 6, WIDTH - _RIGHT - 6)
    dots = [Dot(along(i), up(s.score), s) for i, s in enumerate(scores)]
    steps = []
    for value, group in groupby(enumerate(scores), key=lambda pair: pair[1].threshold):
        ranks = [i for i, _ in group]
        steps += [f"{along(ranks[0]):.1f},{up(value):.1f}", f"{along(ranks[-1]):.1f},{up(value):.1f}"]
    if len(scores) == 1:
        steps = [f"{_LEFT:.1f},{up(values[-1]):.1f}", f"{WIDTH - _RIGHT:.1f},{up(values[-1]):.1f}"]
    rows = [Tick(up(value), f"{value:g}") for value in _round_steps(low - margin, high + margin)]
    columns = [Tick(along(i), f"{scores[i].created_at:%H:%M:%S}") for i in _spread(len(scores), 5)]
    return Timeline(dots, " ".join(steps), rows, columns, sum(s.flagged for s in scores))


@dataclass(frozen=True)
class Bar:
    """A bin of a tenth of a class gap; the first and the last hold everything beyond."""

    x: float
    y: float
    width: float
    height: float
    label: str
    flagged: bool


@dataclass(frozen=True)
class Distribution:
    """`expected` holds the points of the calibration's outline; empty where the card has no quantiles."""

    bars: list[Bar]
    expected: str
    threshold: float | None
    columns: list[Tick]
    n: int


def distribution(
    counts: Mapping[int, int], quantiles: Sequence[Sequence[float]], threshold: float | None
) -> Distribution | None:
    """Shares of scores by bin; `quantiles` are (probability, score) of the calibration."""
    n = sum(counts.values())
    if not n:
        return None
    ends = [*counts, *(int(np.floor(10 * v)) for _, v in (*quantiles[:1], *quantiles[-1:]))]
    low, high = max(-51, min(ends)), min(99, max(ends))
    bins = range(low, high + 1)
    shares = {b: counts.get(b, 0) / n for b in bins}
    calibrated = dict(zip(bins, _shares(bins, quantiles), strict=True)) if quantiles else {}
    most = max(*shares.values(), *calibrated.values(), 1e-9) if calibrated else max(shares.values())
    up = _scale(0, most, HEIGHT - _BOTTOM, _TOP)
    along = _scale(low, high + 1, _LEFT, WIDTH - _RIGHT)
    width = along(low + 1) - along(low)
    bars = [
        Bar(
            along(b),
            up(share),
            width * 0.86,
            up(0) - up(share),
            f"{b / 10:g} to {(b + 1) / 10:g}: {share:.1%}",
            threshold is not None and b / 10 >= threshold,
        )
        for b, share in shares.items()
        if share
    ]
    outline = [f"{along(b + side):.1f},{up(share):.1f}" for b, share in calibrated.items() for side in (0, 1)]
    at = along(10 * threshold) if threshold is not None and low <= 10 * threshold <= high + 1 else None
    columns = [Tick(along(10 * value), f"{value:g}") for value in _round_steps(low / 10, (high + 1) / 10, 8)]
    return Distribution(bars, " ".join(outline), at, columns, n)


@dataclass(frozen=True)
class Cell:
    """One head; `strength` is its score divided by the largest absolute score."""

    x: float
    y: float
    layer: int
    head: int
    score: float
    strength: float


@dataclass(frozen=True)
class HeadMap:
    """Layers upwards, heads to the right; `size` is the width of a cell."""

    cells: list[Cell]
    rows: list[Tick]
    columns: list[Tick]
    width: float
    height: float
    size: float = _CELL


def head_map(rows: Sequence[Mapping[str, Any]]) -> HeadMap | None:
    """Scores by layer and head, in class gaps; only the layers and heads that a probe reads."""
    if not rows:
        return None
    layers = sorted({row["layer"] for row in rows}, reverse=True)
    heads = sorted({row["head"] for row in rows})
    most = max(abs(row["score"]) for row in rows) or 1.0
    x = {head: _LEFT + i * _CELL for i, head in enumerate(heads)}
    y = {layer: _TOP + i * _CELL for i, layer in enumerate(layers)}
    cells = [Cell(x[r["head"]], y[r["layer"]], r["layer"], r["head"], r["score"], r["score"] / most) for r in rows]
    bottom = _TOP + len(layers) * _CELL
    return HeadMap(
        cells,
        [Tick(at + _CELL * 0.7, str(layer)) for layer, at in y.items()],
        [Tick(at + _CELL / 2, str(head)) for head, at in x.items()],
        max(_LEFT + len(heads) * _CELL + _RIGHT, 160.0),
        bottom + _BOTTOM + 14,
    )


def _shares(bins: range, quantiles: Sequence[Sequence[float]]) -> Iterator[float]:
    """The share of the calibration's scores in each bin; the first and the last hold what lies beyond."""
    probabilities, values = (np.array(column, dtype=np.float64) for column in zip(*quantiles, strict=True))
    edges = np.array([b / 10 for b in bins] + [(bins[-1] + 1) / 10])
    upto = np.interp(edges, values, probabilities, left=0.0, right=1.0)
    upto[0], upto[-1] = 0.0, 1.0
    yield from (float(share) for share in np.diff(upto))


def _scale(low: float, high: float, start: float, end: float) -> Any:
    per = (end - start) / (high - low)
    return lambda value: start + (value - low) * per


def _round_steps(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, at distances of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(power * next(m for m in (1, 2, 5, 10) if power * m >= rough * 0.999))
    first = int(np.ceil(low / step))
    return [round(i * step, 10) for i in range(first, int(np.floor(high / step)) + 1)]


def _spread(n: int, about: int) -> list[int]:
    """About `about` indices of `n`, the first and the last among them."""
    return sorted({round(i * (n - 1) / max(1, about - 1)) for i in range(about)})
