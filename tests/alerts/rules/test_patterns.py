"""Patterns match the same in Python and in PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Engine, String, literal, select

from alerts.rules.patterns import matches, matching

# Patterns: the same in Python and in PostgreSQL.
names = st.text(alphabet="ab*%_\\.\n", max_size=6)


@given(st.lists(names.filter(bool), min_size=1, max_size=2), st.none() | names)
@example(["a%"], "ab")
@example(["*"], None)
@example(["a\\"], "a\\")
@example(["a*b"], "a\nb")
def test_patterns_match_the_same_everywhere(module_engine: Engine, patterns: list[str], name: str | None) -> None:
    with module_engine.connect() as connection:
        column = literal(name, String)
        found = connection.execute(select(matching(patterns, column))).scalar()
    assert bool(found) == matches(patterns, name)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("shop", "shop", True),
        ("shop", "shops", False),
        ("sh*", "shop", True),
        ("*op", "shop", True),
        ("s*p", "sp", True),
        ("s?op", "shop", False),
        ("*", "", True),
        ("SHOP", "shop", False),
        ("s.op", "shop", False),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches([pattern], name) is expected


def test_many_stars_take_no_time_that_grows_with_their_number() -> None:
    """Tried in every way this would take longer than the test may."""
    assert not matches(["*" + "a*" * 30 + "b"], "a" * 300)
    assert matches(["*" + "a*" * 30 + "b"], "a" * 300 + "b")
