"""Keyset pagination of alerts, the newest first.

Contract: a cursor is the opening time and the id of the last alert of a page, neither of which ever changes. So pages
neither repeat nor omit an alert that existed at the first page, whatever opens or changes in between; new alerts belong
before the first page. An alert that stops matching the filter drops out. A cursor has a hash of the filters that it
was made with, and is none with others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, desc, literal, select, tuple_

from storage.coordinates import clean
from storage.schema import alerts

_KEY = (alerts.c.opened_at, alerts.c.id)


class CursorError(ValueError):
    """Not a cursor made here."""


def alert_page(
    connection: Connection, filters: Mapping[str, str | None], limit: int, cursor: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Alerts whose columns equal `filters` (None matches all), and the cursor of the next page if there is one."""
    query = select(alerts).order_by(*(desc(column) for column in _KEY)).limit(limit + 1)
    for name, value in filters.items():
        if value is not None:
            query = query.where(alerts.c[name] == clean(value))
    if cursor is not None:
        last = (literal(value, column.type) for value, column in zip(_decode(cursor, filters), _KEY, strict=True))
        query = query.where(tuple_(*_KEY) < tuple_(*last))
    rows = [dict(row) for row in connection.execute(query).mappings()]
    more = len(rows) > limit
    return rows[:limit], _encode(rows[limit - 1], filters) if more else None


def filters_hash(filters: Mapping[str, Any]) -> str:
    """Tells filters from others; those that match all count for nothing."""
    given = {name: value for name, value in filters.items() if value is not None}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def _encode(row: Mapping[str, Any], filters: Mapping[str, str | None]) -> str:
    plain = f"{row['opened_at'].isoformat()} {row['id']} {filters_hash(filters)}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _decode(cursor: str, filters: Mapping[str, str | None]) -> tuple[datetime, uuid.UUID]:
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        at, alert_id, of = plain.split(" ")
        opened_at = datetime.fromisoformat(at)
        if opened_at.tzinfo is None or of != filters_hash(filters):
            raise CursorError("cursor: of another list")
        return opened_at, uuid.UUID(alert_id)
    except (ValueError, binascii.Error):
        raise CursorError("cursor: use `next` of the previous page unchanged, with the same filters") from None
