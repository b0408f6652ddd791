"""Connections, migrations and transactions.

Contract: `connect(url)` gives an engine after one round trip; `upgrade(engine)` migrates the schema to head and is
safe when several processes do it at once. `transact` decides by the table of `storage.sqlstate` what an error means.
Errors never hold the password of a URL.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, OperationalError

from storage.errors import (
    BusyError,
    DatabaseUnavailableError,
    NotAllowedError,
    RowRefusedError,
    SchemaError,
    StorageError,
)
from storage.index_builds import build_indexes
from storage.sessions import CONNECT_ARGS, LOCK_SECONDS, check_database, holders, prepare
from storage.sqlstate import LOCK_TIMEOUT, STATEMENT_TIMEOUT, Meaning, decide, state_of
from storage.tenant_access import check_not_tenant, set_up

_RETRY_SECONDS = (0.5, 1, 2, 4, 8, 15, 15, 15, 15, 15, 15, 15)
# Another process may be upgrading: that takes as long as it takes.
_UPGRADE_SECONDS = 900
_VERSION_TABLE = (
    "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY)"
)

_log = logging.getLogger("awry.database")

T = TypeVar("T")


def connect(url: str, setting: str = "database_url") -> Engine:
    """An engine for `postgresql://...`, checked with one round trip; `setting` is named in errors. Raises
    DatabaseUnavailableError, and SchemaError for a database that cannot hold awry's rows."""
    parsed = parse_url(url, setting)
    engine = create_engine(
        parsed,
        pool_pre_ping=True,
        hide_parameters=True,  # a failing statement must not print prompt text
        pool_size=3,
        connect_args=CONNECT_ARGS,
        insertmanyvalues_page_size=1000,
    )
    prepare(engine)
    try:
        with engine.connect() as connection:
            check_database(connection)
    except DBAPIError as error:  # also a parameter that the driver does not know
        engine.dispose()
        raise DatabaseUnavailableError(
            f"{setting}: cannot reach {without_password(parsed)} ({_first_line(error)})"
        ) from None
    except SchemaError:
        engine.dispose()
        raise
    return engine


def parse_url(url: str, setting: str) -> URL:
    """A URL of PostgreSQL, with the driver that awry uses. Raises DatabaseUnavailableError that names the setting."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise DatabaseUnavailableError(
            f"{setting}: not a URL; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "postgresql+psycopg":
        raise DatabaseUnavailableError(
            f"{setting}: {parsed.drivername} is not supported; awry speaks PostgreSQL only (postgresql://...)"
        )
    return parsed


def without_password(url: URL) -> str:
    """A URL for people: without parameters too, since passwords can be among them."""
    return url.set(query={}).render_as_string(hide_password=True)


def _first_line(error: DBAPIError) -> str:
    """What the server or the driver said, and what that means where it gave a code."""
    said = _said(error)
    if "statement pooling" in said:
        return f"{said}; awry needs pool_mode transaction or session"
    state = _state(error)
    return f"{said}; SQLSTATE {state}: {decide(state).reason}" if state else said


def migrations() -> Config:
    """Where the migrations are, for Alembic."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def upgrade(engine: Engine, progress: Callable[[str], None] = lambda _: None) -> str:
    """Bring the schema to head and return its revision; then build indexes that partitions lack, while workers may
    write again. Raises BusyError, which names who holds a table."""
    config = migrations()
    _make_version_table(engine)
    try:
        with engine.begin() as connection:
            # Who may not write cannot take a lock that conflicts with this one; reading the revision goes on.
            connection.execute(text(f"SET LOCAL lock_timeout = '{_UPGRADE_SECONDS}s'"))
            connection.execute(text("LOCK TABLE alembic_version IN SHARE ROW EXCLUSIVE MODE"))
            # A statement that waits for a table lets everybody queue behind it.
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            set_up(connection)
    except DBAPIError as error:
        if _state(error) != LOCK_TIMEOUT:
            raise
        who = holders(engine, reading=True)
        raise BusyError(
            f"database: a table is held by {who or 'another session'}; nothing was changed. Stop awry's workers and "
            "long queries of others, and run it again"
        ) from None
    build_indexes(engine, progress)
    return head_revision()


def _make_version_table(engine: Engine) -> None:
    """Alembic's own, which upgrades exclude each other by, before the first of them."""
    with engine.connect() as connection:
        if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is not None:
            return
    try:
        with engine.begin() as connection:
            connection.execute(text(_VERSION_TABLE))
    except DBAPIError as error:
        # Another one has just made it.
        if _state(error) not in ("23505", "42P07"):
            raise


