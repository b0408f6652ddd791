"""The outbox: signed, retried with growing waits, at-least-once under one id, never lost, never out of order."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text, update
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from alerts.delivery import queue
from alerts.delivery.backoff import MAX_REFUSALS, MAX_RETRY_AFTER, MAX_WAIT, wait_after
from alerts.delivery.deliver import Delivered, deliver_due
from alerts.delivery.queue import LEASE
from alerts.senders import http
from alerts.senders.base import DeliveryError, Notification
from alerts.senders.webhook import WebhookSender
from storage.database import connect
from storage.queries.outbox import outbox_counts
from storage.schema import outbox
from tests.conftest import url_of
from tests.support.alert_rows import SECRET, Receiver, Reply, all_outbox, flagged, open_alerts
from tests.support.delivery import (
    GROUPED,
    Down,
    FakeClock,
    Recorder,
    channel,
    channels,
    place,
    to_webhook,
    webhook_sender,
)


def done(sent: int = 0, failed: int = 0, dead: int = 0, gone: int = 0) -> Delivered:
    return Delivered(sent, failed, dead, gone)


def waited(row: Any, clock: FakeClock) -> float:
    """Seconds until the row is due."""
    return float((row.due_at - clock.now).total_seconds())


@pytest.fixture
def sender(receiver: Receiver) -> WebhookSender:
    return webhook_sender(receiver.url + "/hook")


@pytest.fixture
def one(engine: Engine) -> Engine:
    """A database with one alert waiting for `pager`."""
    open_alerts(engine, [flagged(7)])
    return engine


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_webhook_arrives_and_its_signature_verifies(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    assert deliver_due(one, channels("pager", sender=sender)) == done(sent=1)
    (got,) = receiver.received
    body = Webhook(SECRET).verify(got.body, got.headers)
    (row,) = all_outbox(one)
    assert body == row.body == row.page
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == f"msg_{row.id.hex}"
    assert row.delivered_at is not None
    assert (row.attempts, row.last_error, row.dead_at, row.claim_id) == (1, None, None, None)
    assert deliver_due(one, channels("pager", sender=sender)) == done()
    assert len(receiver.received) == 1


def test_a_changed_body_does_not_verify(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    deliver_due(one, channels("pager", sender=sender))
    (got,) = receiver.received
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body.replace(b"shop", b"bank"), got.headers)


def test_while_secrets_are_rotated_either_verifies(one: Engine, receiver: Receiver) -> None:
    new = "whsec_" + base64.b64encode(bytes(range(40, 80))).decode()
    deliver_due(one, {"pager": to_webhook(receiver.url, secret=f"{new} {SECRET}")})
    (got,) = receiver.received
    signatures = got.headers["webhook-signature"].split(" ")
    assert len(set(signatures)) == 2
    assert all(signature.startswith("v1,") for signature in signatures)
    for known in (new, SECRET):
        Webhook(known).verify(got.body, got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(bytes(32)).decode()).verify(got.body, got.headers)


def test_text_of_any_script_verifies(engine: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    open_alerts(engine, [flagged(tenant="Zürich 東京 \U0001f600\u2028")])
    deliver_due(engine, channels("pager", sender=sender))
    (got,) = receiver.received
    assert Webhook(SECRET).verify(got.body, got.headers)["data"]["tenant"] == "Zürich 東京 \U0001f600\u2028"


def test_failures_wait_longer_each_time_under_one_id(
    one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    receiver.replies = [Reply(500)]
    to = channels("pager", sender=sender)
    for n, planned in enumerate((5, 10, 20, 40, 80, 120, 120), 1):
        assert deliver_due(one, to, clock=clock) == done(failed=1)
        (row,) = all_outbox(one)
        assert planned <= waited(row, clock) <= planned * 1.5
        assert (row.attempts, row.last_error, row.delivered_at) == (n, "status 500", None)
        assert (place(one).failures, place(one).held_until) == (n, row.due_at)
        clock.sleep(waited(row, clock) - 0.1)
        assert deliver_due(one, to, clock=clock) == done()
        clock.sleep(0.2)
    receiver.replies = [Reply(200)]
    assert deliver_due(one, to, clock=clock) == done(sent=1)
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1
    assert len({r.body for r in receiver.received}) == 1
    assert len(receiver.received) == 8
    assert all_outbox(one)[0].last_error is None
    assert (place(one).failures, place(one).held_until, place(one).last_error) == (0, None, None)


def test_dead_when_it_is_too_old(one: Engine, clock: FakeClock) -> None:
    to = {"pager": channel(Down(), give_up=timedelta(hours=2))}
    tries = 0
    while deliver_due(one, to, clock=clock).dead == 0:
        tries += 1
        clock.sleep(200)
        assert tries < 100
    assert 35 <= tries <= 37
    (row,) = all_outbox(one)
    assert (row.dead_at, row.last_error) == (clock.now, "not reachable (ConnectError)")
    clock.sleep(1e6)
    assert deliver_due(one, channels("pager", sender=Recorder()), clock=clock) == done()
    with one.connect() as connection:
        assert outbox_counts(connection) == {"pending": 0, "delivered": 0, "dead": 1}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_page_that_is_refused_dies_and_holds_nobody_up(
    engine: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock, status: int
) -> None:
    open_alerts(engine, [flagged(1)])
    receiver.replies = [Reply(status)]
    to = channels("pager", sender=sender)
    assert deliver_due(engine, to, clock=clock) == done(failed=1)
    assert (place(engine).failures, place(engine).held_until) == (0, None)
    receiver.replies = [Reply(200)]
    open_alerts(engine, [flagged(2, tenant="bank")])
    assert deliver_due(engine, to, clock=clock) == done(sent=1), "the next page does not wait"
    receiver.replies = [Reply(status)]
    for n in range(2, MAX_REFUSALS):
        clock.sleep(200)
        assert deliver_due(engine, to, clock=clock) == done(failed=1)
        assert all_outbox(engine)[0].refusals == n
    clock.sleep(200)
    assert deliver_due(engine, to, clock=clock) == done(dead=1)
    assert all_outbox(engine)[0].last_error == f"status {status}"


def test_an_outage_is_no_refusal(one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock) -> None:
    """A page that was tried often while its receiver was away is not dead at the first 400."""
    to = channels("pager", sender=sender)
    receiver.replies = [Reply(503)]
    for _ in range(MAX_REFUSALS + 5):
        deliver_due(one, to, clock=clock)
        clock.sleep(200)
    receiver.replies = [Reply(400)]
    assert deliver_due(one, to, clock=clock) == done(failed=1)


def test_gone_stops_the_destination_and_loses_nothing(
    one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    receiver.replies = [Reply(410)]
    to = {"pager": channel(sender, fingerprint="a"), "siem": channel(Recorder())}
    open_alerts(one, [flagged(8, tenant="bank")], ("pager", "siem"))
    assert deliver_due(one, to, clock=clock) == done(sent=1, gone=1)
    assert place(one).disabled_at == clock.now
    assert [(r.destination, r.dead_at) for r in all_outbox(one)] == [("pager", None), ("pager", None), ("siem", None)]
    receiver.replies = [Reply(200)]
    clock.sleep(86400)
    assert deliver_due(one, to, clock=clock) == done()
    assert len(receiver.received) == 1
    # An owner who changes the address has mended it.
    changed = to | {"pager": channel(sender, fingerprint="b")}
    assert deliver_due(one, changed, clock=clock) == done(sent=2)
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 2


def test_retry_after_in_seconds_holds_the_whole_destination(
    one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    receiver.replies = [Reply(429, {"retry-after": "1200"}), Reply(200)]
    to = channels("pager", sender=sender)
    assert deliver_due(one, to, clock=clock) == done(failed=1)
    assert waited(all_outbox(one)[0], clock) == 1200
    open_alerts(one, [flagged(8, tenant="bank")])
    clock.sleep(1199)
    assert deliver_due(one, to, clock=clock) == done()
    clock.sleep(1)
    assert deliver_due(one, to, clock=clock) == done(sent=2)


def test_retry_after_as_a_date(one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock) -> None:
    at = datetime.now(UTC) + timedelta(seconds=900)
    receiver.replies = [Reply(503, {"retry-after": format_datetime(at, usegmt=True)})]
    assert deliver_due(one, channels("pager", sender=sender), clock=clock) == done(failed=1)
    assert abs(waited(all_outbox(one)[0], clock) - 900) < 5


@pytest.mark.parametrize(
    "header", ["soon", "", "-5", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 -0000", "0"]
)
def test_a_useless_retry_after_leaves_the_schedule(
    one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock, header: str
) -> None:
    receiver.replies = [Reply(429, {"retry-after": header})]
    assert deliver_due(one, channels("pager", sender=sender), clock=clock) == done(failed=1)
    assert 5 <= waited(all_outbox(one)[0], clock) <= 7.5


@pytest.mark.parametrize("header", ["inf", "1e18", "99999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_an_endless_retry_after_is_cut(
    one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock, header: str
) -> None:
    receiver.replies = [Reply(429, {"retry-after": header})]
    assert deliver_due(one, channels("pager", sender=sender), clock=clock) == done(failed=1)
    assert waited(all_outbox(one)[0], clock) == MAX_RETRY_AFTER


@given(st.integers(1, 5000), st.none() | st.floats(0))
def test_the_wait_grows_to_its_limit_with_jitter(failures: int, asked: float | None) -> None:
    planned = min(5 * 2 ** (failures - 1), MAX_WAIT)
    assert planned <= wait_after(failures, asked) <= max(planned * 1.5, MAX_RETRY_AFTER)
    if asked is not None and asked <= MAX_RETRY_AFTER:
        assert wait_after(failures, asked) >= asked


def test_waits_differ() -> None:
    assert len({wait_after(3) for _ in range(50)}) > 40


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(one: Engine, receiver: Receiver, sender: WebhookSender, status: int) -> None:
    receiver.replies = [Reply(status, {"location": receiver.url + "/elsewhere"}), Reply(200)]
    assert deliver_due(one, channels("pager", sender=sender)) == done(failed=1)
    assert [r.path for r in receiver.received] == ["/hook"]
    assert all_outbox(one)[0].last_error == f"status {status}"


def test_connection_refused_names_no_token(one: Engine) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sender = webhook_sender(f"http://user:geheim@127.0.0.1:{port}/token")
    assert deliver_due(one, channels("pager", sender=sender)) == done(failed=1)
    (row,) = all_outbox(one)
    assert row.last_error == "not reachable (ConnectError)"
    assert (row.delivered_at, row.dead_at) == (None, None)


def test_a_slow_receiver_gets_the_same_page_again(
    one: Engine, receiver: Receiver, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", 0.2)
    receiver.replies = [Reply(200, seconds=0.6), Reply(200)]
    to = channels("pager", sender=webhook_sender(receiver.url))
    assert deliver_due(one, to, clock=clock) == done(failed=1)
    assert all_outbox(one)[0].last_error == "no answer within 0.2 s"
    clock.sleep(10)
    assert deliver_due(one, to, clock=clock) == done(sent=1)
    assert len({(r.headers["webhook-id"], r.body) for r in receiver.received}) == 1


def test_destinations_fail_apart(engine: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock) -> None:
    open_alerts(engine, [flagged(1)], ("pager", "siem"))
    receiver.replies = [Reply(500)]
    siem = Recorder()
    to = {"pager": channel(sender), "siem": channel(siem)}
    assert deliver_due(engine, to, clock=clock) == done(sent=1, failed=1)
    clock.sleep(10)
    assert deliver_due(engine, to, clock=clock) == done(failed=1)
    assert len(siem.events) == 1
    assert siem.events[0].id.hex not in receiver.received[0].headers["webhook-id"]


def test_rows_of_destinations_that_are_not_configured_wait(one: Engine) -> None:
    assert deliver_due(one, channels("siem", sender=Recorder())) == done()
    assert deliver_due(one, {}) == done()
    with one.connect() as connection:
        assert outbox_counts(connection) == {"pending": 1, "delivered": 0, "dead": 0}


def test_the_oldest_go_first_and_a_round_is_bounded(engine: Engine) -> None:
    for n in range(5):
        open_alerts(engine, [flagged(n, tenant=f"t{n}")])
    recorder = Recorder()
    assert deliver_due(engine, channels("pager", sender=recorder), limit=3) == done(sent=3)
    assert deliver_due(engine, channels("pager", sender=recorder), limit=3) == done(sent=2)
    assert [e.body["data"]["tenant"] for e in recorder.events] == [f"t{n}" for n in range(5)]


def test_news_of_an_alert_never_overtakes_older_news(engine: Engine, clock: FakeClock) -> None:
    """The first page fails; the second of the same alert waits for it, another alert's does not."""
    open_alerts(engine, [flagged(1, 0.6)])
    open_alerts(engine, [flagged(2, 1.2)])
    open_alerts(engine, [flagged(3, tenant="bank")])
    sender = Recorder(DeliveryError("status 400", fault="notification"))
    to = channels("pager", sender=sender)
    assert deliver_due(engine, to, clock=clock) == done(sent=1, failed=1)
    assert [(e.event, e.body["data"]["tenant"]) for e in sender.events] == [
        ("alert.opened", "shop"),
        ("alert.opened", "bank"),
    ]
    clock.sleep(10)
    assert deliver_due(engine, to, clock=clock) == done(sent=2)
    assert [(e.event, e.body["data"]["tenant"]) for e in sender.events[2:]] == [
        ("alert.opened", "shop"),
        ("alert.worsened", "shop"),
    ]


