"""Thresholds from benign traffic, for a target false-positive rate.

Contract: the threshold is set on per-message scores (never pooled tokens). A message is flagged when its score is
*above* the threshold; of n benign scores at most floor(target * n) are. With fewer than 3 / target benign messages
the calibration still gives a threshold, and says `too few` instead of an interval that means something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.evaluation import Interval, rate
from probes.hashing import hash_texts

_QUANTILES = tuple(round(q, 3) for q in np.linspace(0, 1, 41))


@dataclass(frozen=True)
class Calibration:
    """A threshold in score units (class gaps) and what it was set on; `fpr` is the rate on that same set."""

    threshold: float
    target_fpr: float
    fpr: Interval
    enough: bool
    n: int
    set_sha256: str
    set_name: str
    made: str
    quantiles: tuple[tuple[float, float], ...]


def calibrate(scores: NDArray[np.floating], texts: Iterable[str], target_fpr: float, set_name: str) -> Calibration:
    """Threshold for `target_fpr` on benign `scores`; `texts` are hashed into the card; they are not stored."""
    if not 0 < target_fpr < 1:
        raise DataError(f"target FPR: {target_fpr} is not between 0 and 1")
    values = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(values)
    if n < 20:
        raise DataError(f"benign set: {n} messages; at least 20 are needed, and {int(3 / target_fpr)} to trust it")
    if not np.isfinite(values).all():
        raise DataError("benign set: some scores are not finite; check the model's dtype")
    allowed = int(np.floor(target_fpr * n))
    threshold = float(values[n - 1 - allowed])
    above = int((values > threshold).sum())
    return Calibration(
        threshold=threshold,
        target_fpr=target_fpr,
        fpr=rate(above, n),
        enough=n >= 3 / target_fpr,
        n=n,
        set_sha256=hash_texts(texts),
        set_name=set_name,
        made=datetime.now(UTC).date().isoformat(),
        quantiles=tuple((q, float(np.quantile(values, q))) for q in _QUANTILES),
    )
