"""What every transaction of awry starts with, and what a database must be like: also behind a pooler.

Contract: `prepare(engine)` makes each transaction begin with awry's limits, by SET LOCAL alone: a pooler in transaction
mode lends its connection to others afterwards, and refuses start-up options. What the URL's own `options` set is left
as it is. `check_database(connection)` raises SchemaError where the database cannot hold awry's rows.

`holders(engine)` says who holds up others now, for errors; it reads what PostgreSQL shows to everybody.
"""

from __future__ import annotations

import psycopg
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from storage.errors import SchemaError

LOCK_SECONDS = 10
IDLE_SECONDS = 30

# A lock that is not to be had, and a process that is frozen inside a transaction, must hold nobody up for long.
# Statements are short and frequent; over a year of partitions PostgreSQL estimates a cost at which it would compile
# each of them, which takes longer than to run them.
_LIMITS = {
    "lock_timeout": f"'{LOCK_SECONDS}s'",
    "idle_in_transaction_session_timeout": f"'{IDLE_SECONDS}s'",
    "jit": "off",
}
# Named parameters of the driver: prepared statements live in one server connection, and a pooler gives the next
# transaction another one.
CONNECT_ARGS = {
    "connect_timeout": 10,
    "application_name": "awry",
    "client_encoding": "utf8",
    "prepare_threshold": None,
}
_HOLDERS = text(
    """
    SELECT a.pid, a.usename, a.application_name, extract(epoch FROM now() - a.xact_start) AS seconds
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND EXISTS (
        SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
        WHERE l.pid = a.pid AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = a.datname)
            AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('messages'))
            AND (:reading OR l.mode <> 'AccessShareLock')
    ) ORDER BY a.xact_start NULLS LAST LIMIT 3
    """
)


def prepare(engine: Engine) -> None:
    """Every transaction of this engine begins with awry's limits."""
    options = str(engine.url.query.get("options", ""))
    limits = "; ".join(f"SET LOCAL {name} = {value}" for name, value in _LIMITS.items() if name not in options)

    def begin(connection: Connection) -> None:
        raw = connection.connection.dbapi_connection
        if raw is None or getattr(raw, "autocommit", False) or not limits:
            return
        try:
            raw.cursor().execute(limits)
        except psycopg.Error as error:
            # As SQLAlchemy's own statements fail: what is behind it knows no other errors.
            raise DBAPIError.instance(
                limits, None, error, psycopg.Error, hide_parameters=True, dialect=engine.dialect
            ) from error

    event.listen(engine, "begin", begin)


def check_database(connection: Connection) -> None:
    """SchemaError for a database in another encoding than UTF8."""
    name, encoding = connection.execute(text("SELECT current_database(), current_setting('server_encoding')")).one()
    if encoding != "UTF8":
        raise SchemaError(
            f"database: the encoding of {name} is {encoding}, which cannot hold every text; make one with "
            f"CREATE DATABASE {name}_utf8 ENCODING 'UTF8' TEMPLATE template0 and name that in database_url"
        )


def holders(engine: Engine, *, reading: bool = False) -> str:
    """The sessions that have locked rows or tables of awry for the longest time, in words; '' when there are none, or
    the server does not say. `reading`: those that only read count too, as they do for whoever changes a table."""
    own = create_engine(engine.url, poolclass=NullPool, hide_parameters=True, connect_args=CONNECT_ARGS)
    try:
        with own.connect() as connection:
            rows = connection.execute(_HOLDERS, {"reading": reading}).all()
    except DBAPIError:
        return ""
    finally:
        own.dispose()
    return ", ".join(
        f"process {row.pid} of {row.usename}"
        + (f" ({row.application_name})" if row.application_name else "")
        + (f" for {row.seconds:.0f} s" if row.seconds is not None else "")
        for row in rows
    )