def test_two_loops_at_once_send_each_row_once(engine: Engine) -> None:
    rows = 60
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(rows)])
    recorder = Recorder()
    barrier = threading.Barrier(2)
    sent: list[int] = []

    def loop() -> None:
        own = connect(url_of(engine))
        barrier.wait()
        mine = 0
        while found := deliver_due(own, channels("pager", sender=recorder), limit=7).sent:
            mine += found
        sent.append(mine)
        own.dispose()

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sent) == rows
    assert len({e.id for e in recorder.events}) == len(recorder.events) == rows


class Killed(BaseException):
    """What ends a process: no handler for errors sees it."""


def test_killed_between_sending_and_marking_sends_again_under_the_same_id(
    one: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    class Dying:
        def send(self, notification: Notification) -> None:
            sender.send(notification)
            raise Killed

    with pytest.raises(Killed):
        deliver_due(one, channels("pager", sender=Dying()), clock=clock)
    (row,) = all_outbox(one)
    assert row.delivered_at is None
    assert row.due_at == clock.now + LEASE
    to = channels("pager", sender=sender)
    assert deliver_due(one, to, clock=clock) == done()
    clock.sleep(LEASE.total_seconds() + 1)
    assert deliver_due(one, to, clock=clock) == done(sent=1)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


def test_a_lease_outlasts_a_receiver_that_is_slower_than_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two loops, ten pages, each taking twice the lease: nothing is sent twice."""
    monkeypatch.setattr(queue, "LEASE", timedelta(seconds=0.3))
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(6)])

    class Slow(Recorder):
        def send(self, notification: Notification) -> None:
            time.sleep(0.6)
            super().send(notification)

    slow = Slow()
    threads = [
        threading.Thread(target=deliver_due, args=(engine, channels("pager", sender=slow)), daemon=True)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(slow.events) == len({e.id for e in slow.events}) == 6
    assert {e.attempts for e in slow.events} == {1}


def test_a_claim_that_lapsed_cannot_undo_what_its_heir_did(one: Engine, clock: FakeClock) -> None:
    """A loop stood still while sending; another sent the page; then the first one's failure comes in."""
    heir = Recorder()

    class Stalled:
        def send(self, _: Notification) -> None:
            clock.sleep(LEASE.total_seconds() + 1)
            assert deliver_due(one, channels("pager", sender=heir), clock=clock) == done(sent=1)
            raise DeliveryError("no answer within 15 s")

    deliver_due(one, channels("pager", sender=Stalled()), clock=clock)
    (row,) = all_outbox(one)
    assert row.delivered_at is not None
    assert row.last_error is None
    clock.sleep(1e5)
    assert deliver_due(one, channels("pager", sender=heir), clock=clock) == done()
    assert len(heir.events) == 1


def test_the_body_is_the_same_on_every_try(one: Engine, receiver: Receiver, clock: FakeClock) -> None:
    """The alert goes on counting, settings change; what a receiver gets under one id does not."""
    receiver.replies = [Reply(500), Reply(200)]
    grouped = {"group_by": ["rule", "probe"], "group_wait_seconds": 0}
    deliver_due(one, {"pager": to_webhook(receiver.url, **grouped)}, clock=clock)
    open_alerts(one, [flagged(8), flagged(9, 5.0, tenant="bank")])
    clock.sleep(10)
    deliver_due(one, {"pager": to_webhook(receiver.url, **grouped)}, clock=clock)
    assert receiver.received[0].body == receiver.received[1].body
    assert receiver.received[0].headers["webhook-id"] == receiver.received[1].headers["webhook-id"]


def test_an_error_is_kept_short(one: Engine) -> None:
    deliver_due(one, channels("pager", sender=Recorder(DeliveryError("x" * 5000))))
    assert len(all_outbox(one)[0].last_error) == 500


def test_a_defect_of_a_sender_is_a_failed_try_and_quotes_nothing(one: Engine) -> None:
    assert deliver_due(one, channels("pager", sender=Recorder(KeyError("geheim")))) == done(failed=1)
    assert all_outbox(one)[0].last_error == "the sender broke (KeyError)"


def test_a_clock_that_jumps_loses_nothing(engine: Engine, clock: FakeClock) -> None:
    """Ahead by a day, then back: what was sent stays sent, what waits is sent."""
    open_alerts(engine, [flagged(1)])
    recorder = Recorder()
    to = channels("pager", sender=recorder)
    clock.sleep(86400)
    assert deliver_due(engine, to, clock=clock) == done(sent=1)
    clock.sleep(-86400)
    open_alerts(engine, [flagged(2, 1.2)])
    assert deliver_due(engine, to, clock=clock) == done(sent=1)
    assert [e.event for e in recorder.events] == ["alert.opened", "alert.worsened"]


def test_a_clock_that_is_set_back_holds_no_page(engine: Engine, clock: FakeClock) -> None:
    """By a day, while one page waits for its group's interval, another for a retry, and a destination is held."""
    open_alerts(engine, [flagged(1)], ("grouped", "retried"))
    recorder, failing = Recorder(), Recorder(DeliveryError("status 503", retry_after=3000))
    to = {"grouped": channel(recorder, GROUPED), "retried": channel(failing)}
    clock.sleep(86400)
    assert deliver_due(engine, to, clock=clock) == done(sent=1, failed=1)
    open_alerts(engine, [flagged(2, tenant="bank")], ("grouped",))
    with engine.begin() as connection:
        connection.execute(
            update(outbox)
            .where(outbox.c.delivered_at.is_(None), outbox.c.page_id.is_(None))
            .values(created_at=clock.now, due_at=clock.now + timedelta(seconds=300))
        )
    clock.sleep(-86400)
    assert deliver_due(engine, to, clock=clock) == done(sent=2)
    assert [len(one.events) for one in (recorder, failing)] == [2, 2]
    assert failing.events[0].id == failing.events[1].id


def test_the_body_holds_no_prompt_text(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    deliver_due(one, channels("pager", sender=sender))
    body: dict[str, Any] = json.loads(receiver.received[0].body)
    texts = {"text", "prompt", "messages", "content", "response", "attributes", "answer"}
    assert not texts & (set(body) | set(body["data"]) | set(body["data"]["top_message"]))


def test_what_was_tried_before_the_migration_keeps_its_id(one: Engine, clock: FakeClock) -> None:
    """As migration 0004 leaves a row that had been tried."""
    (row,) = all_outbox(one)
    with one.begin() as connection:
        connection.execute(
            text(
                "UPDATE outbox SET attempts = 3, page_id = id, page = body, formed_at = created_at, "
                "group_key = 'before 0004: ' || id"
            )
        )
    recorder = Recorder()
    assert deliver_due(one, channels("pager", sender=recorder), clock=clock) == done(sent=1)
    assert [(e.id, e.attempts) for e in recorder.events] == [(row.id, 4)]
