"""`awry db`: partitions for the next days, retention that says what went, and a scrub of attributes."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from storage import scrub
from storage.database import head_revision
from storage.partitions import ensure_days, partition_name, utc_today
from storage.schema import BY_DAY
from storage.writer import BatchRows
from tests.conftest import url_of
from tests.storage.test_partitions import READ_AND_WRITE, batch, role
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.cli import Invoke, awry, message_of, refused
from tests.support.rows import counts, dump, message, partitions, write


@pytest.mark.slow
def test_upgrade_makes_the_next_days(empty_engine: Engine) -> None:
    before = utc_today()
    done = awry("db", "upgrade", "--database-url", url_of(empty_engine))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, f"awry: the schema is at {head_revision()}")
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
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, f"awry: the schema is at {head_revision()}")
    assert awry("alerts", "--database-url", url_of(empty_engine)).returncode == 0


# Attributes of before the allow-list.

OLD = {"system": "CANARYTEXT", "traceparent": "00-aa-bb-01"}


def audited(engine: Engine) -> list[Any]:
    return [(row.action, row.who, row.after) for row in audit_rows(engine)]


def test_scrub_says_what_it_takes_out(engine: Engine, run: Invoke) -> None:
    today = utc_today()
    rows = [message(n, day=today - timedelta(days=n % 2), attributes=OLD) for n in range(5)]
    write(engine, BatchRows([*rows, message(9, day=today, attributes={"seed": 1})]))
    dry = run("db", "scrub", "--dry-run")
    assert dry.exit_code == 0, dry.exception
    assert f"awry: {today}: 3 of 4 rows would be scrubbed" in dry.stderr.splitlines()
    assert dry.stderr.splitlines()[-1] == "awry: 5 rows would be scrubbed"
    assert "CANARYTEXT" in dump(engine)
    assert audited(engine) == []
    done = run("db", "scrub", "--as", "anna", "--until-day", str(today - timedelta(days=1)))
    assert done.exit_code == 0, done.exception
    assert f"awry: {today - timedelta(days=1)}: 2 of 2 rows scrubbed" in done.stderr.splitlines()
    asked: dict[str, Any] = {"since": None, "until": str(today - timedelta(days=1)), "keep": [], "all": False}
    assert audited(engine) == [
        ("scrub.start", "anna", asked),
        ("scrub.end", "anna", asked | {"rows": 2, "finished": True}),
    ]
    run("db", "scrub", "--keep-key", "mine")
    assert "CANARYTEXT" not in dump(engine)
    assert "00-aa-bb-01" in dump(engine)
    assert audited(engine)[-1][2]["keep"] == ["mine"]
    again = run("db", "scrub")
    assert again.stderr == "awry: 0 rows scrubbed\n"


def test_scrub_leaves_rows_with_text(engine: Engine, run: Invoke) -> None:
    write(engine, BatchRows([message(1, day=utc_today(), text={"messages": []}, attributes=OLD)]))
    assert run("db", "scrub").stderr == "awry: 0 rows scrubbed\n"
    assert "CANARYTEXT" in dump(engine)
    assert "awry: 1 rows scrubbed" in run("db", "scrub", "--all").stderr
    assert "CANARYTEXT" not in dump(engine)


def test_an_interrupted_scrub_says_where_to_go_on(engine: Engine, run: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [utc_today() - timedelta(days=n) for n in (3, 2, 1)]
    write(engine, BatchRows([message(n, day=day, attributes=OLD) for n, day in enumerate(days)]))
    real = scrub._scrub_day

    def interrupted(engine: Engine, day: date, *arguments: Any, **more: Any) -> Any:
        if day == days[2]:
            raise KeyboardInterrupt
        return real(engine, day, *arguments, **more)

    monkeypatch.setattr(scrub, "_scrub_day", interrupted)
    stopped = run("db", "scrub")
    assert stopped.exit_code != 0
    assert f"awry: not finished; go on with --since-day {days[1]}" in stopped.stderr.splitlines()
    assert audited(engine)[-1][0] == "scrub.end"
    assert audited(engine)[-1][2] | {"rows": 2, "finished": False} == audited(engine)[-1][2]
    monkeypatch.undo()
    monkeypatch.setenv("AWRY_DATABASE_URL", url_of(engine))
    assert "awry: 1 rows scrubbed" in run("db", "scrub", "--since-day", str(days[1])).stderr
    assert "CANARYTEXT" not in dump(engine)


@pytest.mark.parametrize("arguments", [("--since-day", "yesterday"), ("--until-day", "2026-13-01"), ("--keep-key",)])
def test_scrub_takes_days(engine: Engine, run: Invoke, arguments: tuple[str, ...]) -> None:
    write(engine, BatchRows([message(1, day=utc_today(), attributes=OLD)]))
    assert run("db", "scrub", *arguments).exit_code == 2
    assert "CANARYTEXT" in dump(engine)


def test_scrub_needs_the_schema(empty_engine: Engine, run: Invoke) -> None:
    done = run("db", "scrub", "--database-url", url_of(empty_engine))
    assert "run awry db upgrade" in message_of(done)


def test_upgrade_says_how_many_rows_need_a_scrub(engine: Engine, run: Invoke) -> None:
    quiet = run("db", "upgrade")
    assert quiet.stderr == f"awry: the schema is at {head_revision()}\n"
    write(engine, BatchRows([message(n, day=utc_today(), attributes=OLD) for n in range(3)]))
    said = run("db", "upgrade").stderr
    assert (
        "awry: 3 messages hold attributes that are not on the allow-list, maybe text: awry db scrub takes them" in said
    )
    assert "CANARYTEXT" not in said
    run("db", "scrub")
    assert run("db", "upgrade").stderr == quiet.stderr


def test_keys_that_the_settings_keep_need_none(engine: Engine, run: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_ATTRIBUTE_KEYS", '["system"]')
    write(engine, BatchRows([message(1, day=utc_today(), attributes=OLD)]))
    assert "scrub" not in run("db", "upgrade").stderr
    assert run("db", "scrub").stderr == "awry: 0 rows scrubbed\n"
    assert "CANARYTEXT" in dump(engine)
