"""The read replica of `awry serve`: reachable, a standby of the database that it is to show, how far behind it is, its
schema, its role.

Contract: asks where `read_database_url` is set, else says nothing. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from monitor.doctor.database import NOT_ALLOWED
from monitor.doctor.finding import Finding, fault, ok, warning
from monitor.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from storage.queries.condition import Server

_PART = "replica"
_REACH = (
    "check host, port, database, role and password of read_database_url, and that the server lets this machine in "
    "(pg_hba.conf, firewall)"
)
# For ten seconds after a change its process reads from the primary; from then on people miss what they did.
_BEHIND, _FAR_BEHIND = 10.0, 300.0


def replica(settings: Settings) -> Iterator[Finding]:
    """Everything that it tells, against the primary's own word where that answers."""
    from sqlalchemy.exc import DBAPIError

    from storage.database import connect
    from storage.errors import StorageError
    from storage.queries.condition import server

    if settings.read_database_url is None:
        return
    try:
        engine = connect(settings.read_database_url.get_secret_value(), "read_database_url")
    except StorageError as error:
        yield fault(_PART, str(error).removeprefix("read_database_url: "), _REACH)
        return
    try:
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            role = server(connection)
            yield from _standby(connection, role.version, settings)
            if (yield from _schema(engine, role)):
                yield from _role(connection, role)
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        yield fault(_PART, f"a question was refused ({type(error).__name__}, SQLSTATE {state})", "see its log")
    finally:
        engine.dispose()


def _standby(connection: Connection, version: str, settings: Settings) -> Iterator[Finding]:
    from storage.replica import instance, lag_seconds

    behind = lag_seconds(connection)
    if behind is None:
        do = "give the address of a hot standby, or take read_database_url away: pages then read from database_url"
        yield fault(_PART, f"PostgreSQL {version} is no standby (pg_is_in_recovery is false)", do)
        return
    primary = _primary(settings)
    if primary is not None and primary != instance(connection):
        do = "give the address of a standby of that server, with the same database"
        yield fault(_PART, "it follows another server, or is another database, than database_url names", do)
        return
    yield ok(_PART, f"PostgreSQL {version}, a standby, reachable")
    do = "see pg_stat_replication on the primary and pg_stat_wal_receiver on the standby: connection, disk, long reads"
    if behind >= _FAR_BEHIND:
        yield fault("replica lag", f"{behind:.0f} s behind", do)
    elif behind >= _BEHIND:
        yield warning("replica lag", f"{behind:.0f} s behind", do)
    else:
        yield ok("replica lag", f"{behind:.1f} s behind")


def _primary(settings: Settings) -> tuple[int, str] | None:
    """What `database_url` names, or None where it does not answer: another check says so."""
    from sqlalchemy.exc import DBAPIError

    from storage.database import connect
    from storage.errors import StorageError
    from storage.replica import instance

    if settings.database_url is None:
        return None
    try:
        engine = connect(settings.database_url.get_secret_value())
    except StorageError:
        return None
    try:
        with engine.connect() as connection:
            return instance(connection)
    except DBAPIError:
        return None
    finally:
        engine.dispose()


def _schema(engine: Engine, role: Server) -> Generator[Finding, None, bool]:
    """Whether what else is asked can be asked."""
    from sqlalchemy.exc import DBAPIError

    from storage.database import check_schema
    from storage.errors import SchemaError

    try:
        check_schema(engine)
    except SchemaError as error:
        found = str(error).removeprefix("database: ").partition(": run ")[0]
        do = "run awry db upgrade on the primary, and let the replica catch up"
        yield fault("replica schema", found, do)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != NOT_ALLOWED:
            raise
        yield _may_not_read(role, "awry's tables")
    else:
        yield ok("replica schema", "is the one that this version needs")
        return True
    return False


def _may_not_read(role: Server, what: str) -> Finding:
    do = f"connect as the tables' owner, or GRANT SELECT ON ALL TABLES to {role.role} on the primary"
    return fault("replica role", f"{role.role} may not read {what}", do)


def _role(connection: Connection, role: Server) -> Iterator[Finding]:
    from storage import tenant_access
    from storage.queries.condition import unreadable

    if role.superuser:
        do = "give it a role of its own (deploy/postgres/roles.sql), made on the primary"
        yield warning("replica role", f"{role.role} is a superuser", do)
    lacks = unreadable(connection)
    if lacks:
        more = f" and {len(lacks) - 4} more" if len(lacks) > 4 else ""
        yield _may_not_read(role, f"{', '.join(lacks[:4])}{more}")
        return
    why = tenant_access.missing(connection)
    if why:
        yield warning("replica role", f"tokens of one tenant get no page from it: {why}", "run it on the primary")
    elif not role.superuser:
        yield ok("replica role", f"{role.role} may read the tables")
