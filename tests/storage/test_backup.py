"""A backup by PostgreSQL's own programs, read back into an empty database: rows, roles, policies, roll-ups."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from storage import schema
from storage.backup import BackupError, back_up, restore
from storage.database import check_schema
from storage.rollup import roll_up
from storage.tenant_access import missing, open_tables
from tests.storage.test_erase import fill
from tests.support.rows import dump, stored


def test_everything_comes_back(engine: Engine, empty_engine: Engine, tmp_path: Path) -> None:
    fill(engine)
    roll_up(engine)
    path = tmp_path / "awry.dump"
    rows = back_up(engine, path)
    assert rows["messages"] == 6
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
    assert restore(empty_engine, path) == {}
    check_schema(empty_engine)
    assert sorted(dump(empty_engine).splitlines()) == sorted(dump(engine).splitlines())
    # Rights of the readers' role, and policies of the tenants', are there; and sums go on.
    with empty_engine.connect() as connection:
        reads = "SELECT has_table_privilege('awry_reader', 'score_rollups', 'SELECT')"
        assert connection.execute(text(reads)).scalar_one()
        assert missing(connection) == ""
        assert open_tables(connection) == []
    with empty_engine.begin() as connection:
        connection.execute(text("UPDATE rollup_state SET until = '-infinity'"))
        connection.execute(text("UPDATE scores SET created_at = created_at - interval '1 hour'"))
    assert roll_up(empty_engine)
    assert stored(empty_engine, schema.score_rollups)


def test_what_cannot_be_restored(engine: Engine, empty_engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "awry.dump"
    back_up(engine, path)
    with pytest.raises(BackupError, match=r"^restore: the database has tables of awry's; give an empty one"):
        restore(engine, path)
    with pytest.raises(BackupError, match=r"none\.json is missing or no count of rows"):
        restore(empty_engine, tmp_path / "none")
    path.write_bytes(b"no archive")
    with pytest.raises(BackupError, match=r"^pg_restore: "):
        restore(empty_engine, path)
    with pytest.raises(BackupError, match=r"^backup: cannot write "):
        back_up(engine, tmp_path / "none" / "file")


def test_a_difference_is_told(engine: Engine, empty_engine: Engine, tmp_path: Path) -> None:
    fill(engine)
    path = tmp_path / "awry.dump"
    back_up(engine, path)
    told = tmp_path / "awry.dump.json"
    told.write_text(told.read_text().replace('"messages": 6', '"messages": 7'))
    assert restore(empty_engine, path) == {"messages": (7, 6)}
