"""Builds indexes of partitioned tables while workers write.

A migration declares an index by CREATE INDEX ... ON ONLY the partitioned table: PostgreSQL calls it invalid as long as
a partition lacks it. `build_indexes(engine)` gives each partition its own by CREATE INDEX CONCURRENTLY, which stops no
writer, and attaches it. It may be stopped anywhere and run again, by any number of processes: what a build that was
stopped has left is dropped first. Partitions that are made meanwhile come with all indexes.

A concurrent build waits for transactions that began before it, such as a dump: as long as they take.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, text

from storage.locks import SharedLock, make_lock, try_lock

_LOOK_AGAIN_SECONDS = 0.2

_OURS = "(SELECT relnamespace FROM pg_class WHERE oid = 'messages'::regclass)"
# Partitions without the index of their table, or with one that is not attached; the definition is that of the table's.
_MISSING = text(
    f"""
    SELECT p.oid::regclass::text AS partition, p.relname AS partition_name, i.relname AS index_name,
        pg_get_indexdef(x.indexrelid) AS definition, x.indexrelid::regclass::text AS parent,
        p.relnamespace::regnamespace::text AS schema
    FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid AND i.relkind = 'I'
        JOIN pg_inherits AS h ON h.inhparent = x.indrelid JOIN pg_class AS p ON p.oid = h.inhrelid
    WHERE NOT x.indisvalid AND i.relnamespace = {_OURS} AND NOT EXISTS (
        SELECT FROM pg_inherits AS a JOIN pg_index AS mine ON mine.indexrelid = a.inhrelid
        WHERE a.inhparent = x.indexrelid AND mine.indrelid = p.oid
    )
    ORDER BY i.relname, p.relname DESC
    """  # noqa: S608 - constants of this module
)


def missing_indexes(connection: Connection) -> list[tuple[str, str]]:
    """Indexes that are not complete, each with a partition that lacks it."""
    return [(row.index_name, row.partition_name) for row in connection.execute(_MISSING)]


def build_indexes(engine: Engine, progress: Callable[[str], None] = lambda _: None) -> int:
    """Build what is missing; returns the number of partitions' indexes. Raises what PostgreSQL raises."""
    while True:
        with engine.connect() as connection:
            made = connection.execute(text("SELECT to_regclass('locks')")).scalar() is not None
            if not made or not missing_indexes(connection):
                return 0
        with engine.begin() as connection:
            make_lock(connection, SharedLock.INDEXES)
        with engine.begin() as guard:
            if try_lock(guard, SharedLock.INDEXES):
                # The last statement: unlike a query it leaves no snapshot, which a concurrent build would wait for.
                guard.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    return _build(connection, progress)
        # Another process builds. Who waited in a statement would hold a snapshot, and its build would wait for that.
        time.sleep(_LOOK_AGAIN_SECONDS)


def _build(connection: Connection, progress: Callable[[str], None]) -> int:
    rows = connection.execute(_MISSING).all()
    for number, row in enumerate(rows, 1):
        if number == 1 or number % 50 == 0:
            progress(f"index {number} of {len(rows)} of partitions: {row.index_name}")
        name = f"{row.partition_name}_{row.index_name.removeprefix('ix_')}"[:63]
        quoted = f'{row.schema}."{name}"'
        # What a build that was stopped has left behind is invalid.
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted}")
        connection.exec_driver_sql(_for_partition(row.definition, row.partition, name))
        connection.exec_driver_sql(f"ALTER INDEX {row.parent} ATTACH PARTITION {quoted}")
    return len(rows)


def _for_partition(definition: str, partition: str, name: str) -> str:
    """`CREATE INDEX i ON ONLY schema.t USING btree (...)` for a partition, concurrently, under a name of its own."""
    _, _, rest = definition.partition(" USING ")
    return f'CREATE INDEX CONCURRENTLY "{name}" ON {partition} USING {rest}'
