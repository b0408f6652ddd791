"""`awry db` in processes of its own: partitions for the next days, and retention that says what went."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from storage.database import head_revision
from storage.partitions import ensure_days, partition_name, utc_today
from storage.schema import BY_DAY
from tests.conftest import url_of
from tests.storage.test_partitions import READ_AND_WRITE, batch, role
from tests.support.cli import awry, refused
from tests.support.rows import counts, partitions, write


@pytest.mark.slow
def test_upgrade_makes_the_next_days(empty_engine: Engine) -> None:
    before = utc_today()
    done = awry("db", "upgrade", "--database-url", url_of(empty_engine))
    assert (done.returncode, done.stderr) == (0, f"awry: the schema is at {head_revision()}\n")
    # Midnight may pass meanwhile.
    ahead = [{partition_name("scores", today + timedelta(days=n)) for n in range(8)} for today in (before, utc_today())]
    assert partitions(empty_engine, "scores") in ahead
    assert awry("db", "upgrade", "--database-url", url_of(empty_engine)).returncode == 0


@pytest.mark.slow
def test_retain_says_what_went(engine: Engine) -> None:
    today = utc_today()
    ensure_days(engine, [today - timedelta(days=5), today])
    for first, back in ((0, 5), (10, 0), (20, 1000)):
        write(engine, batch(2, today - timedelta(days=back), first=first))
    done = awry("db", "retain", "--days", "3", "--database-url", url_of(engine))
    assert done.returncode == 0, done.stderr
    name = partition_name("messages", today - timedelta(days=5))
    lines = done.stderr.splitlines()
    assert f"awry: dropped {name}: 2 rows" in lines
    assert "awry: deleted 2 rows of answers" in lines
    assert len(lines) == 2 * len(BY_DAY)
    assert counts(engine)["messages"] == 2
    assert partition_name("messages", utc_today() + timedelta(days=7)) in partitions(engine)
    again = awry("db", "retain", "--days", "3", "--database-url", url_of(engine))
    assert (again.returncode, again.stderr) == (0, "awry: nothing is older than 3 days\n")


@pytest.mark.parametrize("arguments", [("--days", "0"), ("--days", "-3"), ()])
def test_retain_wants_at_least_a_day(engine: Engine, arguments: tuple[str, ...]) -> None:
    write(engine, batch(1))
    done = awry("db", "retain", *arguments, "--database-url", url_of(engine))
    assert done.returncode == 2
    assert "--days" in done.stderr
    assert counts(engine)["messages"] == 1


def test_retain_needs_the_schema(empty_engine: Engine) -> None:
    line = refused(awry("db", "retain", "--days", "3", "--database-url", url_of(empty_engine)))
    assert "run awry db upgrade" in line


def test_retain_by_a_role_that_may_not(engine: Engine) -> None:
    ensure_days(engine, [utc_today() - timedelta(days=5)])
    with role(engine, READ_AND_WRITE, "SELECT ON alembic_version") as worker:
        line = refused(awry("db", "retain", "--days", "3", "--database-url", url_of(worker)))
    assert line == "awry: database: the role may not create and drop tables; use the tables' owner"
    assert len(partitions(engine)) == 1


def test_unreachable_database() -> None:
    line = refused(awry("run", "--database-url", "postgresql://u:geheim@127.0.0.1:1/x"))
    assert line.startswith("awry: database_url: cannot reach postgresql+psycopg://u:***@127.0.0.1:1/x")
    assert "geheim" not in line


@pytest.mark.slow
def test_a_schema_that_is_behind(empty_engine: Engine) -> None:
    assert "run awry db upgrade" in refused(awry("alerts", "--database-url", url_of(empty_engine)))
    done = awry("db", "upgrade", "--database-url", url_of(empty_engine))
    assert (done.returncode, done.stderr) == (0, f"awry: the schema is at {head_revision()}\n")
    assert awry("alerts", "--database-url", url_of(empty_engine)).returncode == 0
