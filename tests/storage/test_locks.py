"""Locks between processes of awry: they exclude each other, and nobody who only reads can take one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from alerts.errors import TransitionError
from alerts.lifecycle import silences
from storage import database
from storage.database import connect, transact, upgrade
from storage.errors import BusyError
from storage.locks import SharedLock, delete_unused, lock, lock_names, try_lock
from storage.rollup import roll_up
from storage.sources import lock_streams
from storage.writer import BatchRows, register_probe
from tests.conftest import url_of
from tests.support.at_once import at_once
from tests.support.rows import digest_of, message, score, wait_until_blocked, write

# Of the tables that dashboards read, and of the one that only awry may touch.
READER = "awry_holding_reader"


@pytest.fixture
def reader(engine: Engine) -> Iterator[Engine]:
    """As the dashboards' role: it may read what awry_reader may."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP ROLE IF EXISTS {READER}"))
        connection.execute(text(f"CREATE ROLE {READER} LOGIN IN ROLE awry_reader"))
    made = connect(make_url(url_of(engine)).set(username=READER).render_as_string(hide_password=False))
    yield made
    made.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP ROLE {READER}"))


@contextmanager
def held_by(engine: Engine, *statements: str) -> Iterator[Connection]:
    """A transaction that stays open after these statements."""
    with engine.connect() as connection:
        for statement in ("SET idle_in_transaction_session_timeout = 0", *statements):
            connection.execute(text(statement))
        yield connection


def test_released_numbers_never_change() -> None:
    released = {"PARTITIONS": 0x41575250, "RULES": 0x41575252, "SOURCES": 0x41575253, "ROLLUP": 0x41575255}
    assert released.items() <= {each.name: each.value for each in SharedLock}.items()


def test_the_migration_makes_a_row_for_each(engine: Engine) -> None:
    with engine.connect() as connection:
        assert set(connection.execute(text("SELECT key FROM locks")).scalars()) == set(SharedLock)


@pytest.mark.parametrize("kept", [True, False], ids=["as migrated", "emptied"])
def test_one_at_a_time(engine: Engine, kept: bool) -> None:
    if not kept:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM locks"))
    with engine.begin() as one, engine.begin() as other:
        assert try_lock(one, SharedLock.RULES)
        if kept:  # else the other one waits until the first has made the row
            assert not try_lock(other, SharedLock.RULES)
        assert try_lock(other, SharedLock.ROLLUP)
    with engine.begin() as other:
        assert try_lock(other, SharedLock.RULES)


