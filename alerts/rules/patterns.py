"""Matches names against patterns with `*`, the same in Python and in PostgreSQL.

Contract: a pattern matches a whole name, case and all; `*` stands for any characters, none included, and nothing else
is special. An unknown name (None) is matched by `*` alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from sqlalchemy import ColumnElement, or_, true

ANY = "*"


def matches(patterns: Sequence[str], name: str | None) -> bool:
    """Whether one of the patterns matches."""
    if name is None:
        return ANY in patterns
    return any(_compiled(pattern).fullmatch(name) is not None for pattern in patterns)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *others = (re.escape(part) for part in re.split(r"\*+", pattern))
    if not others:
        return re.compile(first)
    # Atomic groups, without backtracking: the time is linear in the name's length for each part, not a power of it.
    *middle, last = others
    between = "".join(f"(?>.*?{part})" for part in middle)
    return re.compile(f"{first}{between}.*{last}", re.DOTALL)


def matching(patterns: Sequence[str], column: ColumnElement[str]) -> ColumnElement[bool]:
    """The same as a condition on a column."""
    if ANY in patterns:
        return true()
    return or_(*(column.like(_like(pattern), escape="\\") for pattern in patterns))


def _like(pattern: str) -> str:
    special = re.sub(r"([\\%_])", r"\\\1", pattern)
    return re.sub(r"\*+", "%", special)
