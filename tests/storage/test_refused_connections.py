"""A server that does not let awry in: an error at once at the start, waited out while a process runs."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, Engine, text

from storage import database
from storage.database import connect, transact
from storage.errors import DatabaseUnavailableError
from storage.sqlstate import state_of

PASSWORD = "right"


def administer(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture
def url(engine: Engine) -> Iterator[URL]:
    """Of a role that the server asks for its password."""
    name = f"guarded_{uuid.uuid4().hex[:8]}"
    administer(engine, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    with engine.connect() as connection:
        rules = Path(str(connection.execute(text("SHOW hba_file")).scalar_one()))
    before = rules.read_text()
    rules.write_text(f"local all {name} scram-sha-256\nlocal all {name}_out reject\n{before}")
    administer(engine, "SELECT pg_reload_conf()")
    try:
        yield engine.url.set(username=name, password=PASSWORD)
    finally:
        rules.write_text(before)
        administer(engine, "SELECT pg_reload_conf()", f"DROP ROLE {name}")


def written(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def ask(connection: Connection) -> int:
    return int(connection.execute(text("SELECT 7")).scalar_one())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "geheim"}, "SQLSTATE 28P01: wrong password: check user and password in database_url"),
        ({"password": None}, "SQLSTATE 28P01: wrong password"),
        ({"username": "nobody_at_all"}, "SQLSTATE 28000: the server does not let this user in: check user, password"),
        ({"username": "@_out"}, r"SQLSTATE 28000: .* check user, password and pg_hba\.conf"),
        ({"database": "nowhere"}, "SQLSTATE 3D000: there is no such database: check its name in database_url"),
    ],
)
def test_at_the_start_it_is_an_error_at_once_with_what_to_check(
    url: URL, changes: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.time.sleep", lambda _: pytest.fail("nothing is waited for"))
    if changes.get("username") == "@_out":
        changes = {"username": f"{url.username}_out"}
    wrong = URL.create(**{**url._asdict(), **changes})
    with pytest.raises(DatabaseUnavailableError, match=f"^database_url: cannot reach .*{said}") as refused:
        connect(written(wrong))
    assert "geheim" not in str(refused.value)


def test_a_password_that_is_being_changed_is_waited_for(
    url: URL, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = connect(written(url))
    own.dispose()
    administer(engine, f"ALTER ROLE {url.username} PASSWORD 'another'")
    waits: list[float] = []

    def until_it_is_changed_back(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            administer(engine, f"ALTER ROLE {url.username} PASSWORD '{PASSWORD}'")

    monkeypatch.setattr("storage.database.time.sleep", until_it_is_changed_back)
    with caplog.at_level(logging.WARNING, "awry"):
        assert transact(own, ask) == 7
    assert len(waits) == 2
    assert all("SQLSTATE 28P01: wrong password" in said and "run again" in said for said in caplog.messages)
    own.dispose()


@pytest.mark.parametrize(("fault", "state"), [("PASSWORD 'another'", "28P01"), ("NOLOGIN", "28000")])
def test_in_the_end_it_stops_with_the_code(
    url: URL, engine: Engine, monkeypatch: pytest.MonkeyPatch, fault: str, state: str
) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01, 0.01))
    own = connect(written(url))
    own.dispose()
    administer(engine, f"ALTER ROLE {url.username} {fault}")
    with pytest.raises(
        DatabaseUnavailableError, match=f"refused every connection for .*SQLSTATE {state}: .*check user"
    ):
        transact(own, ask)
    own.dispose()


def test_a_database_that_is_gone_stops_with_the_code(url: URL, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_RETRY_SECONDS", (0.01,))
    name = f"gone_{uuid.uuid4().hex[:8]}"
    administer(engine, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    own = connect(written(url.set(database=name)))
    own.dispose()
    administer(engine, f"DROP DATABASE {name}")
    with pytest.raises(DatabaseUnavailableError, match=r"refused every connection .*SQLSTATE 3D000"):
        transact(own, ask)
    own.dispose()


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ('FATAL:  password authentication failed for user "a"', "28P01"),
        ("FATAL:  no such database: b", "3D000"),  # PgBouncer
        ("FATAL:  SASL authentication failed", "28P01"),  # PgBouncer
        ('FATAL:  no pg_hba.conf entry for host "::1", user "a", database "b", no encryption', "28000"),
        ('FATAL:  Peer authentication failed for user "a"', "28000"),
        ("connection refused", None),
        ("FATAL:  the database system is starting up", None),
        ('FATAL:  too many connections for role "a"', None),
    ],
)
def test_the_code_of_a_refusal_by_its_words(said: str, state: str | None) -> None:
    assert state_of(said) == state
