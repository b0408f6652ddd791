"""The condition of a database as `awry doctor` reports it. Reads catalogues only, and needs no table of awry's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text

from storage.partitions import default_name, partition_name
from storage.schema import BY_DAY, metadata

READER = "awry_reader"
# What a worker and the sender do to tables; rows of most are never changed.
_WRITTEN, _CHANGED = ("SELECT", "INSERT"), ("alerts", "destinations", "outbox", "workers")


@dataclass(frozen=True)
class Server:
    """The server and the role that is connected; `clock` is the server's, `standby` a replica."""

    version: str
    version_number: int
    encoding: str
    standby: bool
    read_only: bool
    role: str
    superuser: bool
    has_reader: bool
    clock: datetime


@dataclass(frozen=True)
class Tables:
    """awry's tables: rights that the role lacks (`INSERT on scores`), whether it may make partitions, how many days
    from today on have theirs in every table, and the tables whose default partition holds rows of near days."""

    lacks: list[str]
    owns: bool
    days_ahead: int
    in_default: list[str]


def server(connection: Connection) -> Server:
    """Works on every database, also on one without tables of awry's."""
    row = (
        connection.execute(
            text(
                """
                SELECT current_setting('server_version') AS version,
                       current_setting('server_version_num')::int AS version_number,
                       pg_encoding_to_char(encoding) AS encoding,
                       pg_is_in_recovery() AS standby,
                       current_setting('default_transaction_read_only') = 'on' AS read_only,
                       current_user AS role,
                       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
                       EXISTS (SELECT FROM pg_roles WHERE rolname = :reader) AS has_reader,
                       clock_timestamp() AS clock
                FROM pg_database WHERE datname = current_database()
                """
            ),
            {"reader": READER},
        )
        .mappings()
        .one()
    )
    return Server(**row)


def tables(connection: Connection, today: date) -> Tables:
    """Of a database whose schema is at head."""
    needed = [(privilege, table.name) for table in metadata.sorted_tables for privilege in _WRITTEN]
    needed += [("UPDATE", name) for name in _CHANGED]
    rows = connection.execute(
        text(
            """
            SELECT privilege, name
            FROM unnest(CAST(:privileges AS text[]), CAST(:names AS text[])) AS needed (privilege, name)
            WHERE NOT coalesce(has_table_privilege(to_regclass(name), privilege), false)
            """
        ),
        {"privileges": [privilege for privilege, _ in needed], "names": [name for _, name in needed]},
    )
    lacks = sorted(f"{privilege} on {name}" for privilege, name in rows)
    owns = "SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass('messages')"
    return Tables(
        lacks=lacks,
        owns=bool(connection.execute(text(owns)).scalar()),
        days_ahead=_days_ahead(connection, today),
        in_default=_in_default(connection, today) if not lacks else [],
    )


def unreadable(connection: Connection) -> list[str]:
    """awry's tables that the role may not read, or that are not there."""
    rows = connection.execute(
        text(
            "SELECT name FROM unnest(CAST(:names AS text[])) AS needed (name) "
            "WHERE NOT coalesce(has_table_privilege(to_regclass(name), 'SELECT'), false) ORDER BY name"
        ),
        {"names": [table.name for table in metadata.sorted_tables]},
    )
    return list(rows.scalars())


def _days_ahead(connection: Connection, today: date) -> int:
    days = [today + timedelta(days=n) for n in range(31)]
    names = [partition_name(table.name, day) for table in BY_DAY for day in days]
    found = connection.execute(text("SELECT relname FROM pg_class WHERE relname = ANY(:names)"), {"names": names})
    there = set(found.scalars())
    whole = [all(partition_name(table.name, day) in there for table in BY_DAY) for day in days]
    return whole.index(False) if False in whole else len(whole)


def _in_default(connection: Connection, today: date) -> list[str]:
    near = {"first": today - timedelta(days=7), "last": today + timedelta(days=1)}
    held = "SELECT EXISTS (SELECT FROM {} WHERE day BETWEEN :first AND :last)"
    names = [default_name(table.name) for table in BY_DAY]
    return [name for name in names if connection.execute(text(held.format(name)), near).scalar()]
