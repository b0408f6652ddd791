"""What each transaction begins with, and which databases are refused at start."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, make_url, text

from storage.database import connect
from storage.errors import SchemaError
from tests.conftest import url_of

SHOWN = ("lock_timeout", "idle_in_transaction_session_timeout", "jit")


def shown(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [connection.execute(text(f"SHOW {name}")).scalar_one() for name in SHOWN]


def test_each_transaction_has_the_limits_and_the_session_keeps_none(engine: Engine) -> None:
    assert shown(engine) == ["10s", "30s", "off"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        left = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in SHOWN]
    assert left == ["0", "0", "on"]
    assert shown(engine) == ["10s", "30s", "off"]


def test_what_the_url_sets_is_left_as_it_is(engine: Engine) -> None:
    own = connect(url_of(engine) + "&options=-c%20lock_timeout%3D3s%20-c%20jit%3Don")
    assert shown(own) == ["3s", "30s", "on"]
    own.dispose()


def test_no_statement_is_prepared_in_a_session(engine: Engine) -> None:
    """A pooler in transaction mode gives the next transaction another session."""
    with engine.connect() as connection:
        for _ in range(20):
            connection.execute(text("SELECT count(*) FROM messages WHERE day = :day"), {"day": "2026-01-01"})
        assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() == 0


def test_text_arrives_whatever_encoding_the_environment_asks_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    own = connect(url_of(engine))
    with own.connect() as connection:
        assert connection.execute(text("SELECT CAST(:a AS text)"), {"a": "日本 🙂"}).scalar_one() == "日本 🙂"
    own.dispose()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_a_database_in_another_encoding_is_refused_with_the_line_that_makes_a_right_one(
    postgres_url: str, encoding: str
) -> None:
    name = f"encoded_{encoding.lower()}"
    server = connect(postgres_url)
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        )
        try:
            url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
            with pytest.raises(SchemaError, match=f"the encoding of {name} is {encoding}.*ENCODING 'UTF8'"):
                connect(url)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()
