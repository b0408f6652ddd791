"""The power column: the smallest effect that a claim's rows could have shown, 80 % power at 5 %.

Contract: each function makes short text of figures of a RESULT.json. An effect is that of `probes.statistics.power`,
with the deviation that the figure's own interval implies, so that it holds for means, paired rates and jackknives
alike (for a rate near 0 or 1 it is about). What no interval decides has no power, and the text says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import t

from probes.statistics.power import smallest_mean, smallest_paired_difference, smallest_rates

NO_TEST = "counted, no test"
UNKNOWN = "cannot be told"


def smallest(figure: Mapping[str, Any] | None, unit: str = "") -> str:
    """Of a figure with `value`, `low`, `high`, `n` that is held against 0."""
    if figure is None or figure["low"] is None or figure["high"] is None or figure["n"] < 2:
        return UNKNOWN
    n, half = int(figure["n"]), (float(figure["high"]) - float(figure["low"])) / 2
    if not math.isfinite(half) or half == 0:  # rows that all agree tell of no deviation
        return UNKNOWN
    deviation = half * math.sqrt(n) / float(t.ppf(0.975, n - 1))
    return f"from {smallest_mean(n, deviation):.2f}{unit} (n = {n})"


def paired(n: int) -> str:
    """Of a difference of two rates on the same n rows, where only the rates are known: all rows differ one way."""
    least = smallest_paired_difference(n)
    return f"no difference (n = {n})" if least is None else f"from {least:.2f} at best (n = {n})"


def above_half(n: int) -> str:
    """Of an accuracy held against 0.5."""
    _, above = smallest_rates(n, 0.5)
    return f"no accuracy (n = {n})" if above is None else f"from {above:.2f} (n = {n})"


def draws(ranks: Sequence[int]) -> str:
    """Of ranks among random draws: the smallest p that they allow."""
    return ", ".join(f"p from {1 / (1 + n):.3f} ({n} draws)" for n in ranks)
