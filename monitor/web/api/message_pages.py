"""Pages of found messages: filters as people write them, and cursors.

Contract: `filters_of(fields)` reads the fields of a form or a command into Filters, and raises ValueError with words
that name the field and repeat no input. Times are ISO 8601, in UTC where they have no zone. `message_page` gives the
messages and the cursor of the next page; CursorError for what is no cursor, or one of other filters. `given` are the
filters as they were written: those of a page and the next are the same, whatever the time is.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection

from monitor.web.api.pagination import CursorError, filters_hash
from storage.queries.search import After, Filters, Found, search
from storage.schema import STATUSES

NAMES = ("message_id", "user", "tenant", "conversation", "probe")
FIELDS = (*NAMES, "status", "flagged", "score_from", "score_to", "since", "until")


def filters_of(fields: Mapping[str, str | None]) -> Filters:
    """Empty fields of a form match all."""
    given = {name: value.strip() for name in FIELDS if (value := fields.get(name)) and value.strip()}
    status, flagged = given.get("status"), given.get("flagged")
    if status is not None and status not in STATUSES:
        raise ValueError(f"status: use one of {', '.join(STATUSES)}")
    if flagged not in (None, "true", "false"):
        raise ValueError("flagged: use true or false")
    return Filters(
        **{name: given[name] for name in NAMES if name in given},
        status=status,
        flagged=None if flagged is None else flagged == "true",
        score_from=_number("score_from", given.get("score_from")),
        score_to=_number("score_to", given.get("score_to")),
        since=_time("since", given.get("since")),
        until=_time("until", given.get("until")),
    )


def message_page(
    connection: Connection, filters: Filters, limit: int, cursor: str | None = None, *, given: Mapping[str, str | None]
) -> tuple[list[Found], str | None]:
    """The latest messages that match, and the cursor of the next page if there is one."""
    found, end = search(connection, filters, limit, _decode(cursor, filters_hash(given)) if cursor else None)
    return found, _encode(end, filters_hash(given)) if end is not None else None


def _number(name: str, written: str | None) -> float | None:
    if written is None:
        return None
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: write a number of class gaps, such as 0.8")
    return number


def _time(name: str, written: str | None) -> datetime | None:
    if written is None:
        return None
    try:
        at = datetime.fromisoformat(written)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: write a time such as 2026-11-01 or 2026-11-01T14:05Z") from None


def _encode(end: After, of: str) -> str:
    plain = [of, end.at.isoformat(), end.source, end.partition, end.offset, end.sub, end.last]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _decode(cursor: str, of: str) -> After:
    try:
        plain = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        made_of, at, source, partition, offset, sub, last = plain
        numbers = [partition, offset, sub]
        right = isinstance(source, str) and isinstance(last, str) and all(type(each) is int for each in numbers)
        moment = datetime.fromisoformat(at)
        small = right and max(partition, sub) < 2**31 and offset < 2**63 and min(numbers) >= 0
        if not small or moment.tzinfo is None or made_of != of or "\x00" in source + last:
            raise CursorError("cursor: of another search")
        return After(moment, source, partition, offset, sub, last)
    except (ValueError, TypeError, binascii.Error):
        raise CursorError("cursor: use `next` of the previous page unchanged, with the same filters") from None
