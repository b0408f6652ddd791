"""deploy/postgres/roles.sql on a real PostgreSQL: awry owns its database, Grafana reads it and cannot write."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from monitor.cli.operations.db import wheel_psql
from storage.database import connect, head_revision, upgrade
from storage.partitions import ensure_ahead, utc_today
from storage.schema import metadata
from storage.writer import BatchRows
from tests.support import ROOT
from tests.support.embedded import embedded_postgres
from tests.support.rows import message
from tests.support.rows import write as write_rows

pytestmark = pytest.mark.slow

SQL = ROOT / "deploy" / "postgres" / "roles.sql"
# What a shell, psql or a URL would trip over, except in a URL's own way of writing it.
PASSWORD = 'it\'s \\a $HOME "pass" word:/@'


@pytest.fixture
def server(postgres_url: str) -> Iterator[str]:
    """The superuser's URL on a server where roles.sql was run; what it made is gone afterwards."""
    psql = wheel_psql()
    assert psql is not None
    address = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        # As the image's entry point does it.
        [psql, "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc", "-f", SQL, address],
        env={**os.environ, "DATABASE_PASSWORD": PASSWORD, "GRAFANA_DATABASE_PASSWORD": "reader"},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        assert done.returncode == 0, done.stderr
        yield postgres_url
    finally:
        engine = connect(postgres_url)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("DROP DATABASE IF EXISTS awry WITH (FORCE)"))
            for role in ("awry", "awry_grafana"):
                connection.execute(text(f"DROP ROLE IF EXISTS {role}"))
        engine.dispose()


def as_role(server: str, role: str, database: str = "awry") -> Engine:
    return connect(make_url(server).set(username=role, database=database).render_as_string(hide_password=False))


def test_awry_migrates_its_own_database_and_rules_no_other(server: str) -> None:
    engine = as_role(server, "awry")
    assert upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar() is False
        assert connection.execute(text("SELECT count(*) FROM messages")).scalar() == 0
    with pytest.raises(DBAPIError, match="permission denied"):
        write(engine, "CREATE ROLE another")
    engine.dispose()


def test_grafana_reads_what_awry_writes_later_and_cannot_write(server: str) -> None:
    owner, reader = as_role(server, "awry"), as_role(server, "awry_grafana")
    upgrade(owner)
    assert ensure_ahead(owner)
    write_rows(owner, BatchRows([message(7, day=utc_today())]))
    with reader.connect() as connection:
        # Of a partition that was made after the grant.
        assert connection.execute(text('SELECT "offset" FROM messages')).scalar_one() == 7
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "30s"
    for statement in ("DELETE FROM messages", "CREATE TABLE mine (n int)", "CREATE TEMPORARY TABLE mine (n int)"):
        with pytest.raises(DBAPIError, match="permission denied"):
            write(reader, statement)
        write(owner, statement)  # the statement itself is right
    owner.dispose()
    reader.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT lo_create(0)",
        "SELECT lo_creat(1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
        "SET temp_file_limit = -1",
        "CREATE TEMPORARY TABLE mine (n int)",
    ],
)
def test_what_no_setting_of_its_own_gives_back_to_grafana(server: str, statement: str) -> None:
    owner, reader = as_role(server, "awry"), as_role(server, "awry_grafana")
    upgrade(owner)
    with pytest.raises(DBAPIError, match="permission denied"):
        write(reader, statement)
    if "temp_file" not in statement:
        write(owner, statement)  # the statement itself is right
    with reader.connect() as connection:
        assert connection.execute(text("SHOW temp_file_limit")).scalar() == "1GB"
    owner.dispose()
    reader.dispose()


def test_grafana_reads_what_dashboards_need_and_nothing_that_lets_somebody_in(server: str) -> None:
    owner, reader = as_role(server, "awry"), as_role(server, "awry_grafana")
    upgrade(owner)
    with reader.connect() as connection:
        readable = set(
            connection.execute(
                text(
                    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
                    "AND relnamespace = 'public'::regnamespace AND has_table_privilege(oid, 'SELECT')"
                )
            ).scalars()
        )
    assert {"messages", "scores", "head_scores", "answers", "probes", "alerts", "score_rollups"} <= readable
    hidden = set(metadata.tables) - readable
    assert {"audit", "rule_states"} <= hidden
    assert not [name for name in readable if "token" in name or "audit" in name]
    with pytest.raises(DBAPIError, match="permission denied"), reader.connect() as connection:
        connection.execute(text("SELECT count(*) FROM audit"))
    owner.dispose()
    reader.dispose()


def test_where_awry_may_make_no_role_nothing_is_granted_and_all_else_is_there() -> None:
    """A server of its own: on the tests' server the role is there."""
    with embedded_postgres() as url:
        superuser = connect(url)
        with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE ROLE owner LOGIN"))
            connection.execute(text("CREATE DATABASE owned OWNER owner"))
        superuser.dispose()
        owner = as_role(url, "owner", "owned")
        assert upgrade(owner) == head_revision()
        with owner.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM pg_roles WHERE rolname = 'awry_reader'")).scalar() == 0
            assert connection.execute(text("SELECT count(*) FROM rollup_state")).scalar() == 1
        owner.dispose()


def write(engine: Engine, statement: str) -> None:
    """The role's read-only mode is a default that a session may leave; its rights are not."""
    with engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ WRITE"))
        connection.execute(text(statement))
        connection.rollback()


def test_the_password_is_what_the_environment_says(server: str) -> None:
    """The embedded server lets its own user in without one, so the stored hash is what tells."""
    engine = connect(server)
    with engine.connect() as connection:
        query = text("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'awry%'")
        hashes: dict[str, str] = {row.rolname: row.rolpassword for row in connection.execute(query)}
    engine.dispose()
    assert verifies(hashes["awry"], PASSWORD)
    assert verifies(hashes["awry_grafana"], "reader")
    assert not verifies(hashes["awry"], "reader")


def verifies(stored: str, password: str) -> bool:
    """Whether `password` makes this SCRAM-SHA-256 verifier (RFC 5803)."""
    from base64 import b64decode
    from hashlib import pbkdf2_hmac, sha256
    from hmac import digest

    mechanism, parameters, keys = stored.split("$")
    assert mechanism == "SCRAM-SHA-256"
    iterations, salt = parameters.split(":")
    salted = pbkdf2_hmac("sha256", password.encode(), b64decode(salt), int(iterations))
    client_key = digest(salted, b"Client Key", "sha256")
    return sha256(client_key).digest() == b64decode(keys.split(":")[0])


def test_no_other_role_of_the_server_connects(server: str) -> None:
    engine = connect(server)
    with engine.connect() as connection:
        allowed = connection.execute(text("SELECT has_database_privilege('pg_monitor', 'awry', 'CONNECT')")).scalar()
    engine.dispose()
    assert allowed is False
