"""The delivery loop: slow destinations, an unavailable database, bugs, and stopping."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.delivery import loop
from alerts.delivery.deliver import Delivered, deliver_due
from storage.database import connect
from tests.conftest import url_of
from tests.support.alerts.alert_rows import Receiver, Reply, all_outbox, flagged, open_alerts
from tests.support.alerts.delivery import Recorder, channels, to_webhook, wait_until_delivered
from tests.support.stream.kafka import wait_for


@pytest.mark.slow
def test_a_slow_destination_delays_no_other(engine: Engine, receiver: Receiver) -> None:
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(5)], ("pager", "siem"))
    receiver.replies = [Reply(seconds=5), Reply()]
    siem, done, told = Recorder(), threading.Event(), Delivered()
    to = {"pager": to_webhook(receiver.url)} | channels("siem", sender=siem)

    def tell(one: Delivered) -> None:
        told.by_destination.update(one.by_destination)

    thread = threading.Thread(target=loop.run, args=(engine, to, done.wait, 0.05, tell, print))
    thread.start()
    wait_for(lambda: len(siem.sent) == 5)
    assert len(receiver.received) <= 1
    wait_until_delivered(engine)
    done.set()
    thread.join()
    assert told.by_destination == {("pager", "sent"): 5, ("siem", "sent"): 5}


def test_a_loop_outlives_an_unavailable_database(
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
    wait_for(lambda: said)
    time.sleep(0.5)  # it tries again
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
    wait_for(lambda: said)
    time.sleep(0.3)  # it tries again
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


def test_what_is_enqueued_goes_out_without_waiting_for_the_next_look(engine: Engine) -> None:
    """The loop looks every ten minutes, and the database wakes it."""
    pager, done = Recorder(), threading.Event()
    started = threading.Event()
    thread = threading.Thread(
        target=loop.run,
        args=(engine, channels("pager", sender=pager), done.wait, 600.0, lambda _: started.set(), print),
    )
    thread.start()
    try:
        assert started.wait(30)
        for n in range(3):
            open_alerts(engine, [flagged(n, tenant=f"t{n}")])
            until = time.monotonic() + 30
            while len(pager.sent) <= n and time.monotonic() < until:
                time.sleep(0.01)
            assert len(pager.sent) == n + 1
    finally:
        done.set()
        thread.join(30)
    assert not thread.is_alive()
