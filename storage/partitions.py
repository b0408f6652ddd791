"""One partition a day for the tables that grow with traffic.

Contract: `ensure_days(engine, days)` makes the partitions that are missing among `days`, so that the day's rows can
later be dropped with it; `ensure_ahead(engine)` those of today and the next days; `Days` is what a worker calls before
each batch. Days are UTC. A partition is a convenience and never a condition: a day without one has its rows in the
default partition, and they move when the partition is made. So it is with days far from today (a record's time is
what its producer says, be it 1970 or 9999), and with all days where the role may not create tables.

Every change is a transaction of its own, one a table, under one advisory lock: any number of workers may do it at
once. It waits two seconds for a lock, and a few times again, lest a long query that is in its way stops all writers
behind it; no transaction holds two of the tables, so it is never part of a ring of waiting ones.

A look-up over all days takes a lock an index and partition: some 2,000 a worker with 400 days. Where so much is kept,
about fifteen workers are what the server's `max_locks_per_transaction` of 64 has room for; 256 is enough for more.
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
from storage.locks import AdvisoryLock
from storage.schema import BY_DAY

# Days that get a partition of their own, from today.
BACK, AHEAD = timedelta(days=400), timedelta(days=8)
_LOCK_TIMEOUT = "2s"
_WAITS = (0.1, 0.3, 1.0)
# How long a worker leaves it after a refusal.
_PAUSE_SECONDS = 300.0

T = TypeVar("T")


def ensure_days(engine: Engine, days: Iterable[date], today: date | None = None) -> bool:
    """Make the partitions of those `days` that are near today. False when that cannot be, because the role may not,
    others hold a table for too long or whatever else: then the rows go to the default partition.

    Raises DatabaseUnavailableError and nothing else.
    """
    wanted = sorted({day for day in days if near(day, today)})
    if not wanted:
        return True
    try:
        for table, missing in transact(engine, lambda c: _missing(c, wanted)).items():
            _make_all(engine, table, missing)
    except DatabaseUnavailableError:
        raise
    except StorageError:
        return False
    return True


def ensure_ahead(engine: Engine, days: int = 7, today: date | None = None) -> bool:
    """Make the partitions of today and the `days` after it; False as in `ensure_days`."""
    first = today or utc_today()
    return ensure_days(engine, [first + timedelta(days=n) for n in range(days + 1)], first)


class Days:
    """Ensures each day once in a process: call it with a batch's days before the batch is written.

    Costs nothing for days that were seen before; remembers days near today only, so at most some 400. `complete` is
    False after a refusal, which is tried again five minutes later.
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
    """Whether a day gets a partition of its own."""
    now = today or utc_today()
    return now - BACK <= day <= now + AHEAD


def utc_today() -> date:
    """Today, where days are UTC."""
    return datetime.now(UTC).date()


def partition_name(table: str, day: date) -> str:
    """`messages_20261121`."""
    return f"{table}_{day:%Y%m%d}"


def default_name(table: str) -> str:
    """The partition of all days that have none of their own."""
    return f"{table}_default"


def partition_day(table: str, name: str) -> date | None:
    """The day of a table's partition; None for the default partition and for names that are not ours."""
    found = re.fullmatch(rf"{table}_([0-9]{{8}})", name)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:  # eight digits that are no day
        return None


def is_partition(name: str) -> bool:
    """Whether a table is a part of one of `BY_DAY`."""
    return any(name == default_name(t.name) or partition_day(t.name, name) for t in BY_DAY)


def patiently(engine: Engine, work: Callable[[Connection], T]) -> T:
    """`work` in a transaction of its own that waits two seconds at most for a lock, and is tried four times.

    Raises BusyError when a lock was not to be had, NotAllowedError, and as `transact` does.
    """
    for wait in _WAITS:
        try:
            return transact(engine, lambda c: _bounded(c, work))
        except BusyError:
            time.sleep(wait)
    return transact(engine, lambda c: _bounded(c, work))


def exclusively(engine: Engine, work: Callable[[Connection], T]) -> T:
    """The same, while no other awry makes or drops partitions."""

    def alone(connection: Connection) -> T:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": AdvisoryLock.PARTITIONS})
        return work(connection)

    return patiently(engine, alone)


def home(connection: Connection) -> str:
    """The schema that holds the tables, quoted; wherever the search path found them, partitions belong there."""
    found = connection.execute(
        text("SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'messages'::regclass")
    )
    return str(found.scalar_one())


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
    """By table, the days of which there is no table; one that its owner has detached counts as there."""
    names = {partition_name(table.name, day): (table.name, day) for table in BY_DAY for day in days}
    there = connection.execute(
        text(
            "SELECT relname FROM pg_class WHERE relname = ANY(:names) "
            "AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'messages'::regclass)"
        ),
        {"names": list(names)},
    )
    missing: dict[str, list[date]] = {}
    for name in names.keys() - set(there.scalars()):
        table, day = names[name]
        missing.setdefault(table, []).append(day)
    return {table.name: sorted(missing[table.name]) for table in BY_DAY if table.name in missing}


def _make_all(engine: Engine, table: str, days: Collection[date]) -> None:
    def work(connection: Connection) -> None:
        # Once more, now that nobody else makes any.
        for day in _missing(connection, days).get(table, []):
            _make(connection, home(connection), table, day)

    exclusively(engine, work)


def _make(connection: Connection, schema: str, table: str, day: date) -> None:
    parent, default = f"{schema}.{table}", f"{schema}.{default_name(table)}"
    made = f"{schema}.{partition_name(table, day)}"
    for statement in (
        f"CREATE TABLE {made} (LIKE {parent} INCLUDING ALL)",
        # Attaching takes these too; taken here, nothing comes in between moving the rows and attaching.
        f"LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE",
        f"LOCK TABLE ONLY {default} IN ACCESS EXCLUSIVE MODE",
        f"WITH moved AS (DELETE FROM {default} WHERE day = '{day}' RETURNING *) "  # noqa: S608 - our own names
        f"INSERT INTO {made} SELECT * FROM moved",
        f"ALTER TABLE {parent} ATTACH PARTITION {made} FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')",
    ):
        connection.exec_driver_sql(statement)
