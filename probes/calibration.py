"""Thresholds from benign traffic, for a target false-positive rate.

Contract: the threshold is set on per-message scores (never pooled tokens). A message is flagged when its score is
*above* the threshold; of n benign scores at most floor(target * n) are. With fewer than 3 / target benign messages the
calibration still gives a threshold, and says `too few` instead of an interval that means something.

What that guarantees on new messages of the same kind: by the plain rule nothing but an expectation, `expected_fpr`,
(flagged + 1) / (n + 1): a little over the target (1.25 % of 400 messages at 1 %), and the rate of any one threshold is
over the target more often than not (in 0.62 of calibrations there). With `at_most` the upper end of the rate's 95 %
interval is at most the target, so that the rate of new messages is over it in at most 2.5 % of calibrations. Both are
without the correction for length, which is estimated on the same messages (`docs/thresholds.md` has what it does).

A message of more tokens has more windows and with them more chances of a high value. Where the numbers of tokens are
given, the rise of the benign values with them is measured and taken off every score (`LengthCorrection`), and the
threshold is such that the target holds in each band of lengths. So one threshold holds for all lengths, whoever
compares with it.

Units: values, scores and thresholds in class gaps; lengths in tokens of the span that the probe reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil, log, log2

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.evaluation import Interval, rate
from probes.hashing import hash_texts

_QUANTILES = tuple(round(q, 3) for q in np.linspace(0, 1, 41))
_TAIL = (0.95, 0.99, 0.999)
# Upper ends of the bands of lengths; what is longer is one more band.
_BANDS = (64, 256, 1024)
# Of fewer messages no band is made: they count to the one below.
_FEWEST_OF_BAND = 20
_FEWEST = 20


@dataclass(frozen=True)
class Values:
    """Of many messages under several readers: values in class gaps, and the tokens that each is of; both are arrays
    (messages, readers)."""

    values: NDArray[np.float64]
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Band:
    """Benign messages of at most `longest` tokens and more than the band before; `fpr` is at the threshold."""

    longest: int
    fpr: Interval


@dataclass(frozen=True)
class LengthCorrection:
    """What is taken off a value for the number of tokens it is of: linear in log2 of the tokens between the knots
    (tokens, rise), nothing below the first, the last slope beyond the last. Rises never fall.

    `longest` is the longest message that it was measured on; beyond it the correction is a guess.
    """

    knots: tuple[tuple[int, float], ...]
    longest: int
    bands: tuple[Band, ...] = ()

    def rise(self, tokens: int) -> float:
        """In class gaps, at this number of tokens."""
        points = [(log2(max(n, 1)), rise) for n, rise in self.knots]
        at = log2(max(tokens, 1))
        if len(points) < 2 or at <= points[0][0]:
            return points[0][1] if points else 0.0
        (x0, y0), (x1, y1) = next((two for two in pairwise(points) if at <= two[1][0]), points[-2:])
        return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


@dataclass(frozen=True)
class Calibration:
    """A threshold in score units (class gaps) and what it was set on; `fpr` is the rate on that same set.

    `tail` are high quantiles of the scores, those that n messages can tell. `at_most`: the interval's upper end is at
    most the target. `length` is None where the lengths were not known, or tell nothing.
    """

    threshold: float
    target_fpr: float
    fpr: Interval
    enough: bool
    n: int
    set_sha256: str
    set_name: str
    made: str
    quantiles: tuple[tuple[float, float], ...]
    tail: tuple[tuple[float, float], ...] | None = None
    at_most: bool | None = None
    length: LengthCorrection | None = None

    @property
    def expected_fpr(self) -> float:
        """The rate to expect of new messages of the same kind, which that of the set itself is below."""
        return (round(self.fpr.value * self.n) + 1) / (self.n + 1)

    def score(self, value: float, tokens: int) -> float:
        """A value corrected for the number of tokens that it is of."""
        return value if self.length is None else value - self.length.rise(tokens)

    def scores(self, values: NDArray[np.floating], tokens: Sequence[int]) -> NDArray[np.float64]:
        """The same for many."""
        return np.array([self.score(float(v), int(n)) for v, n in zip(values, tokens, strict=True)])


def calibrate(
    values: NDArray[np.floating],
    texts: Iterable[str],
    target_fpr: float,
    set_name: str,
    *,
    tokens: Sequence[int] | None = None,
    at_most: bool = False,
) -> Calibration:
    """Threshold for `target_fpr` on benign `values`; `texts` are hashed into the card; they are not stored.

    `tokens` are the numbers of tokens that the values are of. DataError where there are too few messages.
    """
    if not 0 < target_fpr < 1:
        raise DataError(f"target FPR: {target_fpr} is not between 0 and 1")
    raw = np.asarray(values, dtype=np.float64)
    n = len(raw)
    if n < _FEWEST:
        raise DataError(f"benign set: {n} messages; at least 20 are needed, and {int(3 / target_fpr)} to trust it")
    if not np.isfinite(raw).all():
        raise DataError("benign set: some scores are not finite; check the model's dtype")
    if at_most and n < fewest_for(target_fpr):
        raise DataError(
            f"benign set: {n} messages; to be sure of a false-positive rate of at most {target_fpr:g}, "
            f"{fewest_for(target_fpr)} are needed: give more, or a target without --fpr-at-most"
        )
    lengths = np.asarray(tokens if tokens is not None else [], dtype=np.int64)
    bands = _bands(lengths) if tokens is not None else [np.arange(n)]
    length = _correction(raw, lengths, bands, target_fpr) if tokens is not None else None
    scores = raw if length is None else raw - np.array([length.rise(int(each)) for each in lengths])
    ordered = np.sort(scores)
    allowed = _allowed(n, target_fpr) if at_most else int(np.floor(target_fpr * n))
    threshold = max(float(ordered[n - 1 - allowed]), *(_highest(scores[band], target_fpr) for band in bands))
    if length is not None:
        measured = tuple(
            Band(int(lengths[band].max()), rate(int((scores[band] > threshold).sum()), len(band))) for band in bands
        )
        length = LengthCorrection(length.knots, length.longest, measured)
    return Calibration(
        threshold=threshold,
        target_fpr=target_fpr,
        fpr=rate(int((scores > threshold).sum()), n),
        enough=n >= 3 / target_fpr,
        n=n,
        set_sha256=hash_texts(texts),
        set_name=set_name,
        made=datetime.now(UTC).date().isoformat(),
        quantiles=tuple((q, float(np.quantile(ordered, q))) for q in _QUANTILES),
        tail=tuple((q, float(np.quantile(ordered, q))) for q in _TAIL if n >= round(1 / (1 - q))),
        at_most=at_most or None,
        length=length,
    )


def fewest_for(target_fpr: float) -> int:
    """The fewest benign messages whose false-positive rate, with none flagged, is surely at most the target."""
    n = ceil(log(0.025) / log(1 - target_fpr))
    return n if rate(0, n).high <= target_fpr else n + 1


def _allowed(n: int, target_fpr: float) -> int:
    """How many of n benign messages may be flagged so that the interval's upper end is at most the target."""
    allowed = 0
    while rate(allowed + 1, n).high <= target_fpr:
        allowed += 1
    return allowed


