"""Tokens that are remembered: for how long while the database answers, for how long while it is away."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text

from monitor.web.auth.authenticate import Authenticator, RetryLater
from monitor.web.auth.cache import AWAY_SECONDS, MAX_TOKENS, RECHECK_SECONDS, DatabaseAway, TokenCache
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.tokens import Principal
from tests.support.web.api import expire, revoke, token

ADDRESS = "10.0.0.7"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A TCP proxy before PostgreSQL: `close` cuts every connection and takes no more, `open` takes them again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pairs: list[socket.socket] = []
        self.is_open = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            self._pairs += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for each in (one, other):
            each.close()

    def close(self) -> None:
        self.is_open = False
        for each in self._pairs:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._pairs.clear()

    def open(self) -> None:
        self.is_open = True

    def end(self) -> None:
        self.close()
        self._listener.close()


@pytest.fixture
def gate(engine: Engine) -> Iterator[Gate]:
    with engine.connect() as connection:
        folder = connection.execute(text("SHOW unix_socket_directories")).scalar_one().split(",")[0]
        port = connection.execute(text("SHOW port")).scalar_one()
    made = Gate(f"{folder}/.s.PGSQL.{port}")
    yield made
    made.end()


@pytest.fixture
def gated(engine: Engine, gate: Gate) -> Engine:
    return create_engine(engine.url.set(host="127.0.0.1", port=gate.port).update_query_dict({"host": "127.0.0.1"}))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def within(cache: TokenCache, steps: Callable[[], Awaitable[None]]) -> None:
    try:
        asyncio.run(steps())  # type: ignore[arg-type]
    finally:
        cache.close()


def test_a_token_is_asked_for_once_in_a_while(engine: Engine, clock: Clock) -> None:
    secret = token(engine, "gateway", "ingest")
    cache = TokenCache(engine, Limiter(), keep_seconds=900, clock=clock)
    asked: list[str] = []
    event.listen(cache._engine, "before_cursor_execute", lambda *given: asked.append(given[2]))

    async def steps() -> None:
        for _ in range(5):
            found = await cache.authenticate(secret, ADDRESS)
            assert isinstance(found, Principal)
            assert (found.name, found.scope) == ("gateway", "ingest")
        assert sum("SELECT" in one for one in asked) == 1
        clock.now += RECHECK_SECONDS + 1
        await asyncio.gather(*(cache.authenticate(secret, ADDRESS) for _ in range(20)))
        assert sum("SELECT" in one for one in asked) == 2

    within(cache, steps)


def test_a_revoked_token_stops_in_time(engine: Engine, clock: Clock) -> None:
    secret = token(engine, "gateway", "ingest")
    cache = TokenCache(engine, Limiter(), keep_seconds=900, clock=clock)

    async def steps() -> None:
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        revoke(engine, "gateway")
        clock.now += RECHECK_SECONDS
        assert await cache.authenticate(secret, ADDRESS) is None
        assert await cache.authenticate(secret, ADDRESS) is None

    within(cache, steps)


def test_while_the_database_is_away(engine: Engine, gate: Gate, gated: Engine, clock: Clock) -> None:
    known, unknown = token(engine, "gateway", "ingest"), token(engine, "other", "ingest")
    cache = TokenCache(gated, Limiter(), keep_seconds=900, clock=clock)

    async def steps() -> None:
        assert isinstance(await cache.authenticate(known, ADDRESS), Principal)
        gate.close()
        for _ in range(3):
            clock.now += 200
            assert isinstance(await cache.authenticate(known, ADDRESS), Principal)
            assert isinstance(await cache.authenticate(unknown, ADDRESS), DatabaseAway)
        clock.now += 299
        assert isinstance(await cache.authenticate(known, ADDRESS), Principal)
        clock.now += 2
        assert isinstance(await cache.authenticate(known, ADDRESS), DatabaseAway)
        gate.open()
        # Not asked again at once; then it is known once more.
        assert isinstance(await cache.authenticate(known, ADDRESS), DatabaseAway)
        clock.now += AWAY_SECONDS
        assert isinstance(await cache.authenticate(known, ADDRESS), Principal)
        assert isinstance(await cache.authenticate(unknown, ADDRESS), Principal)

    within(cache, steps)


def test_revoked_while_the_database_was_away(engine: Engine, gate: Gate, gated: Engine, clock: Clock) -> None:
    secret = token(engine, "gateway", "ingest")
    cache = TokenCache(gated, Limiter(), keep_seconds=900, clock=clock)

    async def steps() -> None:
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        gate.close()
        revoke(engine, "gateway")
        clock.now += 60
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        gate.open()
        clock.now += AWAY_SECONDS
        assert await cache.authenticate(secret, ADDRESS) is None

    within(cache, steps)


def test_a_token_is_never_kept_beyond_its_expiry(engine: Engine, gate: Gate, gated: Engine, clock: Clock) -> None:
    secret = token(engine, "gateway", "ingest")
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_tokens SET expires_at = now() + interval '100 seconds'"))
    cache = TokenCache(gated, Limiter(), keep_seconds=900, clock=clock)

    async def steps() -> None:
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        gate.close()
        clock.now += 95
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        clock.now += 6
        assert isinstance(await cache.authenticate(secret, ADDRESS), DatabaseAway)

    within(cache, steps)


def test_nothing_is_kept_where_the_setting_says_so(engine: Engine, gate: Gate, gated: Engine, clock: Clock) -> None:
    secret = token(engine, "gateway", "ingest")
    cache = TokenCache(gated, Limiter(), keep_seconds=0, clock=clock)

    async def steps() -> None:
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        gate.close()
        clock.now += RECHECK_SECONDS
        assert isinstance(await cache.authenticate(secret, ADDRESS), DatabaseAway)

    within(cache, steps)


def test_wrong_tokens_are_limited_by_address_and_known_ones_pass(engine: Engine, clock: Clock) -> None:
    secret = token(engine, "gateway", "ingest")
    cache = TokenCache(engine, Limiter(failures=3), keep_seconds=900, clock=clock)

    async def steps() -> None:
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        found: list[Any] = [await cache.authenticate(f"awry_{n}", ADDRESS) for n in range(5)]
        assert found[:3] == [None] * 3
        assert all(isinstance(one, RetryLater) for one in found[3:])
        clock.now += RECHECK_SECONDS
        assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        assert await cache.authenticate("awry_x", "10.9.9.9") is None

    within(cache, steps)


def test_only_the_latest_are_remembered(engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.web.auth.cache.MAX_TOKENS", 2)
    assert MAX_TOKENS == 1000
    secrets = [token(engine, f"g{n}", "ingest") for n in range(4)]
    cache = TokenCache(engine, Limiter(), keep_seconds=900, clock=clock)

    async def steps() -> None:
        for secret in secrets:
            assert isinstance(await cache.authenticate(secret, ADDRESS), Principal)
        assert len(cache._known) == 2
        expire(engine, "g3")
        clock.now += RECHECK_SECONDS
        assert await cache.authenticate(secrets[3], ADDRESS) is None
        assert len(cache._known) == 1

    within(cache, steps)


def test_pages_and_api_take_no_token_for_ingest(engine: Engine) -> None:
    given = Authenticator(engine, Limiter())
    assert given.authenticate(token(engine, "gateway", "ingest"), ADDRESS) is None
    assert isinstance(given.authenticate(token(engine, "wall", "read"), ADDRESS), Principal)
