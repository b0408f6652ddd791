"""To schema 0009 and back from a filled database; indexes are built while others write, also after a stopped build."""

from __future__ import annotations

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from storage import database
from storage.database import upgrade
from storage.index_builds import build_indexes, missing_indexes
from storage.partitions import utc_today
from storage.upgrade_plan import pending
from tests.storage.test_database import differences
from tests.storage.test_migrations import contents, fill, migrate

NEW = (
    "ix_messages_user_id_ingested_at",
    "ix_messages_ingested_at",
    "ix_messages_status_ingested_at",
    "ix_scores_probe_score",
)
_INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"


def invalid(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text(_INVALID)).scalars())


def test_rows_stay_and_indexes_come(empty_engine: Engine) -> None:
    migrate(empty_engine, "0001")
    fill(empty_engine, [utc_today()] * 3)
    migrate(empty_engine, "0008")
    before = contents(empty_engine)
    migrate(empty_engine, "0009")
    assert contents(empty_engine) == before
    assert invalid(empty_engine) == sorted(NEW)
    migrate(empty_engine, "0008", down=True)
    assert contents(empty_engine) == before
    assert invalid(empty_engine) == []
    upgrade(empty_engine)
    assert invalid(empty_engine) == []
    assert differences(empty_engine) == []


def test_a_stopped_build_is_taken_up(empty_engine: Engine) -> None:
    migrate(empty_engine, "head")
    with empty_engine.connect() as connection:
        missing = missing_indexes(connection)
    assert sorted(missing) == sorted((name, f"{name.split('_')[1]}_default") for name in NEW)
    # One that was built and not attached.
    with empty_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text('CREATE INDEX "scores_default_scores_probe_score" ON scores_default (probe, score)'))
    assert build_indexes(empty_engine) == 4
    assert build_indexes(empty_engine) == 0
    assert invalid(empty_engine) == []


def test_a_build_lets_others_write(empty_engine: Engine) -> None:
    """It waits for a writer, and the writer does not wait for it."""
    import threading

    migrate(empty_engine, "head")
    row = (
        'INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, status) '
        "VALUES ('t', 0, {}, 0, 's', '2026-03-01', 'scored')"
    )
    with empty_engine.begin() as connection:
        connection.execute(text(row.format(1)))
        thread = threading.Thread(target=build_indexes, args=(empty_engine,))
        thread.start()
        with empty_engine.begin() as other:
            other.execute(text(row.format(2)))
    thread.join(60)
    assert not thread.is_alive()
    assert invalid(empty_engine) == []


def test_the_plan_of_an_upgrade(empty_engine: Engine) -> None:
    steps = pending(empty_engine)
    assert [step.revision for step in steps][:2] == ["0001", "0002"]
    assert steps[-1].revision == database.head_revision()
    migrate(empty_engine, "0008")
    assert next(step.revision for step in pending(empty_engine)) == "0009"
    upgrade(empty_engine)
    assert pending(empty_engine) == []


@pytest.mark.parametrize("script", list(ScriptDirectory.from_config(database.migrations()).walk_revisions()))
def test_every_migration_says_what_it_locks(script: object) -> None:
    assert getattr(script.module, "PLAN", "")  # type: ignore[attr-defined]
