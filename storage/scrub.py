"""Takes attributes that are not on the allow-list out of rows that were stored before there was one.

Contract: `scrub(engine, ...)` brings `messages.attributes` to what `storage.attributes.allowed` leaves, for rows whose
text is not stored (`all_rows`: for the others too), day by day, oldest first. A second run finds nothing to do; one
that was interrupted is started again, from the day that `on_day` told last. It may run beside workers: a batch is a
transaction of its own that locks at most BATCH rows and waits two seconds at most for them; a row that somebody else
changed meanwhile is looked at again. Raises BusyError, NotAllowedError, and as `transact` does.

`needing(engine, seconds=...)` counts the rows of older versions that a scrub would change, within a time.

What was taken out stays in the files of the server until VACUUM and new rows overwrite it, and in archives and backups.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import Text

from storage.attributes import ALLOWED_KEYS, allowed
from storage.partitions import with_lock_timeout
from storage.schema import messages

# Rows of a page; those of them that need it are changed in one transaction.
BATCH = 500
# PostgreSQL's statement_timeout ended it.
_CANCELED = "57014"

_KEY = ("source", "partition", "offset", "sub", "payload_sha256")
# Of the attributes only those that may stay are read (as text: Python reads no number of thousands of digits), and
# whether there are others, which may be large.
_FACTS = """
    CASE WHEN jsonb_typeof(attributes) = 'object' THEN attributes - :may_stay <> '{}' ELSE true END AS more,
    CASE WHEN jsonb_typeof(attributes) = 'object' THEN (
        SELECT jsonb_object_agg(key, value)::text FROM jsonb_each(attributes) WHERE key = ANY(:may_stay)
    ) END AS kept
