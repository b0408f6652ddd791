"""Finds rows by the first digits of their ids, as people copy them from a list.

Contract: at least four digits; anything else finds nothing. `only` returns the one match, or raises.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Text, cast, select

from alerts.errors import UnknownAlertError

_MIN_DIGITS = 4


def by_digits(
    connection: Connection, column: ColumnElement[uuid.UUID], written: str, *conditions: ColumnElement[bool]
) -> Sequence[uuid.UUID]:
    """The matching ids, at most two: enough to tell whether there is exactly one."""
    if len(written) < _MIN_DIGITS or set(written) - set("0123456789abcdef-"):
        return ()
    starts = cast(column, Text).startswith(written, autoescape=True)
    return connection.execute(select(column).where(starts, *conditions).limit(2)).scalars().all()


def only(ids: Sequence[uuid.UUID], noun: str, written: str, command: str) -> uuid.UUID:
    """The one id. Raises UnknownAlertError, which names the command that lists them."""
    if len(ids) != 1:
        fix = "several begin so: give more of the id" if ids else f"see {command}"
        raise UnknownAlertError(f"{noun}: {written!r} names {'more than one' if ids else 'none'}; {fix}")
    return ids[0]
