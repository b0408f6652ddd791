"""Wrong secrets: what they cost, what they leave behind, and that they keep nobody else out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, event

from monitor.telemetry.metrics import REGISTRY
from monitor.web.auth import live
from monitor.web.auth.authenticate import Authenticator, RetryLater
from monitor.web.auth.live import LiveSecrets
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.tokens import Principal, secret_digest
from tests.support.web.api import expire, revoke, token
from tests.support.web.pages import session

ADDRESS = "10.0.0.7"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusals(reason: str) -> float:
    return REGISTRY.get_sample_value("awry_access_refused_total", {"reason": reason}) or 0.0


def test_what_is_good_is_known_within_a_moment(engine: Engine) -> None:
    clock = Clock()
    known = LiveSecrets(engine, clock)
    first = token(engine, "first")
    assert known.knows(secret_digest(first))
    second = token(engine, "second")
    assert not known.knows(secret_digest(second))
    clock.now += live.REFRESH_SECONDS
    assert known.knows(secret_digest(second))
    assert known.knows(secret_digest(session(engine, second))) is False
    clock.now += live.REFRESH_SECONDS
    signed_in = session(engine, second)
    assert known.knows(secret_digest(signed_in))
    revoke(engine, "first")
    expire(engine, "second")
    clock.now += live.REFRESH_SECONDS
    assert not known.knows(b"x" * 32)  # looked again
    assert not known.knows(secret_digest(first))
    assert not known.knows(secret_digest(second))


def test_a_flood_of_wrong_secrets_costs_a_query_a_second(engine: Engine) -> None:
    clock, queries = Clock(), []
    known = LiveSecrets(engine, clock)
    event.listen(engine, "before_cursor_execute", lambda *sent: queries.append(sent[2]))
    for n in range(1000):
        assert not known.knows(secret_digest(f"awry_{n}"))
    assert len(queries) == 1


def test_neighbours_who_guess_keep_no_good_token_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REFRESH_SECONDS", 0.0)
    authenticator = Authenticator(engine, Limiter(failures=2))
    before = refusals("wrong"), refusals("blocked")
    for n in range(6):
        authenticator.authenticate(f"awry_{n}", ADDRESS)
    assert isinstance(authenticator.authenticate("awry_x", ADDRESS), RetryLater)
    assert (refusals("wrong") - before[0], refusals("blocked") - before[1]) == (2.0, 5.0)
    new = token(engine, "new")
    assert isinstance(authenticator.authenticate(new, ADDRESS), Principal)
    assert isinstance(authenticator.session(session(engine, new), ADDRESS), Principal)
    # Which is no way to guess on: a revoked one is wrong again.
    revoke(engine, "new")
    assert isinstance(authenticator.authenticate(new, ADDRESS), RetryLater)


def test_a_wrong_token_leaves_a_line_without_it(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    secret = "awry_" + "5" * 64
    with caplog.at_level("WARNING", "awry.access"):
        Authenticator(engine, Limiter(failures=1)).authenticate(secret, ADDRESS)
    (line,) = (record.getMessage() for record in caplog.records)
    assert ADDRESS in line
    assert secret_digest(secret).hex()[:8] in line
    assert secret_digest(secret).hex()[:9] not in line
    assert "55555" not in line


def test_a_flood_does_not_fill_the_log(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    authenticator = Authenticator(engine, Limiter(failures=5))
    with caplog.at_level("WARNING", "awry.access"):
        for n in range(200):
            authenticator.authenticate(f"awry_{n}", ADDRESS)
    assert len(caplog.records) == 5


def test_a_token_that_only_sends_opens_nothing(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    before = refusals("scope")
    assert Authenticator(engine, Limiter()).authenticate(token(engine, "gateway", "ingest"), ADDRESS) is None
    assert refusals("scope") == before + 1


def test_a_session_outlives_neither_its_token_nor_its_time(engine: Engine) -> None:
    authenticator = Authenticator(engine, Limiter())
    secret = token(engine, "anna", lasting=timedelta(hours=1))
    signed_in = session(engine, secret)
    found = authenticator.session(signed_in, ADDRESS)
    assert isinstance(found, Principal)
    # Of the session's twelve hours and the token's one.
    assert 3500 < found.seconds_left <= 3600
    expire(engine, "anna")
    assert authenticator.session(signed_in, ADDRESS) is None
