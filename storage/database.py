"""Connections, migrations and transactions.

Contract: `connect(url)` gives an engine after one round trip; `upgrade(engine)` migrates the schema to head and is
safe when several processes do it at once. Errors never hold the password of a URL.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from storage.errors import DatabaseUnavailableError, SchemaError, StorageError
from storage.locks import AdvisoryLock

_RETRY_SECONDS = (0.5, 1, 2, 4, 8, 15, 15, 15, 15, 15, 15, 15)

_IDLE_SECONDS = 30

T = TypeVar("T")


def connect(url: str) -> Engine:
    """An engine for `postgresql://...`, checked with one round trip. Raises DatabaseUnavailableError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise DatabaseUnavailableError(
            "database_url: not a URL; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "postgresql+psycopg":
        raise DatabaseUnavailableError(
            f"database_url: {parsed.drivername} is not supported; awry speaks PostgreSQL only (postgresql://...)"
        )
    if "options" not in parsed.query:
        # A process that is frozen inside a transaction must not lock rows that another one has to write.
        parsed = parsed.update_query_dict({"options": f"-c idle_in_transaction_session_timeout={_IDLE_SECONDS}s"})
    engine = create_engine(
        parsed,
        pool_pre_ping=True,
        hide_parameters=True,  # a failing statement must not print prompt text
        pool_size=3,
        connect_args={"connect_timeout": 10, "application_name": "awry"},
        insertmanyvalues_page_size=1000,
    )
    event.listen(engine, "connect", _disable_jit)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except DBAPIError as error:  # also a parameter that the driver does not know
        engine.dispose()
        first = str(error.orig).splitlines()[0][:200]
        raise DatabaseUnavailableError(
            f"database_url: cannot reach {parsed.render_as_string(hide_password=True)} ({first})"
        ) from None
    return engine


def _disable_jit(connection: Any, _: object) -> None:
    """Statements here are short and frequent; over a year of partitions PostgreSQL estimates a cost at which it would
    compile each of them, which takes longer than to run them."""
    connection.execute("SET jit = off")
    connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def upgrade(engine: Engine) -> str:
    """Bring the schema to head and return its revision."""
    config = _config()
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": AdvisoryLock.MIGRATION})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head_revision()


def head_revision() -> str:
    """The revision that this version of awry needs."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def check_schema(engine: Engine) -> None:
    """SchemaError unless the database is at head."""
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current != head_revision():
        raise SchemaError(
            f"database: the schema is at {current or 'nothing'}, awry needs {head_revision()}: run awry db upgrade"
        )


def is_reachable(engine: Engine, seconds: float = 2.0) -> bool:
    """Whether the database answers on a new connection within `seconds` (rounded up for the connection itself)."""
    probe = create_engine(
        engine.url, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": math.ceil(seconds)}
    )
    try:
        with probe.connect() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = {int(seconds * 1000)}"))
            connection.execute(text("SELECT 1"))
        return True
    except DBAPIError:
        return False


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction; after an outage it is run again from its start, so it must be idempotent.

    Raises DatabaseUnavailableError after two minutes of retries, and StorageError at once for rows that PostgreSQL
    rejects; its message is left out, since it quotes the row.
    """
    last = ""
    for wait in (*_RETRY_SECONDS, None):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if not _is_outage(error):
                raise StorageError(f"database: the batch was refused ({_refusal(error)})") from None
            last = _refusal(error)
            if wait is None:
                break
            time.sleep(wait)
    raise DatabaseUnavailableError(
        f"database: not reachable for {sum(_RETRY_SECONDS):g} s ({last}); nothing of this batch was committed"
    )


# What passes by itself, by SQLSTATE or its class: no connection, resources, a server that stops or starts, a rollback
# because of other transactions, a lock that was not to be had, a standby, a transaction that was idle for too long.
_OUTAGES = ("08", "40", "53", "57P", "55P03", "25006", "25P03", "25P04")


def _is_outage(error: DBAPIError) -> bool:
    """Whether the same statements may succeed later. An OperationalError alone says too little: a row that an index
    cannot hold is one."""
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(error, OperationalError) if state is None else state.startswith(_OUTAGES)


def _refusal(error: DBAPIError) -> str:
    """The class of an error and the table, column and constraint, without a value."""
    diagnosis = getattr(error.orig, "diag", None)
    fields = ("table_name", "column_name", "constraint_name")
    names = [str(getattr(diagnosis, field)) for field in fields if getattr(diagnosis, field, None)]
    state = getattr(error.orig, "sqlstate", None)
    return " ".join([type(error.orig).__name__, *([f"SQLSTATE {state}"] if state else []), *names])
