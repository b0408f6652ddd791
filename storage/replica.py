"""A read replica: a standby of the database, which pages, API and dashboards may read instead of the primary.

Contract: `as_of(connection)` is up to when a replica has what the primary has: now, where it has applied all that it
received from a primary that it is connected to, else the time of the last transaction that it applied, or of the
checkpoint that it began from, where that is later (it has applied none since it started). `lag_seconds` is how long ago
that is by the replica's clock. Both are None for a server that is no standby.

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
    "ELSE greatest(pg_last_xact_replay_timestamp(), (SELECT checkpoint_time FROM pg_control_checkpoint())) "
    "END END AS shown"
)
_INSTANCE = text("SELECT system_identifier, current_database() FROM pg_control_system()")


def as_of(connection: Connection) -> datetime | None:
    """The time that a replica shows; None for what is no standby."""
    found: datetime | None = connection.execute(_AS_OF).one().shown
    return found


def lag_seconds(connection: Connection) -> float | None:
    """How old what a replica shows is; None for what is no standby."""
    now, shown = connection.execute(_AS_OF).one()
    return max((now - shown).total_seconds(), 0.0) if shown is not None else None


def instance(connection: Connection) -> tuple[int, str]:
    """(identifier of the server's data, name of the database)."""
    identifier, name = connection.execute(_INSTANCE).one()
    return int(identifier), str(name)
