"""Alerts page by page, the newest first.

Contract: a cursor names the last alert of a page by when it was opened and its id, neither of which ever changes. So
pages repeat nothing and leave nothing out of what was there at the first one, whatever opens, counts or changes in
between; what opens in between is on an earlier page. One that changes out of the filter drops out.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, desc, literal, select, tuple_

from storage.schema import alerts
from storage.writer import clean

_KEY = (alerts.c.opened_at, alerts.c.id)


class CursorError(ValueError):
    """Not a cursor of ours."""


def alert_page(
    connection: Connection, named: Mapping[str, str | None], limit: int, cursor: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Alerts whose columns are as `named`, where None is anything, and the cursor of the next page if there is one."""
    query = select(alerts).order_by(*(desc(column) for column in _KEY)).limit(limit + 1)
    for name, value in named.items():
        if value is not None:
            query = query.where(alerts.c[name] == clean(value))
    if cursor is not None:
        last = (literal(value, column.type) for value, column in zip(_parse(cursor), _KEY, strict=True))
        query = query.where(tuple_(*_KEY) < tuple_(*last))
    rows = [dict(row) for row in connection.execute(query).mappings()]
    more = len(rows) > limit
    return rows[:limit], _written(rows[limit - 1]) if more else None


def _written(row: Mapping[str, Any]) -> str:
    plain = f"{row['opened_at'].isoformat()} {row['id']}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _parse(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        at, _, alert_id = plain.partition(" ")
        opened_at = datetime.fromisoformat(at)
        if opened_at.tzinfo is None:
            raise CursorError("cursor: without a time zone")
        return opened_at, uuid.UUID(alert_id)
    except (ValueError, binascii.Error):
        raise CursorError("cursor: take `next` of the page before as it is") from None
