"""What PostgreSQL's error codes mean, on a real server wherever it can be brought to say them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.errors import lookup
from sqlalchemy import Connection, Engine, make_url, text

from storage import database
from storage.database import connect, transact
from storage.errors import (
    BusyError,
    DatabaseUnavailableError,
    NotAllowedError,
    RowRefusedError,
    SchemaError,
    StorageError,
)
from storage.sqlstate import decide
from tests.conftest import url_of
from tests.support.stream.kafka import wait_for

ROLE = "awry_sqlstate"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01, 0.01))


def administer(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_every_code_that_the_driver_knows_has_an_action_and_a_reason() -> None:
    from psycopg import errors

    found = (getattr(each, "sqlstate", None) for each in vars(errors).values())
    codes = [code for code in found if isinstance(code, str)]
    assert len(codes) > 200
    for code in codes:
        assert "does not list" not in decide(code).reason, code
    assert decide("ZZ999").action == "stop"


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("08006", "retry"),
        ("08P01", "retry"),  # what PgBouncer says of a server that it cannot reach
        ("22021", "row"),
        ("22P02", "row"),
        ("22P05", "row"),
        ("23505", "row"),
        ("25006", "retry"),
        ("25P02", "stop"),
        ("25P03", "retry"),
        ("26000", "stop"),
        ("28P01", "retry"),  # while a process runs; at its start it is an error at once
        ("3D000", "retry"),
        ("40001", "retry"),
        ("40P01", "retry"),
        ("42501", "refuse"),
        ("42601", "stop"),
        ("42P01", "refuse"),
        ("53100", "retry"),  # a full disk cannot be had here
        ("53300", "retry"),
        ("53400", "stop"),
        ("54000", "row"),
        ("55P03", "retry"),
        ("57014", "retry"),
        ("57P01", "retry"),
        ("57P02", "retry"),
        ("57P03", "retry"),
        ("57P04", "refuse"),
        ("P0001", "row"),
        ("P0002", "stop"),
        ("58030", "retry"),
        ("XX000", "retry"),
        ("XX001", "stop"),
        (None, "stop"),
    ],
)
def test_the_action_by_code(state: str | None, action: str) -> None:
    assert decide(state).action == action


def test_an_error_without_a_code_is_an_outage_where_the_driver_lost_the_connection() -> None:
    assert decide(None, lost=True).action == "retry"


def test_a_value_that_the_driver_cannot_send_is_a_row_of_its_own(engine: Engine) -> None:
    """NUL in a text never reaches the server, so there is no code."""
    with pytest.raises(RowRefusedError, match=r"DataError: a value that its column cannot hold\)$") as refused:
        transact(engine, lambda c: c.execute(text("SELECT CAST(:a AS text)"), {"a": "a\x00b"}).all())
    assert refused.value.names == "DataError"


# What happens the first time a transaction is run; the second time nothing does.
def _read_only(connection: Connection) -> None:
    connection.execute(text("SET TRANSACTION READ ONLY"))
    connection.execute(text("UPDATE rollup_state SET at = now()"))


def _idle(connection: Connection) -> None:
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
    time.sleep(0.5)
    connection.execute(text("SELECT 1"))


def _ended(connection: Connection) -> None:
    connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def _cancelled(connection: Connection) -> None:
    connection.execute(text("SET LOCAL statement_timeout = '20ms'"))
    connection.execute(text("SELECT pg_sleep(5)"))


@pytest.mark.parametrize(
    ("fault", "state"), [(_read_only, "25006"), (_idle, "25P03"), (_ended, "57P01"), (_cancelled, "57014")]
)
def test_what_passes_by_itself_is_run_again_and_told(
    engine: Engine,
    quick: None,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Connection], None],
    state: str,
) -> None:
    tries = []

    def work(connection: Connection) -> int:
        tries.append(1)
        if len(tries) == 1:
            fault(connection)
        return int(connection.execute(text("SELECT 7")).scalar_one())

    with caplog.at_level(logging.WARNING, "awry"):
        assert transact(engine, work) == 7
    assert len(tries) == 2
    (said,) = caplog.messages
    assert f"SQLSTATE {state}" in said or state in ("25P03", "57P01")
    assert "run again in 0.01 s" in said


def test_a_standby_that_becomes_the_primary_is_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that takes no writes for a moment, as during a failover: on connections that were open before, too."""
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.05,) * 10)
    name = engine.url.database
    administer(engine, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    engine.dispose()
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        if len(tries) == 3:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
                other.execute(text("SET transaction_read_only = off"))
                other.execute(text("SET default_transaction_read_only = off"))
                other.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
        connection.execute(text("UPDATE rollup_state SET at = now()"))

    transact(engine, work)
    assert len(tries) == 4


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_transactions_that_came_between_are_run_again(engine: Engine, quick: None, level: str) -> None:
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        connection.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
        connection.execute(text("SELECT at FROM rollup_state")).all()
        if len(tries) == 1:
            with engine.begin() as other:
                other.execute(text("UPDATE rollup_state SET at = clock_timestamp()"))
        connection.execute(text("UPDATE rollup_state SET at = clock_timestamp()"))

    transact(engine, work)
    assert len(tries) == 2


@pytest.fixture
def limited(engine: Engine) -> Iterator[str]:
    """URL of a role that may connect once, and read nothing."""
    administer(engine, f"DROP ROLE IF EXISTS {ROLE}", f"CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT 1")
    yield make_url(url_of(engine)).set(username=ROLE).render_as_string(hide_password=False)
    administer(engine, f"DROP ROLE {ROLE}")


def _connected(engine: Engine) -> bool:
    """Whether the role is connected: a backend ends a little after its client."""
    with engine.connect() as connection:
        asked = text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = :role)")
        return bool(connection.execute(asked, {"role": ROLE}).scalar())


