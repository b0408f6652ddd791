"""Notifications of the database: with the commit or not at all, after a break again, and said where they are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, text

from storage import notify as module
from storage.database import connect
from storage.notify import notified, notify
from tests.support.pgbouncer import pgbouncer

SECONDS = 30.0


class Bell:
    """Counts, and waits for a count."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.rung = 0

    def __call__(self) -> None:
        with self._changed:
            self.rung += 1
            self._changed.notify_all()

    def wait(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.rung >= count, SECONDS)


@contextmanager
def listening(engine: Engine, said: Callable[[str], None] = print) -> Iterator[Bell]:
    bell = Bell()
    with notified(engine, bell, said):
        assert bell.wait(1), "once at the start"
        yield bell


def test_it_comes_with_the_commit_once_a_transaction_and_not_without_it(engine: Engine) -> None:
    with listening(engine) as bell:
        with engine.connect() as connection:
            transaction = connection.begin()
            notify(connection)
            transaction.rollback()
        before = bell.rung
        with engine.begin() as connection:
            notify(connection)
            notify(connection)
        assert bell.wait(before + 1)
        with engine.begin() as connection:
            notify(connection)
        assert bell.wait(before + 2)
        assert bell.rung == before + 2


def test_a_listener_whose_connection_breaks_listens_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.05)
    with listening(engine) as bell:
        before = bell.rung
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            killed = connection.execute(
                text(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query LIKE 'LISTEN %'"
                )
            ).scalar()
        assert killed == 1
        assert bell.wait(before + 1), "it may have missed something"
        with engine.begin() as connection:
            notify(connection)
        assert bell.wait(before + 2)


@pytest.mark.slow
def test_a_pooler_in_transaction_mode_is_found_out_and_said_once(engine: Engine) -> None:
    said: list[str] = []
    bell, told = Bell(), threading.Event()

    def say(line: str) -> None:
        said.append(line)
        told.set()

    with pgbouncer(engine) as url:
        pooled = connect(url)
        with notified(pooled, bell, say):
            assert told.wait(SECONDS) or bell.rung
        pooled.dispose()
    # PgBouncer lends one server connection to both where nobody else asks: then they arrive, and that is right too.
    assert len(said) <= 1
    assert bool(said) != bool(bell.rung)
    assert all("do not arrive" in line for line in said)
