"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.rules.durations import format_duration, parse_duration


# Durations.
@given(st.integers(1, 10**7))
def test_durations_come_back(seconds: int) -> None:
    value = timedelta(seconds=seconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(("written", "seconds"), [("90s", 90), ("1h30m", 5400), ("2d", 172800), ("0s", 0)])
def test_durations(written: str, seconds: int) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", "10", "10 m", "1m1h", "-5m", "1.5h", "h", 10, None, "９m"])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="is no duration; write for example"):
        parse_duration(written)
