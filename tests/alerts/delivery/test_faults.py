"""Loops as processes that are killed while receivers misbehave: nothing lost, and a repeat has the same id and body."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine

from alerts.delivery import queue
from benchmarks.support.sender_process import LEASE
from tests.conftest import url_of
from tests.support import ROOT
from tests.support.alerts.alert_rows import Receiver, Reply, all_outbox, flagged, open_alerts
from tests.support.alerts.delivery import wait_until_delivered

pytestmark = pytest.mark.slow


@contextmanager
def sending(engine: Engine, receiver: Receiver, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.support.sender_process", url_of(engine), receiver.url, *more]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def check_repeats(engine: Engine, receiver: Receiver) -> int:
    """Each notification arrived, a repeat had the same id and body; returns how many repeats there were."""
    ids = Counter(r.headers["webhook-id"] for r in receiver.received)
    assert set(ids) == {f"msg_{row.id.hex}" for row in all_outbox(engine)}
    assert len({(r.headers["webhook-id"], r.body) for r in receiver.received}) == len(ids)
    return sum(ids.values()) - len(ids)


def test_killed_after_sending_and_before_recording(engine: Engine, receiver: Receiver) -> None:
    open_alerts(engine, [flagged(1)])
    with sending(engine, receiver, "stand still") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "taken\n"
        # As long as it lives the claim is its own, however long it takes.
        with sending(engine, receiver):
            time.sleep(3 * LEASE.total_seconds())
            assert len(receiver.received) == 1
            first.send_signal(signal.SIGKILL)
            wait_until_delivered(engine)
    assert check_repeats(engine, receiver) == 1
    assert all_outbox(engine)[0].attempts == 2


def test_loops_that_are_killed_at_random(engine: Engine, receiver: Receiver) -> None:
    """Two loops, one of them killed six times; answers are slow, and every seventh one is a failure."""
    pages = 60
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(pages)])
    receiver.replies = [Reply(503, {"retry-after": "0"}) if n % 7 == 3 else Reply(seconds=0.02) for n in range(500)]
    chance = random.Random(7)
    with sending(engine, receiver):
        for _ in range(6):
            with sending(engine, receiver) as victim:
                time.sleep(chance.uniform(0.8, 1.6))
                victim.send_signal(signal.SIGKILL)
        wait_until_delivered(engine)
    refused = sum(1 for n in range(len(receiver.received)) if n % 7 == 3)
    assert check_repeats(engine, receiver) <= refused + 6, "a repeat a failure and a repeat a kill, at most"


def test_the_lease_is_as_short_as_a_crash_may_delay_a_notification() -> None:
    assert queue.LEASE.total_seconds() <= 30
