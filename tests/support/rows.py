"""Rows made in code, and a look at everything that a database holds."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import date
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text, true

from storage import schema
from storage.coordinates import Coordinates
from storage.head_layouts import head_rows
from storage.writer import BatchRows, MessageRow, ScoreRow, Written, write_batch

DAY = date(2026, 3, 1)
COUNTED = ("messages", "scores", "head_scores", "answers", "alerts", "outbox")


def at(offset: int, source: str = "topic", partition: int = 0) -> Coordinates:
    return Coordinates(source, partition, offset)


def message(offset: int, sha256: str = "aa", status: str = "scored", **more: Any) -> MessageRow:
    return MessageRow(at(offset), sha256, more.pop("day", DAY), status, **more)


def digest_of(probe: str, version: int = 1) -> str:
    """The digest of a probe in tests that need no card: `score` has it, and it is registered where the test asks."""
    return f"digest-of-{probe}-{version}"


def score(offset: int, value: float = 0.9, probe: str = "drift", threshold: float = 0.5, **more: Any) -> ScoreRow:
    more = {"probe_digest": digest_of(probe), **more}
    return ScoreRow(at(offset), probe, 1, value, threshold, value > threshold, **more)


def write(engine: Engine, batch: BatchRows) -> Written:
    with engine.begin() as connection:
        return write_batch(connection, batch)


def counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(schema.metadata.tables[name])).scalar_one()
            for name in COUNTED
        }


def held(engine: Engine, table: str) -> dict[str, int]:
    """Number of rows by partition, the empty ones left out."""
    by_partition = f'SELECT tableoid::regclass::text, count(*) FROM "{table}" GROUP BY 1'  # noqa: S608 - our own names
    with engine.connect() as connection:
        return {name: n for name, n in connection.execute(text(by_partition))}  # noqa: C416 - a row is no pair


def partitions(engine: Engine, table: str = "messages") -> set[str]:
    """The names of a table's partitions, but for the default one."""
    query = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)")
    with engine.connect() as connection:
        return set(connection.execute(query, {"table": table}).scalars()) - {f"{table}_default"}


def wait_until_blocked(engine: Engine, at_least: int = 1) -> None:
    """Until so many connections to this database wait for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    until = time.monotonic() + 20
    while True:
        with engine.connect() as connection:
            if connection.execute(waiting).scalar_one() >= at_least:
                return
        assert time.monotonic() < until, "nobody waits for a lock"
        time.sleep(0.01)


def stored(engine: Engine, table: Any) -> list[dict[str, Any]]:
    """All rows of a table in the order of its key."""
    with engine.connect() as connection:
        return [dict(r) for r in connection.execute(select(table).order_by(*table.primary_key)).mappings()]


def heads_of(engine: Engine) -> list[dict[str, Any]]:
    """The scores of all heads, a row a head."""
    with engine.connect() as connection:
        return head_rows(connection, true())


def dump(engine: Engine, without: Collection[str] = ()) -> str:
    """Everything in the database as text, whatever the column: what a leak would show up in."""
    with engine.connect() as connection:
        return "\n".join(_dump_table(connection, name) for name in schema.metadata.tables if name not in without)


def _dump_table(connection: Connection, name: str) -> str:
    rows = connection.execute(text(f'SELECT t::text FROM "{name}" AS t'))  # noqa: S608 - our own names
    return "\n".join(str(r[0]) for r in rows)
