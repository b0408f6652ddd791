"""A moving window for each token and each address that fails."""

from __future__ import annotations

import uuid

import pytest

from monitor.web.auth import rate_limit
from monitor.web.auth.rate_limit import Limiter, network
from tests.support.at_once import at_once

ONE, OTHER = uuid.uuid4(), uuid.uuid4()


class Clock:
    now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.time", made.time)
    return made


def test_so_many_a_minute_and_no_more(clock: Clock) -> None:
    limiter = Limiter(requests=3)
    assert [limiter.count_request(ONE) for _ in range(3)] == [None] * 3
    clock.now += 20
    assert limiter.count_request(ONE) == 40
    assert limiter.count_request(OTHER) is None
    clock.now += 39.5
    assert limiter.count_request(ONE) == 1
    clock.now += 1
    # What was refused is not held against it.
    assert [limiter.count_request(ONE) for _ in range(3)] == [None] * 3


def test_the_window_moves(clock: Clock) -> None:
    limiter = Limiter(requests=2)
    limiter.count_request(ONE)
    clock.now += 40
    limiter.count_request(ONE)
    clock.now += 21
    assert limiter.count_request(ONE) is None
    assert limiter.count_request(ONE) == 39


def test_looking_does_not_count(clock: Clock) -> None:
    limiter = Limiter(failures=2)
    assert [limiter.blocked("10.0.0.7") for _ in range(5)] == [None] * 5
    assert [limiter.count_failure("10.0.0.7") for _ in range(3)] == [None, None, 60]
    assert limiter.blocked("10.0.0.7") == 60
    assert limiter.blocked("10.0.0.8") is None


def test_threads_share_one_count() -> None:
    limiter = Limiter(requests=50)
    came = at_once([lambda: [limiter.count_request(ONE) for _ in range(25)]] * 4)
    assert sum(waits.count(None) for waits in came) == 50


@pytest.mark.parametrize(
    ("address", "is_one_of"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, is_one_of: str) -> None:
    assert network(address) == is_one_of


@pytest.mark.slow
def test_many_addresses_leave_nothing_behind(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_MAX_KEYS", 100)
    limiter = Limiter(failures=1)
    for n in range(500):
        limiter.count_failure(f"10.0.{n // 250}.{n % 250}")
        clock.now += 61
        # The library forgets at leisure, in a thread of its own.
        limiter._storage.timer.join()
    assert len(limiter._storage.events) <= 101
