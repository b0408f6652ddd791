"""A read replica: a standby of the database, which pages, API and dashboards may read instead of the primary.

Contract: `as_of(connection)` is up to when a replica has what the primary has: now, where it has applied all that it
received from a primary that it is connected to, else the time of the last transaction that it applied. None for a
server that is no standby, or that does not know.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

_AS_OF = text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN CASE WHEN EXISTS (SELECT FROM pg_stat_wal_receiver) "
    "AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN clock_timestamp() "
    "ELSE pg_last_xact_replay_timestamp() END END"
)


def as_of(connection: Connection) -> datetime | None:
    """The time that a replica shows."""
    found: datetime | None = connection.execute(_AS_OF).scalar()
    return found
