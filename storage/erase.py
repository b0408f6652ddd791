"""Erases what belongs to a user, a tenant, a conversation or a message id, wherever the tables have it.

Contract: `erase(engine, target)` deletes the messages with their scores, answers and links to alerts, in transactions
of at most CHUNK messages, day by day, and leaves a tombstone for each: coordinates, payload hash and day, nothing of
the person. Alerts of an erased tenant or conversation go whole, with what waits in the outbox for them; other alerts
stay as sums, without their references to erased messages (`storage.erase_alerts`). The last transaction holds writers
up for a moment, in which a batch that was in flight is over: what it brought is erased too, and no row is left behind.
What is stored later is a new message. Workers may run on; an erasure that was stopped is run again.

It gives numbers of rows by the name of the table; `storage.erase_preview` counts them beforehand.

Raises BusyError, NotAllowedError, and as `storage.database.transact` does.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.dialects.postgresql import insert

from storage.database import transact
from storage.erase_alerts import erase_names, erase_references
from storage.erase_rows import Erased
from storage.erasures import COLUMNS, Target, begin, finish
from storage.known import CONFLICT
from storage.locks import SharedLock, lock
from storage.partitions import with_lock_timeout
from storage.schema import BY_DAY, erased_messages, messages

# Messages of a transaction; and of the last one, in which writers wait.
CHUNK = 500
_SCORED = tuple(table.name for table in BY_DAY if table is not messages)

_CHUNK = (
    'SELECT source, partition, "offset", sub, payload_sha256, day, message_id, conversation_id, trace_id, ingested_at, '
    "reason IS NOT DISTINCT FROM :conflict AS conflict FROM messages WHERE {column} = :value {and_day} "
    "LIMIT :limit FOR UPDATE"
)
_GONE = (
    'json_to_recordset(CAST(:rows AS json)) AS gone (source text, partition integer, "offset" bigint, sub integer, '
    "day date, payload_sha256 text)"
)
_SAME = (
    't.source = gone.source AND t.partition = gone.partition AND t."offset" = gone."offset" AND t.sub = gone.sub '
    "AND t.day = gone.day"
)


@dataclass(frozen=True)
class Erasure:
    """What was done: the id that the audit and the tombstones have, and the number of rows by table."""

    id: uuid.UUID
    rows: dict[str, int]


def erase(
    engine: Engine,
    target: Target,
    *,
    erasure_id: uuid.UUID | None = None,
    waiting: Collection[dict[str, Any]] = (),
    on_day: Callable[[date, int], None] = lambda *_: None,
) -> Erasure:
    """Erase it. `waiting`: tombstones, as rows of `erased_messages`, of messages that wait in a spool and are not
    stored yet. `on_day` is told of each day's messages."""

    def start(connection: Connection) -> uuid.UUID:
        number = begin(connection, target, erasure_id)
        _leave_tombstones(connection, [dict(row) for row in waiting], number)
        return number

    number = transact(engine, start)
    erased = Erased()
    while True:
        for day in transact(engine, partial(_days, target=target)):
            before = erased.rows.get("messages", 0)
            while with_lock_timeout(engine, partial(_chunk, target=target, number=number, day=day, into=erased)):
                pass
            on_day(day, erased.rows.get("messages", 0) - before)
        if with_lock_timeout(engine, partial(_finish, target=target, number=number, into=erased)):
            return Erasure(number, erased.rows)


def _days(connection: Connection, target: Target) -> list[date]:
    query = text(f"SELECT DISTINCT day FROM messages WHERE {COLUMNS[target.kind]} = :value ORDER BY day")  # noqa: S608
    return list(connection.execute(query, {"value": target.value}).scalars())


def _chunk(connection: Connection, target: Target, number: uuid.UUID, day: date | None, into: Erased) -> bool:
    """Erase some messages; whether there may be more."""
    done = Erased()
    query = _CHUNK.format(column=COLUMNS[target.kind], and_day="AND day = :day" if day is not None else "")
    asked = {"value": target.value, "day": day, "limit": CHUNK, "conflict": CONFLICT}
    rows = connection.execute(text(query), asked).all()
    if rows:
        _erase_rows(connection, rows, target, number, done)
    # Only what is committed counts; this is the last statement but the commit.
    into.add(done)
    return len(rows) == CHUNK


def _erase_rows(
    connection: Connection, rows: Sequence[Row[Any]], target: Target, number: uuid.UUID, done: Erased
) -> None:
    # Scores at the coordinates of a conflict belong to the message that came first.
    scored = _encoded([row for row in rows if not row.conflict])
    for name in _SCORED:
        deleted = connection.execute(
            text(f"DELETE FROM {name} AS t USING {_GONE} WHERE {_SAME}"),  # noqa: S608 - our own names
            {"rows": scored},
        )
        done.count(name, deleted.rowcount)
    erase_references(connection, [row for row in rows if not row.conflict], scored, target, done)
    keys = ("source", "partition", "offset", "sub", "payload_sha256", "day", "ingested_at", "conflict")
    _leave_tombstones(connection, [{name: row._mapping[name] for name in keys} for row in rows], number)
    deleted = connection.execute(
        text(
            f"DELETE FROM messages AS t USING {_GONE} WHERE {_SAME} AND t.payload_sha256 = gone.payload_sha256"  # noqa: S608
        ),
        {"rows": _encoded(rows)},
    )
    done.count("messages", deleted.rowcount)


def _leave_tombstones(connection: Connection, rows: Sequence[dict[str, Any]], number: uuid.UUID) -> None:
    for first in range(0, len(rows), CHUNK):
        page = [{**row, "erasure_id": number} for row in rows[first : first + CHUNK]]
        connection.execute(insert(erased_messages).values(page).on_conflict_do_nothing())


def _finish(connection: Connection, target: Target, number: uuid.UUID, into: Erased) -> bool:
    """The last transaction: False where there is too much left for it."""
    # Who evaluates rules or rolls up may be about to write a name that it has read.
    lock(connection, SharedLock.RULES)
    lock(connection, SharedLock.ROLLUP)
    # Waits for the writers that are at it, and holds up the next ones; readers go on.
    connection.execute(text("LOCK TABLE ONLY messages IN SHARE ROW EXCLUSIVE MODE"))
    done = Erased()
    if _chunk(connection, target, number, None, done):
        into.add(done)
        return False
    erase_names(connection, target, done)
    into.add(done)
    finish(connection, number, into.rows.get("messages", 0))
    return True


def _encoded(rows: Sequence[Row[Any]]) -> str:
    names = ("source", "partition", "offset", "sub", "payload_sha256", "day")
    return json.dumps([{name: row._mapping[name] for name in names} for row in rows], default=str)
