"""One score from all readings of a message."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from probes.calibration import Calibration, LengthCorrection, calibrate
from probes.capture.aggregation import Aggregation, Span, parse_aggregation
from probes.capture.batches import Encoded
from probes.capture.windows import Window
from probes.reading.readings import PLAIN, WINDOW, Reading
from probes.reading.values import Value, candidates, decide, reading_of

MAXIMUM = parse_aggregation("max_rolling_mean(8, user)")
MEAN = parse_aggregation("mean(user)")
ITEM = Encoded((1, 2, 3), 3)


def window(reads: str = "prompt") -> Reading:
    return Reading(WINDOW, ITEM, Window(0, 3, ITEM, reads))  # type: ignore[arg-type]


def of(*values: tuple[Reading, float, int]) -> tuple[list[Reading], list[Value]]:
    return [r for r, _, _ in values], [Value(r.kind, value, tokens) for r, value, tokens in values]


def calibrated(*knots: tuple[int, float]) -> Calibration:
    found = calibrate(np.linspace(0, 1, 100), [], 0.05, "x")
    return replace(found, length=LengthCorrection(knots, 10_000) if knots else None)


PLAIN_READING = Reading(PLAIN, ITEM)
NORMALISED = Reading("normalised", ITEM)


def test_the_highest_reading_decides_and_says_so() -> None:
    readings, values = of((PLAIN_READING, 0.2, 10), (NORMALISED, 0.9, 12))
    decided = decide(calibrated(), candidates(MAXIMUM, readings, values))
    assert decided is not None
    assert (decided.score, reading_of(decided.value)) == (0.9, "normalised")
    readings, values = of((PLAIN_READING, 0.95, 10), (NORMALISED, 0.9, 12))
    decided = decide(calibrated(), candidates(MAXIMUM, readings, values))
    assert decided is not None
    assert reading_of(decided.value) is None


def test_windows_of_a_maximum_are_one_value_over_all_their_tokens() -> None:
    """A window is not corrected as a short message is: there were as many chances as in all of them."""
    readings, values = of((PLAIN_READING, 1.0, 1000), (window(), 3.0, 1000), (window(), 2.0, 1000))
    (value,) = candidates(MAXIMUM, readings, values)
    assert (value.value, value.tokens, value.kind) == (3.0, 2000, WINDOW)
    decided = decide(calibrated((1000, 0.0), (2000, 0.5)), [value])
    assert decided is not None
    assert decided.score == pytest.approx(2.5)


def test_the_plain_reading_can_be_the_highest_of_an_over_long_message() -> None:
    readings, values = of((PLAIN_READING, 4.0, 1000), (window(), 3.0, 900), (window(), 2.0, 900))
    (value,) = candidates(MAXIMUM, readings, values)
    assert (value.value, value.tokens, reading_of(value)) == (4.0, 1800, None)


def test_windows_of_a_mean_are_values_of_their_own() -> None:
    readings, values = of((PLAIN_READING, 1.0, 1000), (window(), 3.0, 900))
    assert [v.tokens for v in candidates(MEAN, readings, values)] == [1000, 900]


def test_a_probe_without_lengths_is_not_decided_by_windows() -> None:
    readings, values = of((PLAIN_READING, 1.0, 1000), (window(), 3.0, 900))
    (value,) = candidates(MAXIMUM, readings, values, windows=False)
    assert value.kind == PLAIN


@pytest.mark.parametrize(("span", "reads", "counts"), [("user", "prompt", 2), ("response", "prompt", 1)])
def test_a_window_counts_for_the_side_that_it_is_of(span: Span, reads: str, counts: int) -> None:
    readings, values = of((PLAIN_READING, 1.0, 10), (window(reads), 3.0, 9))
    assert len(candidates(Aggregation("mean", span), readings, values)) == counts


def test_what_is_no_number_says_nothing() -> None:
    readings, values = of((PLAIN_READING, math.nan, 0), (NORMALISED, math.inf, 3))
    found = candidates(MAXIMUM, readings, values)
    assert found == []
    assert decide(calibrated(), found) is None


def test_length_is_corrected_before_readings_are_compared() -> None:
    readings, values = of((PLAIN_READING, 1.0, 10), (NORMALISED, 1.4, 4000))
    decided = decide(calibrated((10, 0.0), (4000, 1.0)), candidates(MAXIMUM, readings, values))
    assert decided is not None
    assert reading_of(decided.value) is None
