"""The database: reachable, new enough, UTF-8, writable, at head, its roles, its partitions, its clock.

Contract: nothing is migrated or created; an embedded server is started only where its data is there already.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from monitor.doctor.finding import Finding, fault, ok, warning
from monitor.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from storage.queries.condition import Server, Tables

# Tests run on the embedded server's 16 and later; before 14 nobody mends PostgreSQL any more.
_TESTED, _OLDEST = 160_000, 140_000
_DAYS_AHEAD = 2
NOT_ALLOWED = "42501"
_SKEW, _FAR_SKEW = timedelta(seconds=2), timedelta(seconds=60)


def database(settings: Settings) -> Iterator[Finding]:
    """Everything that one connection tells."""
    from sqlalchemy.exc import DBAPIError

    from monitor.service.bootstrap import database_url
    from storage.database import connect
    from storage.errors import StorageError

    if settings.database_url is None and not (settings.state_dir / "postgres").is_dir():
        yield ok("database", f"none yet: the first command starts an embedded PostgreSQL in {settings.state_dir}")
        return
    try:
        engine = connect(database_url(settings))
    except StorageError as error:
        yield fault("database", str(error).removeprefix("database_url: "), _reach(settings))
        return
    try:
        yield from _asked(engine, embedded=settings.database_url is None)
    except (DBAPIError, StorageError) as error:
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        yield fault("database", f"a question was refused ({type(error).__name__}, SQLSTATE {state})", "see its log")
    finally:
        engine.dispose()


def _reach(settings: Settings) -> str:
    if settings.database_url is None:
        return "see the log in the folder postgres of the state folder"
    return (
        "check host, port, database, role and password of database_url, and that the server lets this machine in "
        "(pg_hba.conf, firewall)"
    )


def _asked(engine: Engine, *, embedded: bool) -> Iterator[Finding]:
    from sqlalchemy.exc import DBAPIError

    from storage.errors import SchemaError
    from storage.queries import condition

    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        before = datetime.now(UTC)
        server = condition.server(connection)
        after = datetime.now(UTC)
        yield from _server(server, embedded=embedded)
        yield clock(server.clock, before, after)
        try:
            _check_schema(engine)
        except SchemaError as error:
            found = str(error).removeprefix("database: ").partition(": run ")[0]
            if embedded:
                yield ok("schema", f"{found}: the next command brings the embedded one there")
            else:
                yield fault("schema", found, "stop the workers and run awry db upgrade (docs/operations.md, Upgrade)")
            return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != NOT_ALLOWED:
                raise
            do = f"connect as the tables' owner, or GRANT SELECT, INSERT, UPDATE on all of them to {server.role}"
            yield fault("rights", f"{server.role} may not read awry's tables", do)
            return
        yield ok("schema", "is the one that this version needs")
        yield from _tables(server, condition.tables(connection, datetime.now(UTC).date()))


def _check_schema(engine: Engine) -> None:
    from storage.database import check_schema

    check_schema(engine)


def _server(server: Server, *, embedded: bool) -> Iterator[Finding]:
    kind = "embedded PostgreSQL" if embedded else "PostgreSQL"
    if server.version_number < _OLDEST:
        yield fault("database", f"{kind} {server.version} is too old", "upgrade the server to 16 or later")
    elif server.version_number < _TESTED:
        do = "upgrade the server: awry is tested on 16 and later"
        yield warning("database", f"{kind} {server.version}, reachable", do)
    else:
        yield ok("database", f"{kind} {server.version}, reachable")
    if server.encoding != "UTF8":
        do = "create a database with ENCODING 'UTF8' and move the rows there: names in other letters cannot be stored"
        yield fault("encoding", f"the database is in {server.encoding}", do)
    else:
        yield ok("encoding", "UTF8")
    if server.standby or server.read_only:
        what = "a standby" if server.standby else "read-only for this role (default_transaction_read_only)"
        yield fault("writable", f"the server is {what}", "give the address of the primary, and a role that may write")
    if server.superuser and not embedded:
        do = "give awry a role of its own that owns its database (deploy/postgres/roles.sql)"
        yield warning("role", f"{server.role} is a superuser", do)
    if not server.has_reader:
        do = (
            "create it with CREATE ROLE awry_reader NOLOGIN (deploy/postgres/roles.sql) and grant it SELECT on the "
            "tables that dashboards read, if you use Grafana"
        )
        yield warning("awry_reader", "there is no such role, so dashboards have none to read with", do)
    else:
        yield ok("awry_reader", "is there, for dashboards")


def clock(server: datetime, before: datetime, after: datetime) -> Finding:
    """The server's clock against this machine's, which was read before and after."""
    skew = max(before - server, server - after, timedelta())
    found = f"{skew.total_seconds():.1f} s from the database's"
    do = "set both by NTP (chrony, systemd-timesyncd): delays, windows of rules and days of rows go by these clocks"
    if skew >= _FAR_SKEW:
        return fault("clock", found, do)
    return warning("clock", found, do) if skew >= _SKEW else ok("clock", found)


def _tables(server: Server, tables: Tables) -> Iterator[Finding]:
    if tables.lacks:
        more = f" and {len(tables.lacks) - 4} more" if len(tables.lacks) > 4 else ""
        do = f"connect as the tables' owner, or GRANT these to {server.role}"
        yield fault("rights", f"{server.role} lacks {', '.join(tables.lacks[:4])}{more}", do)
    else:
        yield ok("rights", f"{server.role} may read and write the tables")
    if tables.days_ahead >= _DAYS_AHEAD:
        yield ok("partitions", f"made for today and {tables.days_ahead - 1} days ahead")
    else:
        do = "run awry db upgrade, or awry db retain, as the tables' owner; retain belongs into a daily job"
        made = f"for {tables.days_ahead} days from today on" if tables.days_ahead else "not even for today"
        mine = "" if tables.owns else f"; {server.role} may not make any"
        yield warning("partitions", f"made {made}{mine}: rows go to the default partition", do)
    if tables.in_default:
        do = "run awry db retain as the tables' owner: it moves rows of near days into partitions of their own"
        yield warning("partitions", f"rows of the last days are in {', '.join(tables.in_default)}", do)
