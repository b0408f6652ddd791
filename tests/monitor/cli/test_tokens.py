"""`awry tokens` as people and scripts type it: the secret alone on standard output, once."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.web.api.app import make_api
from monitor.web.auth import tokens
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.cli import awry, loaded, refused
from tests.support.rows import dump
from tests.support.web.api import Client, expire


@pytest.fixture
def run(engine: Engine, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("AWRY_DATABASE_URL", postgres_database)
    monkeypatch.setenv("COLUMNS", "300")
    return CliRunner()


def test_the_secret_is_alone_on_standard_output_and_opens_the_api(engine: Engine, postgres_database: str) -> None:
    made = awry("tokens", "create", "soar", "--scope", "act", "--for", "30d", "--database-url", postgres_database)
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"awry_[0-9a-f]{64}\n", made.stdout)
    secret = made.stdout.strip()
    assert made.stderr.splitlines()[-1] == ("awry: token soar may act for 30d; keep the secret, it is shown this once")
    assert secret not in made.stderr + dump(engine)
    assert Client(make_api(engine), secret).get("/alerts") == {"alerts": [], "next": None}


def test_reading_for_ninety_days_unless_told_otherwise(engine: Engine, run: CliRunner) -> None:
    assert run.invoke(app, ["tokens", "create", "wall"]).exit_code == 0
    with engine.connect() as connection:
        (row,) = tokens.list_tokens(connection)
    assert (row["name"], row["scope"], row["state"]) == ("wall", "read", "live")
    assert (row["expires_at"] - row["created_at"]).days == 90


def test_a_token_of_one_tenant(engine: Engine, run: CliRunner) -> None:
    made = run.invoke(app, ["tokens", "create", "acme-soc", "--tenant", "acme"])
    assert made.exit_code == 0, made.output
    assert "token acme-soc may read of tenant acme for 90d" in made.output
    with engine.connect() as connection:
        (row,) = tokens.list_tokens(connection)
    assert (row["scope"], row["tenant"]) == ("read", "acme")
    assert audit_rows(engine)[0].after["tenant"] == "acme"
    assert "acme" in run.invoke(app, ["tokens", "list"]).stdout.splitlines()[1].split()[2]
    for more, why in ((["--scope", "ingest"], "a token of scope ingest has none"), (["--tenant", ""], "write it as")):
        again = run.invoke(app, ["tokens", "create", "other", "--tenant", "acme", *more])
        assert again.exit_code != 0
        assert why in str(again.exception) + again.output


def test_the_list_and_the_end(engine: Engine, run: CliRunner) -> None:
    for name in ("old", "soar", "wall"):
        run.invoke(app, ["tokens", "create", name, "--as", "an\x1b[2Jna"])
    expire(engine, "old")
    assert run.invoke(app, ["tokens", "revoke", "soar"]).exit_code == 0
    listed = run.invoke(app, ["tokens", "list"])
    assert listed.exit_code == 0
    states = {line.split()[0]: line.split()[2] for line in listed.stdout.splitlines()[1:]}
    assert states == {"wall": "live", "soar": "revoked", "old": "expired"}
    assert "\x1b[2J" not in listed.stdout
    assert "awry_" not in listed.stdout
    made = [(r.action, r.via) for r in audit_rows(engine)]
    assert made == [("create token", "cli")] * 3 + [("revoke token", "cli")]
    assert audit_rows(engine)[0].origin


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "a b"), "name: use letters, digits"),
        (("create", "a", "--for", "soon"), "for: 'soon' is no duration; write for example"),
        (("create", "a", "--for", "2000d"), "for: a token lasts from 1s to 366d"),
        (("create", "a", "--for", "0s"), "for: a token lasts from 1s"),
        (("create", "soar"), "name: soar is the name of a live token; revoke it, or choose another name"),
        (("revoke", "nobody"), "name: no live token has it; see awry tokens list"),
    ],
)
def test_mistakes_are_named_and_make_no_secret(run: CliRunner, arguments: tuple[str, ...], said: str) -> None:
    run.invoke(app, ["tokens", "create", "soar"])
    failed = run.invoke(app, ["tokens", *arguments])
    assert failed.exit_code == 1
    assert str(failed.exception).startswith(said)
    assert failed.stdout == ""


@pytest.mark.slow
def test_a_mistake_is_one_line_of_a_process(postgres_database: str) -> None:
    line = refused(awry("tokens", "revoke", "nobody", "--database-url", postgres_database))
    assert line == "awry: name: no live token has it; see awry tokens list"
    assert awry("tokens", "create", "a", "--scope", "write", "--database-url", postgres_database).returncode == 2


def test_help_needs_nothing_heavy() -> None:
    assert loaded(["tokens", "--help"]) == set()
    assert loaded(["tokens", "create", "--help"]) == set()