def test_names_in_any_order_are_held_until_the_transaction_ends(engine: Engine) -> None:
    """Each of eight adds to a number that it read before: without the locks, some would be lost."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counted (n int); INSERT INTO counted VALUES (0)"))
    names = [("awry a", 0), ("awry a", 1), ("awry b", 0)]

    def add(turn: int) -> None:
        with engine.begin() as connection:
            lock_names(connection, names if turn % 2 else names[::-1])
            n = connection.execute(text("SELECT n FROM counted")).scalar_one()
            connection.execute(text("UPDATE counted SET n = :n"), {"n": n + 1})

    assert at_once([partial(add, turn) for turn in range(8)]) == [None] * 8
    with engine.connect() as connection:
        assert connection.execute(text("SELECT n FROM counted")).scalar_one() == 8


def test_unused_names_are_deleted_and_held_ones_stay(engine: Engine) -> None:
    with engine.begin() as connection:
        lock_names(connection, [("gone", 0)])
    with engine.begin() as holding:
        lock_names(holding, [("held", 0)])
        with engine.begin() as connection:
            assert delete_unused(connection) == 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM locks")).scalar_one() == len(SharedLock) + 1


def test_whoever_waits_for_a_name_that_is_deleted_gets_it(engine: Engine) -> None:
    with engine.begin() as connection:
        lock_names(connection, [("x", 0)])
    got = []

    def wait() -> None:
        with engine.begin() as connection:
            lock_names(connection, [("x", 0)])
            got.append(True)

    with engine.begin() as holding:
        holding.execute(text("DELETE FROM locks WHERE key = hashtextextended('x', 0)"))
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until_blocked(engine)
    thread.join(20)
    assert got


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT key FROM locks FOR UPDATE",
        "SELECT key FROM locks FOR KEY SHARE",
        "LOCK TABLE locks IN ACCESS SHARE MODE",
        "LOCK TABLE silences IN ROW SHARE MODE",
        "LOCK TABLE alembic_version IN ACCESS SHARE MODE",
        "SELECT 1 FROM alerts FOR KEY SHARE",
        "SELECT 1 FROM destinations FOR KEY SHARE",
        "SELECT 1 FROM rollup_state FOR KEY SHARE",
    ],
)
def test_who_may_only_read_can_lock_nothing(reader: Engine, engine: Engine, statement: str) -> None:
    with reader.connect() as connection, pytest.raises(DBAPIError, match="permission denied"):
        connection.execute(text(statement))
    with engine.connect() as connection:
        connection.execute(text(statement))  # the statement itself is right


def test_a_reader_that_holds_every_advisory_lock_and_every_table_stops_nobody(reader: Engine, engine: Engine) -> None:
    """What a person with the dashboards' password can do: take all locks that are open to all, and read for long."""
    advisory = [
        "SELECT pg_advisory_lock(hashtextextended('awry topic', 0))",
        *(f"SELECT pg_advisory_lock({0x41575250 + n})" for n in range(16)),
    ]
    tables = [f"TABLE {name}" for name in ("messages", "scores", "alerts", "silences", "outbox")]
    write(engine, BatchRows([message(0)], [score(0)]))
    with engine.begin() as connection:
        register_probe(connection, digest_of("drift"), "drift", 1, "h", {})
    with held_by(reader, *advisory, *tables):
        with engine.begin() as connection:
            connection.execute(text("UPDATE scores SET created_at = now() - interval '1 minute'"))
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '2s'"))
            lock_streams(connection, [("topic", 0)])
            lock(connection, SharedLock.SOURCES)
            lock(connection, SharedLock.PARTITIONS)
            assert silences.lock_for_opening(connection) == []
        with engine.begin() as connection:
            silences.lock_for_silencing(connection)
            assert try_lock(connection, SharedLock.RULES)
        write(engine, BatchRows([message(1)], [score(1)]))
        # Its snapshot is older than the score: a transaction that can write none holds no roll-up back.
        assert roll_up(engine) == 1


def test_an_upgrade_that_a_reader_holds_up_gives_up_and_says_who(
    reader: Engine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading alone is in the way of a change of the table: everybody would queue behind the one that waits."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 1)
    config = database.migrations()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0005")
    with held_by(reader, "SELECT count(*) FROM messages") as holding:
        pid = holding.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with pytest.raises(BusyError, match=rf"held by process {pid} of {READER} \(awry\).*nothing was changed"):
            upgrade(engine)
    upgrade(engine)


def test_the_error_after_waiting_for_a_lock_says_who_holds_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01,))
    other = connect(url_of(engine))

    def work(connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
        lock_names(connection, [("x", 0)])

    with other.begin() as holding:
        lock_names(holding, [("x", 0)])
        pid = holding.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with pytest.raises(BusyError, match=rf"held by process {pid} of postgres \(.*\) for .*SQLSTATE 55P03"):
            transact(engine, work)
    other.dispose()
    assert "a lock was not to be had within lock_timeout; the transaction is run again" in caplog.text


def test_a_silence_waits_for_a_worker_that_opens_alerts_and_for_no_longer_than_it_says(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silences, "_LOCK_SECONDS", 1)
    with engine.begin() as one, engine.begin() as other:
        silences.lock_for_opening(one)
        silences.lock_for_opening(other)  # workers open alerts side by side
        with engine.begin() as third, pytest.raises(TransitionError, match="try again"):
            silences.lock_for_silencing(third)