"""
_WHERE = "attributes IS NOT NULL AND (text IS NULL OR :all_rows)"
_MAY_STAY = bindparam("may_stay", type_=ARRAY(Text()))
_PAGE = text(
    f"""
    SELECT source, partition, "offset", sub, payload_sha256, xmin::text AS version, {_FACTS} FROM messages
    WHERE day = :day AND {_WHERE} AND (source, partition, "offset", sub, payload_sha256)
        > (CAST(:source AS text), CAST(:partition AS integer), CAST(:offset AS bigint), CAST(:sub AS integer),
           CAST(:payload_sha256 AS text))
    ORDER BY source, partition, "offset", sub, payload_sha256 LIMIT :limit
    """  # noqa: S608 - constants of this module
).bindparams(_MAY_STAY)
# Whoever applies the list when it stores a row also stores its format.
_COUNT = text(f"SELECT {_FACTS} FROM messages WHERE format IS NULL AND {_WHERE}").bindparams(_MAY_STAY)  # noqa: S608
# `xmin` changes with every change of a row: one that a worker wrote meanwhile is not overwritten.
_UPDATE = text(
    """
    UPDATE messages AS old SET attributes = new.attributes FROM json_to_recordset(CAST(:rows AS json)) AS new (
        source text, partition integer, "offset" bigint, sub integer, payload_sha256 text, version text,
        attributes jsonb
    ) WHERE old.day = :day AND old.source = new.source AND old.partition = new.partition AND old.offset = new.offset
    AND old.sub = new.sub AND old.payload_sha256 = new.payload_sha256 AND old.xmin::text = new.version
    """
)
_BEFORE_ALL = {"source": "", "partition": -1, "offset": -1, "sub": -1, "payload_sha256": ""}


@dataclass(frozen=True)
class Scrubbed:
    """Rows of one day with attributes, and those that were changed, or would be."""

    day: date
    looked_at: int
    changed: int


@dataclass(frozen=True)
class Needing:
    """Number of rows that need a scrub; at least so many unless `complete`."""

    rows: int
    complete: bool


def scrub(
    engine: Engine,
    *,
    since: date | None = None,
    until: date | None = None,
    keep: Collection[str] = (),
    all_rows: bool = False,
    dry_run: bool = False,
    on_day: Callable[[Scrubbed], None] = lambda _: None,
) -> list[Scrubbed]:
    """Scrub the days from `since` to `until`, both included. `keep`: keys that stay whatever they hold. `dry_run`
    changes nothing."""
    done: list[Scrubbed] = []
    day = _next_day(engine, since, until, after=None)
    while day is not None:
        done.append(_scrub_day(engine, day, keep, all_rows=all_rows, dry_run=dry_run))
        on_day(done[-1])
        day = _next_day(engine, since, until, after=day)
    return done


def needing(engine: Engine, keep: Collection[str] = (), seconds: float = 5.0) -> Needing:
    """Counts rows of older versions until the time is over; it takes up to twice that."""
    until, rows = time.monotonic() + seconds, 0
    parameters = {"may_stay": _may_stay(keep), "all_rows": False}
    try:
        with engine.connect() as connection:
            # Holds for each fetch of the cursor.
            connection.execute(text(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}"))
            for row in connection.execute(_COUNT, parameters, execution_options={"yield_per": 1000}):
                rows += _scrubbed(row, keep) is not None
                if time.monotonic() > until:
                    return Needing(rows, complete=False)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _CANCELED:
            raise
        return Needing(rows, complete=False)
    return Needing(rows, complete=True)


def _next_day(engine: Engine, since: date | None, until: date | None, after: date | None) -> date | None:
    """The next day with messages; by the index on it, partition by partition."""
    c = messages.c
    query = select(func.min(c.day))
    if since is not None:
        query = query.where(c.day >= since)
    if until is not None:
        query = query.where(c.day <= until)
    if after is not None:
        query = query.where(c.day > after)
    with engine.connect() as connection:
        return connection.execute(query).scalar()


def _scrub_day(engine: Engine, day: date, keep: Collection[str], *, all_rows: bool, dry_run: bool) -> Scrubbed:
    looked_at = changed = 0
    after: dict[str, Any] = dict(_BEFORE_ALL)
    while True:
        asked = {**after, "day": day, "limit": BATCH, "all_rows": all_rows, "may_stay": _may_stay(keep)}
        page = with_lock_timeout(engine, partial(_scrub_page, asked=asked, keep=keep, dry_run=dry_run))
        changed += page.changed
        if page.again:
            continue
        looked_at += len(page.rows)
        if len(page.rows) < BATCH:
            return Scrubbed(day, looked_at, changed)
        after = {name: page.rows[-1]._mapping[name] for name in _KEY}


@dataclass(frozen=True)
class _Page:
    """`again`: somebody else changed rows between reading and writing."""

    rows: list[Row[Any]]
    changed: int
    again: bool


def _scrub_page(connection: Connection, asked: dict[str, Any], keep: Collection[str], *, dry_run: bool) -> _Page:
    """One page in one transaction: it is read without locks, and only what changes is locked."""
    rows = list(connection.execute(_PAGE, asked))
    changes = [
        # No attributes at all are NULL, which JSON's null would not be.
        {name: row._mapping[name] for name in (*_KEY, "version")} | ({"attributes": new} if new else {})
        for row in rows
        if (new := _scrubbed(row, keep)) is not None
    ]
    if dry_run or not changes:
        return _Page(rows, len(changes), again=False)
    changed = connection.execute(_UPDATE, {"day": asked["day"], "rows": json.dumps(changes)}).rowcount
    return _Page(rows, changed, again=changed != len(changes))


def _scrubbed(row: Row[Any], keep: Collection[str]) -> dict[str, Any] | None:
    """The attributes to store instead; None where they stay as they are."""
    try:
        kept = json.loads(row.kept) if row.kept is not None else {}
    except ValueError:  # a number of thousands of digits
        return {}
    left = allowed(kept, keep)
    return left if row.more or left != kept else None


def _may_stay(keep: Collection[str]) -> list[str]:
    return sorted({*ALLOWED_KEYS, *keep})
