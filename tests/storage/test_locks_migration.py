"""From the schema before locks were rows of a table, filled, and back."""

from __future__ import annotations

from sqlalchemy import Engine, text

from storage.locks import SharedLock, try_lock
from storage.partitions import utc_today
from tests.storage.test_migrations import contents, fill, migrate

MAY_MAKE_TEMPORARY_TABLES = "SELECT has_database_privilege('pg_monitor', current_database(), 'TEMPORARY')"


def test_locks_come_and_go_and_every_row_stays(empty_engine: Engine) -> None:
    migrate(empty_engine, "0001")
    fill(empty_engine, [utc_today()] * 3)
    migrate(empty_engine, "0010")
    before = contents(empty_engine)
    with empty_engine.connect() as connection:
        assert connection.execute(text(MAY_MAKE_TEMPORARY_TABLES)).scalar() is True
    migrate(empty_engine, "0011")
    assert contents(empty_engine) == before
    with empty_engine.begin() as connection:
        assert all(try_lock(connection, each) for each in SharedLock)
        assert connection.execute(text(MAY_MAKE_TEMPORARY_TABLES)).scalar() is False
    migrate(empty_engine, "0010", down=True)
    assert contents(empty_engine) == before
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT to_regclass('locks')")).scalar() is None
    migrate(empty_engine, "0013")
    assert contents(empty_engine) == before
