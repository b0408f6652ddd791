"""A database password never needs to be a flag: libpq's ways work, and a flag that holds one is warned of."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, text

from monitor.cli.flag_secrets import has_password
from tests.support.cli import awry, invoke, refused

PASSWORD = "geheim:\\word"  # both characters are escaped in a passfile


@dataclass(frozen=True)
class Guarded:
    """A database whose server asks its owner for a password."""

    url: URL

    @property
    def without(self) -> str:
        parts = self.url
        bare = URL.create("postgresql", parts.username, None, parts.host, parts.port, parts.database, parts.query)
        return bare.render_as_string()

    @property
    def whole(self) -> str:
        return self.url.render_as_string(hide_password=False)


@pytest.fixture
def guarded(engine: Engine) -> Iterator[Guarded]:
    name = f"guarded_{uuid.uuid4().hex[:8]}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET password_encryption = 'scram-sha-256'"))
        connection.execute(text(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{PASSWORD}'"))
        rules = Path(str(connection.execute(text("SHOW hba_file")).scalar_one()))
        before = rules.read_text()
        rules.write_text(f"local all {name} scram-sha-256\n{before}")
        connection.execute(text("SELECT pg_reload_conf()"))
        try:
            yield Guarded(engine.url.set(drivername="postgresql", username=name, password=PASSWORD))
        finally:
            rules.write_text(before)
            connection.execute(text("SELECT pg_reload_conf()"))
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))


def passfile(folder: Path) -> Path:
    path = folder / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    path.write_text(f"*:*:*:*:{escaped}\n")
    path.chmod(0o600)
    return path


def test_without_a_password_the_server_refuses(guarded: Guarded) -> None:
    assert "password" in refused(awry("db", "upgrade", "--database-url", guarded.without))


@pytest.mark.parametrize("way", ["PGPASSFILE", "PGPASSWORD", "AWRY_DATABASE_URL_FILE"])
def test_ways_without_a_flag(guarded: Guarded, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags: tuple[str, ...] = ("--database-url", guarded.without)
    if way == "AWRY_DATABASE_URL_FILE":
        (tmp_path / "url").write_text(guarded.whole)
        monkeypatch.setenv(way, str(tmp_path / "url"))
        flags = ()
    else:
        monkeypatch.setenv(way, PASSWORD if way == "PGPASSWORD" else str(passfile(tmp_path)))
    done = awry("db", "upgrade", *flags)
    assert done.returncode == 0, done.stderr
    assert "ps" not in done.stderr.split()
    assert "arguments" not in done.stderr
    shell = awry("db", "psql", "-c", "SELECT 6 * 7", *flags)
    assert "42" in shell.stdout, shell.stderr
    several = awry("db", "psql", "-c", "SELECT 6 * 7", "-c", "SELECT 6 * 8", *flags)
    assert "42" in several.stdout
    assert "48" in several.stdout


def test_a_flag_with_a_password_works_and_is_warned_of(guarded: Guarded) -> None:
    done = awry("db", "upgrade", "--database-url", guarded.whole)
    assert done.returncode == 0, done.stderr
    first = done.stderr.splitlines()[0]
    assert first.startswith("awry: a password is in this command's arguments")
    assert "PGPASSFILE" in first
    assert "AWRY_DATABASE_URL_FILE" in first
    assert "geheim" not in done.stderr


def test_the_shells_arguments_hold_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program in psql's place writes down what it is given."""
    (tmp_path / "psql").write_text(f'#!/bin/sh\necho "$@ with $PGPASSWORD" > {tmp_path}/given\n')
    (tmp_path / "psql").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for url in ("postgresql://u:geheim@h:5/d?sslmode=require", "postgresql://u@h:5/d?sslmode=require&password=geheim"):
        monkeypatch.setenv("AWRY_DATABASE_URL", url)
        assert invoke("db", "psql").exit_code == 0
        assert (tmp_path / "given").read_text() == "postgresql://u@h:5/d?sslmode=require with geheim\n"


def test_a_token_of_grafana_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    push = ("grafana", "push", "--url", "http://127.0.0.1:1", "--no-marks")
    flag = invoke(*push, "--token", "geheim")
    assert "GRAFANA_TOKEN" in flag.stderr
    assert "geheim" not in flag.stderr
    monkeypatch.setenv("GRAFANA_TOKEN", "geheim")
    assert "arguments" not in invoke(*push).stderr


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("postgresql://u:p@h/d", True),
        ("postgresql://u@h/d?password=p", True),
        ("postgresql://u@h/d?sslpassword=p", True),
        ("postgresql://u:@h/d", False),
        ("postgresql://u@h/d?host=/run", False),
        ("postgresql://[", False),
    ],
)
def test_what_holds_a_password(url: str, has: bool) -> None:
    assert has_password(url) is has


def test_no_error_holds_a_password_of_parameters() -> None:
    done = invoke("alerts", "list", "--database-url", "postgresql://u@127.0.0.1:1/d?password=geheim")
    assert "geheim" not in done.output + str(done.exception)
