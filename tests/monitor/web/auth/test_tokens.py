"""Tokens in the table: what is kept, for how long they are good, and who learns what."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitor.web.auth import tokens
from monitor.web.auth.tokens import Principal, TokenError
from storage.database import connect
from storage.partitions import utc_today
from storage.retention import retain
from storage.schema import api_tokens, audit
from tests.conftest import url_of
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.at_once import at_once
from tests.support.rows import dump, stored
from tests.support.web.api import DAY, expire, revoke, token


def found(engine: Engine, secret: str) -> Principal | None:
    with engine.begin() as connection:
        return tokens.find(connection, secret)


def listed(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return tokens.list_tokens(connection)


def test_a_secret_is_256_bits_and_nowhere_in_the_database(engine: Engine) -> None:
    secret, other = token(engine, "soar"), token(engine, "wall")
    assert re.fullmatch(r"awry_[0-9a-f]{64}", secret)
    assert secret != other
    kept = dump(engine)
    assert secret.removeprefix("awry_") not in kept
    assert hashlib.sha256(secret.encode()).hexdigest() in kept
    assert "secret_sha256" not in listed(engine)[0]


def test_who_holds_it(engine: Engine) -> None:
    reading, acting = found(engine, token(engine, "wall", "read")), found(engine, token(engine, "soar", "act"))
    assert reading is not None
    assert acting is not None
    assert (reading.name, reading.scope, reading.may_act) == ("wall", "read", False)
    assert (acting.name, acting.scope, acting.may_act) == ("soar", "act", True)


@pytest.mark.parametrize("wrong", ["", "awry_", "awry_" + "0" * 64, "\x00", "ä", "x" * 10_000])
def test_what_was_never_a_token(engine: Engine, wrong: str) -> None:
    token(engine)
    assert found(engine, wrong) is None


def test_part_of_a_secret_is_none(engine: Engine) -> None:
    secret = token(engine)
    for near in (secret[:-1], secret + "0", secret.upper(), secret.removeprefix("awry_"), f" {secret}"):
        assert found(engine, near) is None
    assert found(engine, secret) is not None


def test_expiry_is_by_the_databases_clock(engine: Engine) -> None:
    secret = token(engine, lasting=timedelta(hours=1))
    with engine.connect() as connection:
        left = connection.execute(text("SELECT extract(epoch FROM expires_at - now()) FROM api_tokens")).scalar_one()
    assert 3500 < left <= 3600
    expire(engine, "soar")
    assert found(engine, secret) is None
    assert [r["state"] for r in listed(engine)] == ["expired"]


def test_revoked_at_once(engine: Engine) -> None:
    secret = token(engine)
    assert found(engine, secret) is not None
    revoke(engine, "soar")
    assert found(engine, secret) is None
    assert [r["state"] for r in listed(engine)] == ["revoked"]
    with pytest.raises(TokenError, match="no live token has it"):
        revoke(engine, "soar")
    assert [r.action for r in audit_rows(engine)] == ["create token", "revoke token"]


def test_one_live_token_a_name(engine: Engine) -> None:
    first = token(engine)
    with pytest.raises(TokenError, match="soar is the name of a live token; revoke it"):
        token(engine)
    revoke(engine, "soar")
    second = token(engine)
    expire(engine, "soar")
    third = token(engine)
    assert [found(engine, s) is not None for s in (first, second, third)] == [False, False, True]
    assert [r["state"] for r in listed(engine)] == ["live", "expired", "revoked"]


def test_two_who_want_one_name_at_once(engine: Engine) -> None:
    others = [connect(url_of(engine)) for _ in range(4)]
    came = at_once([partial(token, own) for own in others])
    for other in others:
        other.dispose()
    assert sorted(type(x).__name__ for x in came) == ["TokenError"] * 3 + ["str"]
    assert len(audit_rows(engine)) == 1


@pytest.mark.parametrize(
    ("name", "scope", "lasting", "said"),
    [
        ("", "read", DAY, "name: use letters"),
        ("a b", "read", DAY, "name: use"),
        ("-a", "read", DAY, "name: use"),
        ("a\n", "read", DAY, "name: use"),
        ("a" * 64, "read", DAY, "63 of them at most"),
        ("ä", "read", DAY, "name: use"),
        ("a", "write", DAY, "scope: use one of read, act, ingest"),
        ("a", "read", timedelta(), "for: a token lasts from 1s to 366d"),
        ("a", "read", timedelta(days=367), "for: a token lasts"),
    ],
)
def test_mistakes_name_the_field(engine: Engine, name: str, scope: Any, lasting: timedelta, said: str) -> None:
    with pytest.raises(TokenError, match=said):
        token(engine, name, scope, lasting)
    assert stored(engine, api_tokens) == []


def test_its_audit_says_who_and_what_and_no_secret(engine: Engine) -> None:
    secret = token(engine, "soar", "act")
    revoke(engine, "soar")
    made, gone = audit_rows(engine)
    (row,) = stored(engine, api_tokens)
    assert (made.who, made.via, made.origin, made.token_id) == ("anna", "cli", "laptop", row["id"])
    assert made.after == {
        "name": "soar",
        "scope": "act",
        "expires_at": row["expires_at"].isoformat(timespec="seconds"),
    }
    assert (gone.token_id, gone.before) == (row["id"], {"name": "soar", "scope": "act"})
    assert secret not in dump(engine)


def test_the_last_use_is_kept_to_the_minute(engine: Engine) -> None:
    secret = token(engine)

    def last() -> Any:
        return listed(engine)[0]["last_used_at"]

    assert last() is None
    found(engine, secret)
    first = last()
    found(engine, secret)
    assert last() == first
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_tokens SET last_used_at = now() - interval '61 seconds'"))
    earlier = last()
    found(engine, secret)
    assert last() > earlier
    found(engine, "awry_" + "0" * 64)


def test_retention_keeps_tokens_and_their_audit(engine: Engine) -> None:
    token(engine, "soar")
    token(engine, "old")
    expire(engine, "old")
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit SET at = now() - interval '400 days'"))
        connection.execute(
            text("INSERT INTO audit (at, who, via, action) VALUES (now() - interval '9 days', 'x', 'cli', 'y')")
        )
    dropped = retain(engine, 3, utc_today())
    assert dropped.rows == {"audit": 1}
    assert len(stored(engine, api_tokens)) == 2
    assert [r["action"] for r in stored(engine, audit)] == ["create token"] * 2


def test_dashboards_cannot_read_tokens(engine: Engine) -> None:
    """Nor by a role that is its member: nothing is granted, to nobody."""
    with engine.connect() as connection:
        may = text("SELECT has_table_privilege('awry_reader', :name, 'SELECT, INSERT, UPDATE, DELETE')")
        assert connection.execute(may, {"name": "alerts"}).scalar_one() is True
        assert connection.execute(may, {"name": "api_tokens"}).scalar_one() is False
        columns = text("SELECT has_any_column_privilege('awry_reader', 'api_tokens', 'SELECT')")
        assert connection.execute(columns).scalar_one() is False
        public = text(
            "SELECT count(*) FROM information_schema.role_table_grants "
            "WHERE table_name = 'api_tokens' AND grantee <> current_user"
        )
        assert connection.execute(public).scalar_one() == 0