def test_too_many_connections_are_waited_out_and_named(limited: str, quick: None, engine: Engine) -> None:
    own = connect(limited)
    own.dispose()
    wait_for(lambda: not _connected(engine))
    with psycopg.connect(limited.replace("postgresql+psycopg", "postgresql")):
        with pytest.raises(DatabaseUnavailableError, match="too many connections for role"):
            transact(own, lambda c: c.execute(text("SELECT 1")).all())
        with pytest.raises(DatabaseUnavailableError, match="too many connections"):
            connect(limited)
    own.dispose()


def test_a_role_without_the_right_is_told_so_at_once(limited: str, quick: None) -> None:
    own = connect(limited)
    with pytest.raises(NotAllowedError, match=r"42501.*: the role may not do this; connect as the owner"):
        transact(own, lambda c: c.execute(text("SELECT count(*) FROM messages")).all())
    own.dispose()


@pytest.mark.parametrize(
    ("statement", "kind", "said"),
    [
        ("SELECT CAST('x' AS integer)", RowRefusedError, "22P02"),
        (r"""SELECT CAST('"\u0000"' AS jsonb)""", RowRefusedError, "22P05"),
        ("INSERT INTO rollup_state (until) VALUES (now())", RowRefusedError, "23505"),
        ("DO $$ BEGIN RAISE EXCEPTION 'the text of a row'; END $$", RowRefusedError, r"^((?!text of).)*P0001"),
        ("SELECT * FROM nowhere", SchemaError, "42P01.*run awry db upgrade"),
        ("SELECT nothing FROM messages", SchemaError, "42703.*run awry db upgrade"),
        ("SELEKT 1", StorageError, "42601"),
    ],
)
def test_what_does_not_pass_is_raised_at_once(
    engine: Engine, statement: str, kind: type[StorageError], said: str
) -> None:
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        connection.exec_driver_sql(statement)

    with pytest.raises(kind, match=said):
        transact(engine, work)
    assert len(tries) == 1


def test_statement_and_lock_timeouts_and_outages_are_told_apart(engine: Engine, quick: None) -> None:
    with pytest.raises(BusyError, match=r"a statement was ended again and again.*statement_timeout"):
        transact(engine, _cancelled)

    def waits(connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
        connection.execute(text("UPDATE rollup_state SET at = now()"))

    with engine.begin() as holding:
        holding.execute(text("SELECT 1 FROM rollup_state FOR UPDATE"))
        with pytest.raises(BusyError, match=r"were held by process .*lock_timeout"):
            transact(engine, waits)
    with pytest.raises(DatabaseUnavailableError, match="not reachable"):
        transact(engine, _ended)


def test_the_driver_knows_the_codes_of_the_table() -> None:
    for state in ("25006", "25P03", "55P03", "57014", "57P05"):
        assert lookup(state)
