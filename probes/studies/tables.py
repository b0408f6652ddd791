"""Helpers of study reports: plain data for RESULT.json, an interval as text, a Markdown table.

Contract: `plain` leaves nothing that JSON lacks; what has no number there is null. A figure is plain data with `value`,
`low`, `high` (95 %) and `n`, as `probes.evaluation.Interval` holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Figure = Mapping[str, Any]


def plain(value: Any, rounded: Callable[[float], float] = float) -> Any:
    """The same as JSON can hold it: keys are texts, NaN and infinity null; every other float goes through `rounded`."""
    if isinstance(value, Mapping):
        return {str(k): plain(v, rounded) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, rounded) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return rounded(value) if np.isfinite(value) else None
    return value


def interval(figure: Figure | None, digits: int = 2, missing: str = "") -> str:
    """A figure with its interval; `missing` where there is none."""
    if figure is None:
        return missing
    value, low, high = (f"{figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, an empty one behind it."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
