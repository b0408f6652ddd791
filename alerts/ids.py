"""Rows by the first digits of their ids, as people copy them from a list.

Contract: four digits at least; what is no id finds nothing. `only` gives the one that was meant, or says why not.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Text, cast, select

from alerts.errors import UnknownAlertError

_LEAST = 4


def by_digits(
    connection: Connection, column: ColumnElement[uuid.UUID], written: str, *conditions: ColumnElement[bool]
) -> Sequence[uuid.UUID]:
    """Two at most: whether there is one is all that matters."""
    if len(written) < _LEAST or set(written) - set("0123456789abcdef-"):
        return ()
    starts = cast(column, Text).startswith(written, autoescape=True)
    return connection.execute(select(column).where(starts, *conditions).limit(2)).scalars().all()


def only(found: Sequence[uuid.UUID], what: str, written: str, where: str) -> uuid.UUID:
    """Raises UnknownAlertError; `where` is the command that lists them."""
    if len(found) != 1:
        why = "several begin so: give more of the id" if found else f"see {where}"
        raise UnknownAlertError(f"{what}: {written!r} names {'more than one' if found else 'none'}; {why}")
    return found[0]
