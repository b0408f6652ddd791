"""Coordinates as people write them: what is written is read again, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.web.api.evidence import parse_place
from storage.coordinates import Coordinates

PLACES = st.builds(
    Coordinates,
    st.text(min_size=1, max_size=12),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**31 - 1),
)


@given(at=PLACES)
@example(Coordinates("a/0/1", 0, 1))
@example(Coordinates("/var/log/chat.jsonl", 0, 2**63 - 1, 7))
@example(Coordinates("traffic@2", 3, 1204))
@example(Coordinates("/", 0, 0))
def test_what_is_written_is_read(at: Coordinates) -> None:
    assert parse_place(str(at)) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t",
        "t/1",
        "/1/2",
        "t/1/x",
        "t/-1/0",
        "t/1/1.",
        "t/1/.1",
        "t/1/1.2.3",
        "t/1/+1",
        "t/1/1_0",
        "t/1/²",
        "t/1/1 ",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        parse_place(text)


@pytest.mark.parametrize(
    "text", [f"t/0/{2**63}", f"t/{2**31}/0", f"t/0/0.{2**31}", f"t/0/{'9' * 5000}", f"t/{'9' * 5000}/0"]
)
def test_numbers_that_no_column_holds(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is too large|should be less than or equal to \d+)$"):
        parse_place(text)