def head_revision() -> str:
    """The revision that this version of awry needs."""
    return str(ScriptDirectory.from_config(migrations()).get_current_head())


def check_schema(engine: Engine) -> None:
    """SchemaError unless the database is at head."""
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current != head_revision():
        raise SchemaError(
            f"database: the schema is at {current or 'nothing'}, awry needs {head_revision()}: run awry db upgrade"
        )
    check_not_tenant(engine)


def is_reachable(engine: Engine, seconds: float = 2.0) -> bool:
    """Whether the database answers on a new connection within `seconds` (rounded up for the connection itself)."""
    probe = create_engine(
        engine.url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={**CONNECT_ARGS, "connect_timeout": math.ceil(seconds)},
    )
    try:
        with probe.connect() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = {int(seconds * 1000)}"))
            connection.execute(text("SELECT 1"))
        return True
    except DBAPIError:
        return False


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction; what passes by itself is waited out and run again from its start, so it must be
    idempotent.

    Raises DatabaseUnavailableError after two minutes of retries (BusyError where a lock or a time limit was in the
    way), and at once RowRefusedError for rows that PostgreSQL rejects, NotAllowedError and SchemaError for a database
    that is not as it has to be, StorageError for a defect. No message quotes a row.
    """
    for wait in (*_RETRY_SECONDS, None):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            meaning = _meaning(error)
            if meaning.action != "retry":
                raise _refused(error, meaning) from None
            if wait is None:
                raise _unavailable(engine, error, meaning) from None
            _log.warning("database: %s; the transaction is run again in %g s", _explained(error, meaning), wait)
            # After a failover the name may mean another server; open connections would still ask the old one.
            if (_state(error) or "08")[:2] in ("08", "25", "57"):
                engine.dispose()
            time.sleep(wait)
    raise AssertionError("unreachable")


def try_row(connection: Connection, work: Callable[[], object]) -> str | None:
    """Run `work` in a savepoint. The names of what refused one of its rows, which is undone then; None when it is done.
    All other errors go through."""
    try:
        with connection.begin_nested():
            work()
    except DBAPIError as error:
        if _meaning(error).action != "row":
            raise
        return _names(error)
    return None


def _refused(error: DBAPIError, meaning: Meaning) -> StorageError:
    told = f"database: the batch was refused ({_explained(error, meaning)})"
    if meaning.action == "row":
        return RowRefusedError(told, _names(error))
    if meaning.action == "refuse":
        return NotAllowedError(told) if _state(error) == "42501" else SchemaError(told)
    return StorageError(told)


def _unavailable(engine: Engine, error: DBAPIError, meaning: Meaning) -> StorageError:
    waited = f"{sum(_RETRY_SECONDS):g} s"
    told = f"({_explained(error, meaning)}); nothing of this batch was committed"
    if _state(error) == LOCK_TIMEOUT:
        who = holders(engine)
        return BusyError(f"database: rows or tables were held by {who or 'another session'} for {waited} {told}")
    if _state(error) == STATEMENT_TIMEOUT:
        return BusyError(f"database: a statement was ended again and again for {waited} {told}")
    if (_state(error) or "")[:2] in ("28", "3D"):
        return DatabaseUnavailableError(f"database: refused every connection for {waited} {told}")
    return DatabaseUnavailableError(f"database: not reachable for {waited} {told}")


def _state(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None and isinstance(error, OperationalError):
        return state_of(_said(error))
    return state


def _meaning(error: DBAPIError) -> Meaning:
    return decide(_state(error), lost=isinstance(error, OperationalError), value=isinstance(error, DataError))


def _explained(error: DBAPIError, meaning: Meaning) -> str:
    """The class of an error with its code, the table, column and constraint, and what it means; without a value."""
    # Of a connection that was not made the driver gives no code, and the server's own words, which hold no row.
    coded = getattr(error.orig, "sqlstate", None) is not None
    said = f" ({_said(error)})" if not coded and isinstance(error, OperationalError) else ""
    return f"{_names(error)}: {meaning.reason}{said}"


def _names(error: DBAPIError) -> str:
    diagnosis = getattr(error.orig, "diag", None)
    fields = ("table_name", "column_name", "constraint_name")
    names = [str(getattr(diagnosis, field)) for field in fields if getattr(diagnosis, field, None)]
    state = _state(error)
    return " ".join([type(error.orig).__name__, *([f"SQLSTATE {state}"] if state else []), *names])


def _said(error: DBAPIError) -> str:
    """The line that says why, of the driver's or the server's words."""
    lines = str(error.orig).splitlines() or [type(error.orig).__name__]
    return next((line for line in lines if "FATAL" in line), lines[0])[:200]
