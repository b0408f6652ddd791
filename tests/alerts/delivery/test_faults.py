"""Loops as processes that are killed while receivers misbehave: nothing lost, and a repeat has the same id and body."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.delivery import loop, queue
from alerts.delivery.deliver import Delivered, deliver_due
from benchmarks.support.sender_process import LEASE
from storage.database import connect
from tests.conftest import url_of
from tests.support import ROOT
from tests.support.alert_rows import Receiver, Reply, all_outbox, flagged, open_alerts
from tests.support.delivery import Recorder, channels, to_webhook

PATIENCE_SECONDS = 90.0


@contextmanager
def sending(engine: Engine, receiver: Receiver, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.support.sender_process", url_of(engine), receiver.url, *more]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_delivered(engine: Engine) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while any(row.delivered_at is None for row in all_outbox(engine)):
        assert time.monotonic() < until, Counter((r.attempts, r.last_error) for r in all_outbox(engine))
        time.sleep(0.1)


def check_repeats(engine: Engine, receiver: Receiver) -> int:
    """Each page arrived, a repeat had the same id and body; returns how many repeats there were."""
    ids = Counter(r.headers["webhook-id"] for r in receiver.received)
    assert set(ids) == {f"msg_{row.id.hex}" for row in all_outbox(engine)}
    assert len({(r.headers["webhook-id"], r.body) for r in receiver.received}) == len(ids)
    return sum(ids.values()) - len(ids)


def test_killed_after_sending_and_before_writing_it_down(engine: Engine, receiver: Receiver) -> None:
    open_alerts(engine, [flagged(1)])
    with sending(engine, receiver, "stand still") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "taken\n"
        # As long as it lives the page is its own, however long it takes.
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


def test_a_slow_destination_holds_up_no_other(engine: Engine, receiver: Receiver) -> None:
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(5)], ("pager", "siem"))
    receiver.replies = [Reply(seconds=0.5)]
    siem, done, told = Recorder(), threading.Event(), Delivered()
    to = {"pager": to_webhook(receiver.url)} | channels("siem", sender=siem)

    def tell(one: Delivered) -> None:
        told.by_destination.update(one.by_destination)

    thread = threading.Thread(target=loop.run, args=(engine, to, done.wait, 0.05, tell, print))
    start = time.monotonic()
    thread.start()
    while len(siem.events) < 5:
        time.sleep(0.02)
    assert len(receiver.received) <= 3, f"five took {time.monotonic() - start:.1f} s"
    wait_until_delivered(engine)
    done.set()
    thread.join()
    assert told.by_destination == {("pager", "sent"): 5, ("siem", "sent"): 5}


def test_a_loop_outlives_a_database_that_is_away(
    engine: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so once, and goes on where it was."""
    own = connect(url_of(engine))
    said: list[str] = []
    done, away = threading.Event(), True

    def sometimes(*args: Any, **more: Any) -> Delivered:
        if away:
            broken = connect(url_of(engine))
            broken.dispose()
            with broken.connect() as connection:
                connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return deliver_due(*args, **more)

    monkeypatch.setattr(loop, "deliver_due", sometimes)
    open_alerts(engine, [flagged(1)])
    thread = threading.Thread(
        target=loop.run, args=(own, {"pager": to_webhook(receiver.url)}, done.wait, 0.05, lambda _: None, said.append)
    )
    thread.start()
    time.sleep(0.8)
    assert receiver.received == []
    away = False
    wait_until_delivered(engine)
    done.set()
    thread.join()
    own.dispose()
    assert len(said) == 1
    assert said[0].startswith("pager: the database does not answer (")
    assert len(receiver.received) == 1


def test_a_bug_ends_no_loop_and_is_reported_once(
    engine: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True

    def sometimes(*args: Any, **more: Any) -> Delivered:
        if broken:
            raise KeyError("geheim")
        return deliver_due(*args, **more)

    monkeypatch.setattr(loop, "deliver_due", sometimes)
    open_alerts(engine, [flagged(1)])
    said: list[str] = []
    done = threading.Event()
    to = {"pager": to_webhook(receiver.url)}
    thread = threading.Thread(target=loop.run, args=(engine, to, done.wait, 0.02, lambda _: None, said.append))
    thread.start()
    time.sleep(0.3)
    broken = False
    wait_until_delivered(engine)
    done.set()
    thread.join()
    assert said == ["pager: a defect of awry (KeyError); what waits is sent when that is over"]


def test_stopping_waits_for_the_notification_that_is_being_sent(engine: Engine, receiver: Receiver) -> None:
    open_alerts(engine, [flagged(1)])
    receiver.replies = [Reply(seconds=0.5)]
    done = threading.Event()
    to = {"pager": to_webhook(receiver.url)}
    thread = threading.Thread(target=loop.run, args=(engine, to, done.wait, 0.05, lambda _: None, print))
    thread.start()
    while not receiver.received:
        time.sleep(0.01)
    done.set()
    thread.join()
    assert all_outbox(engine)[0].delivered_at is not None


def test_the_lease_is_as_short_as_a_crash_may_delay_a_notification() -> None:
    assert queue.LEASE.total_seconds() <= 30
