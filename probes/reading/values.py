"""From what the model gave for each reading of a message to one score a probe.

Contract: `candidates` lists what speaks for a message under one reader; `decide` takes the one whose score is highest,
corrected for the number of tokens that it is of (`probes.calibration`). For an aggregation that is a maximum, all
windows of an over-long message are one value, over the tokens of all of them; for others each window is a value of its
own. A probe whose card knows nothing of lengths is not decided by windows: its threshold was not set on so many values.

Pure: needs no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from probes.calibration import Calibration
from probes.capture.aggregation import Aggregation
from probes.reading.readings import PLAIN, WINDOW, Reading


@dataclass(frozen=True)
class Value:
    """What one reading gave under one reader: class gaps, of so many tokens of the span; `parts` by direction, `turns`
    the highest value by turn."""

    kind: str
    value: float
    tokens: int
    parts: tuple[float, ...] = ()
    turns: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Decided:
    """A probe's score of a message, and the value that it comes from."""

    score: float
    value: Value


def candidates(
    aggregation: Aggregation, readings: Sequence[Reading], values: Sequence[Value], *, windows: bool = True
) -> list[Value]:
    """What speaks for a message, from its readings and their values under one reader; what is no number is left out."""
    found: list[Value] = []
    of_windows: dict[str, list[Value]] = {}
    for reading, value in zip(readings, values, strict=True):
        if not math.isfinite(value.value) or not reading.stands_for(aggregation.span):
            continue
        if reading.window is None:
            found.append(value)
        elif windows:
            of_windows.setdefault(PLAIN if reading.kind == WINDOW else reading.kind, []).append(value)
    if not aggregation.is_maximum:
        return found + [value for each in of_windows.values() for value in each]
    return [_together(value, of_windows.get(value.kind, [])) for value in found]


def _together(end: Value, windows: Sequence[Value]) -> Value:
    """One value of a reading's end and its windows: the last window holds the end again."""
    if not windows:
        return end
    highest = max((*windows, end), key=lambda value: value.value)
    tokens = max(sum(value.tokens for value in windows), end.tokens)
    return Value(highest.kind, highest.value, tokens, highest.parts, highest.turns)


def decide(calibration: Calibration, found: Sequence[Value]) -> Decided | None:
    """The highest score, corrected for length; None where nothing speaks."""
    decided = [Decided(calibration.score(value.value, value.tokens), value) for value in found]
    return max(decided, key=lambda each: each.score, default=None)


def highest(found: Sequence[Value]) -> Value | None:
    """The highest value, where there is no calibration yet."""
    return max(found, key=lambda value: value.value, default=None)


def reading_of(value: Value) -> str | None:
    """What a row says about where its score comes from; None for the message as it is."""
    return None if value.kind == PLAIN else value.kind


__all__ = ["PLAIN", "WINDOW", "Decided", "Value", "candidates", "decide", "highest", "reading_of"]
