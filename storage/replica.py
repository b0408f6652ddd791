"""A read replica: a standby of the database, which pages, API and dashboards may read instead of the primary.

Contract: `as_of(connection)` is up to when a replica has what the primary has: now, where it has applied all that it
received from a primary that it is connected to, else the time of the last transaction that it applied. `lag_seconds` is
how long ago that is by the replica's clock. Both are None for a server that is no standby, or that does not know.

`instance(connection)` is what a standby shares with its primary and with no other server: the identifier that initdb
gave, and the database.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

_AS_OF = text(
    "SELECT clock_timestamp() AS now, CASE WHEN pg_is_in_recovery() THEN "
    "CASE WHEN EXISTS (SELECT FROM pg_stat_wal_receiver) "
    "AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN clock_timestamp() "
    "ELSE pg_last_xact_replay_timestamp() END END AS shown"
)
_INSTANCE = text("SELECT system_identifier, current_database() FROM pg_control_system()")


def is_standby(connection: Connection) -> bool:
    """Whether this server follows another one."""
    return bool(connection.execute(text("SELECT pg_is_in_recovery()")).scalar())


def as_of(connection: Connection) -> datetime | None:
    """The time that a replica shows."""
    found: datetime | None = connection.execute(_AS_OF).one().shown
    return found


def lag_seconds(connection: Connection) -> float | None:
    """How old what a replica shows is."""
    now, shown = connection.execute(_AS_OF).one()
    return max((now - shown).total_seconds(), 0.0) if shown is not None else None


def instance(connection: Connection) -> tuple[int, str]:
    """(identifier of the server's data, name of the database)."""
    identifier, name = connection.execute(_INSTANCE).one()
    return int(identifier), str(name)