def _highest(scores: NDArray[np.float64], target_fpr: float) -> float:
    """The score above which floor(target * n) of them lie."""
    return float(np.sort(scores)[len(scores) - 1 - int(np.floor(target_fpr * len(scores)))])


def _bands(lengths: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Indices of the messages by length, from short to long; a band of too few joins the one before it."""
    edges = (*_BANDS, np.iinfo(np.int64).max)
    bands: list[NDArray[np.intp]] = []
    waiting = np.array([], dtype=np.intp)
    below = -1
    for edge in edges:
        members = np.flatnonzero((lengths > below) & (lengths <= edge))
        below = edge
        waiting = np.concatenate([waiting, members])
        if len(waiting) >= _FEWEST_OF_BAND:
            bands.append(waiting)
            waiting = np.array([], dtype=np.intp)
    if len(waiting):
        bands[-1] = np.concatenate([bands[-1], waiting])
    return bands


def _correction(
    values: NDArray[np.float64], lengths: NDArray[np.int64], bands: list[NDArray[np.intp]], target_fpr: float
) -> LengthCorrection:
    """One knot a band, at its median length: how far its threshold lies above those of the shorter bands."""
    knots: list[tuple[int, float]] = []
    first = highest = _highest(values[bands[0]], target_fpr)
    for band in bands:
        highest = max(highest, _highest(values[band], target_fpr))
        knots.append((int(np.median(lengths[band])), highest - first))
    return LengthCorrection(tuple(knots), int(lengths.max()))
