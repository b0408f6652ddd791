"""One partition a day for the tables that grow with traffic.

Contract: `ensure_days(engine, days)` creates the missing partitions of `days`, so that a day's rows can later be
dropped at once; `ensure_ahead(engine)` those of today and the next days; a worker calls `Days` before each batch. Days
are UTC. No partition is required: rows of a day without one are in the default partition, and move when it is created.
This holds for days far from today (a record's timestamp is its producer's, be it 1970 or 9999), and for all days where
the role may not create tables.

Each table is changed in a transaction of its own under one lock: any number of workers may do it at once. It
waits two seconds for a lock, and tries a few times, lest a long query that blocks it stops all writers behind it; no
transaction locks two of the tables, so that it cannot deadlock.

A look-up over all days takes a lock an index and partition: some 2,000 a worker with 400 days. About fifteen such
workers are what the server's default `max_locks_per_transaction` of 64 allows; 256 is enough for more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from psycopg import errors
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from storage.database import transact
from storage.errors import BusyError, DatabaseUnavailableError, NotAllowedError, StorageError
from storage.locks import SharedLock, lock
from storage.schema import BY_DAY

# Days that get a partition of their own, from today.
BACK, AHEAD = timedelta(days=400), timedelta(days=8)
_LOCK_TIMEOUT = "2s"
_WAITS = (0.1, 0.3, 1.0)
# How long a worker waits after a failure.
_PAUSE_SECONDS = 300.0

T = TypeVar("T")


def ensure_days(engine: Engine, days: Iterable[date], today: date | None = None) -> bool:
    """Create the partitions of those `days` that are near today. False when that fails, because the role may not, a
    table is locked for too long or any other reason: then the rows go to the default partition.

    Raises DatabaseUnavailableError and nothing else.
    """
    wanted = sorted({day for day in days if near(day, today)})
    if not wanted:
        return True
    try:
        for table, missing in transact(engine, lambda c: _missing(c, wanted)).items():
            _create_all(engine, table, missing)
    except DatabaseUnavailableError:
        raise
    except StorageError:
        return False
    return True


def ensure_ahead(engine: Engine, days: int = 7, today: date | None = None) -> bool:
    """Create the partitions of today and the `days` after it; False as in `ensure_days`."""
    first = today or utc_today()
    return ensure_days(engine, [first + timedelta(days=n) for n in range(days + 1)], first)


class Days:
    """Ensures each day once in a process: call it with a batch's days before the batch is written.

    Costs nothing for days that were seen before; remembers days near today only, so at most some 400. `complete` is
    False after a failure, which is tried again five minutes later.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: set[date] = set()
        self._not_before = 0.0
        self.complete = True

    def __call__(self, days: Iterable[date]) -> None:
        """Raises DatabaseUnavailableError and nothing else."""
        unseen = set(days) - self._seen
        if not unseen or time.monotonic() < self._not_before:
            return
        today = utc_today()
        # Far days are not kept: one that is too far ahead is near some day.
        unseen = {day for day in unseen if near(day, today)}
        if not unseen:
            return
        self.complete = ensure_days(self._engine, unseen, today)
        if self.complete:
            self._seen = {day for day in self._seen | unseen if near(day, today)}
        else:
            self._not_before = time.monotonic() + _PAUSE_SECONDS


def near(day: date, today: date | None = None) -> bool:
    """Whether a day gets a partition."""
    now = today or utc_today()
    return now - BACK <= day <= now + AHEAD


def utc_today() -> date:
    """Today in UTC."""
    return datetime.now(UTC).date()


def partition_name(table: str, day: date) -> str:
    """`messages_20261121`."""
    return f"{table}_{day:%Y%m%d}"


def default_name(table: str) -> str:
    """The partition of all days without one."""
    return f"{table}_default"


def partition_day(table: str, name: str) -> date | None:
    """The day of a table's partition; None for the default partition and for any other name."""
    match = re.fullmatch(rf"{table}_([0-9]{{8}})", name)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:  # eight digits that are no day
        return None


def is_partition(name: str) -> bool:
    """Whether a table is a partition of one of `BY_DAY`."""
    return any(name == default_name(t.name) or partition_day(t.name, name) for t in BY_DAY)


def with_lock_timeout(engine: Engine, work: Callable[[Connection], T]) -> T:
    """`work` in a transaction of its own that waits two seconds at most for a lock, and is tried four times.

    Raises BusyError when a lock could not be taken, NotAllowedError, and as `transact` does.
    """
    for wait in _WAITS:
        try:
            return transact(engine, lambda c: _bounded(c, work))
        except BusyError:
            time.sleep(wait)
    return transact(engine, lambda c: _bounded(c, work))


def with_partition_lock(engine: Engine, work: Callable[[Connection], T]) -> T:
    """The same, while no other process creates or drops partitions."""

    def alone(connection: Connection) -> T:
        lock(connection, SharedLock.PARTITIONS)
        return work(connection)

    return with_lock_timeout(engine, alone)


def tables_schema(connection: Connection) -> str:
    """The schema of the tables, quoted, wherever the search path found them: partitions are created there."""
    schema = connection.execute(
        text("SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'messages'::regclass")
    )
    return str(schema.scalar_one())


def _bounded(connection: Connection, work: Callable[[Connection], T]) -> T:
    try:
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        return work(connection)
    except DBAPIError as error:
        if isinstance(error.orig, errors.LockNotAvailable | errors.DeadlockDetected):
            raise BusyError("database: others hold a table for too long; try again") from None
        if isinstance(error.orig, errors.InsufficientPrivilege):
            raise NotAllowedError("database: the role may not create and drop tables; use the tables' owner") from None
        raise


def _missing(connection: Connection, days: Collection[date]) -> dict[str, list[date]]:
    """By table, the days without a partition; one that its owner has detached exists."""
    names = {partition_name(table.name, day): (table.name, day) for table in BY_DAY for day in days}
    existing = connection.execute(
        text(
            "SELECT relname FROM pg_class WHERE relname = ANY(:names) "
            "AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'messages'::regclass)"
        ),
        {"names": list(names)},
    )
    missing: dict[str, list[date]] = {}
    for name in names.keys() - set(existing.scalars()):
        table, day = names[name]
        missing.setdefault(table, []).append(day)
    return {table.name: sorted(missing[table.name]) for table in BY_DAY if table.name in missing}


def _create_all(engine: Engine, table: str, days: Collection[date]) -> None:
    def work(connection: Connection) -> None:
        # Asked again, now that no other process creates any.
        for day in _missing(connection, days).get(table, []):
            _create(connection, tables_schema(connection), table, day)

    with_partition_lock(engine, work)


def _create(connection: Connection, schema: str, table: str, day: date) -> None:
    parent, default = f"{schema}.{table}", f"{schema}.{default_name(table)}"
    partition = f"{schema}.{partition_name(table, day)}"
    for statement in (
        f"CREATE TABLE {partition} (LIKE {parent} INCLUDING ALL)",
        # Attaching takes these locks too; taken here, no row is written between moving the rows and attaching.
        f"LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE",
        f"LOCK TABLE ONLY {default} IN ACCESS EXCLUSIVE MODE",
        f"WITH moved AS (DELETE FROM {default} WHERE day = '{day}' RETURNING *) "  # noqa: S608 - our own names
        f"INSERT INTO {partition} SELECT * FROM moved",
        f"ALTER TABLE {parent} ATTACH PARTITION {partition} FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')",
    ):
        connection.exec_driver_sql(statement)
