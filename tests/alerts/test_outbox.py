"""Delivery: signed, retried with growing waits, at-least-once under one id, never lost."""

from __future__ import annotations

import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from alerts.outbox import LEASE, LONGEST_WAIT, SCHEDULE, Delivered, deliver_due, wait_after
from alerts.senders import webhook
from alerts.senders.base import DeliveryError, Event
from alerts.senders.webhook import WebhookSender
from storage.database import connect
from storage.queries import outbox_counts
from tests.alerts.parts import (
    SECRET,
    Receiver,
    Reply,
    all_outbox,
    flagged,
    make_due,
    open_alerts,
    wait_of,
)
from tests.conftest import url_of

JUST_NOW = 5.0


def done(sent: int = 0, failed: int = 0, dead: int = 0) -> Delivered:
    return Delivered(sent, failed, dead)


@pytest.fixture
def sender(receiver: Receiver) -> WebhookSender:
    return WebhookSender(receiver.url + "/hook", SECRET)


@pytest.fixture
def one(engine: Engine) -> Engine:
    """A database with one alert waiting for `pager`."""
    open_alerts(engine, [flagged(7)])
    return engine


class Recorder:
    """A sender that only remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, event: Event) -> None:
        self.events.append(event)


def test_a_webhook_arrives_and_its_signature_verifies(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    assert deliver_due(one, {"pager": sender}) == done(sent=1)
    (got,) = receiver.received
    body = Webhook(SECRET).verify(got.body, got.headers)
    (row,) = all_outbox(one)
    assert body == row.body
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == f"msg_{row.id.hex}"
    assert row.delivered_at is not None
    assert (row.attempts, row.last_error, row.dead_at) == (1, None, None)
    assert deliver_due(one, {"pager": sender}) == done()
    assert len(receiver.received) == 1


def test_a_changed_body_does_not_verify(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    deliver_due(one, {"pager": sender})
    (got,) = receiver.received
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body.replace(b"shop", b"bank"), got.headers)


def test_text_of_any_script_verifies(engine: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    open_alerts(engine, [flagged(tenant="Zürich 東京 \U0001f600\u2028")])
    deliver_due(engine, {"pager": sender})
    (got,) = receiver.received
    assert Webhook(SECRET).verify(got.body, got.headers)["data"]["tenant"] == "Zürich 東京 \U0001f600\u2028"


def test_failures_wait_longer_each_time_under_one_id(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    receiver.replies = [Reply(500)]
    for n, planned in enumerate(SCHEDULE[:4], 1):
        assert deliver_due(one, {"pager": sender}) == done(failed=1)
        (row,) = all_outbox(one)
        assert planned - JUST_NOW <= wait_of(row) <= planned * 1.2
        assert (row.attempts, row.last_error, row.delivered_at) == (n, "status 500", None)
        assert deliver_due(one, {"pager": sender}) == done()
        make_due(one)
    receiver.replies = [Reply(200)]
    assert deliver_due(one, {"pager": sender}) == done(sent=1)
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1
    assert len(receiver.received) == 5
    assert all_outbox(one)[0].last_error is None


def test_dead_after_the_last_try(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    receiver.replies = [Reply(503)]
    for _ in SCHEDULE:
        assert deliver_due(one, {"pager": sender}) == done(failed=1)
        make_due(one)
    assert deliver_due(one, {"pager": sender}) == done(dead=1)
    (row,) = all_outbox(one)
    assert row.dead_at is not None
    assert (row.attempts, row.last_error) == (len(SCHEDULE) + 1, "status 503")
    make_due(one)
    assert deliver_due(one, {"pager": sender}) == done()
    with one.connect() as connection:
        assert outbox_counts(connection) == {"pending": 0, "delivered": 0, "dead": 1}


def test_gone_is_dead_at_once(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    receiver.replies = [Reply(410)]
    assert deliver_due(one, {"pager": sender}) == done(dead=1)
    (row,) = all_outbox(one)
    assert row.dead_at is not None
    assert row.last_error == "status 410"


def test_retry_after_in_seconds(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    receiver.replies = [Reply(429, {"retry-after": "1200"})]
    assert deliver_due(one, {"pager": sender}) == done(failed=1)
    assert 1200 - JUST_NOW <= wait_of(all_outbox(one)[0]) <= 1200


def test_retry_after_as_a_date(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    at = datetime.now(UTC) + timedelta(seconds=900)
    receiver.replies = [Reply(429, {"retry-after": format_datetime(at, usegmt=True)})]
    assert deliver_due(one, {"pager": sender}) == done(failed=1)
    assert abs((all_outbox(one)[0].due_at - at).total_seconds()) < JUST_NOW


@pytest.mark.parametrize(
    "header", ["soon", "", "-5", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 -0000", "0"]
)
def test_a_useless_retry_after_leaves_the_schedule(
    one: Engine, receiver: Receiver, sender: WebhookSender, header: str
) -> None:
    receiver.replies = [Reply(429, {"retry-after": header})]
    assert deliver_due(one, {"pager": sender}) == done(failed=1)
    assert 0 < wait_of(all_outbox(one)[0]) <= SCHEDULE[0] * 1.2


@pytest.mark.parametrize("header", ["inf", "1e18", "99999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_an_endless_retry_after_is_cut(one: Engine, receiver: Receiver, sender: WebhookSender, header: str) -> None:
    receiver.replies = [Reply(429, {"retry-after": header})]
    assert deliver_due(one, {"pager": sender}) == done(failed=1)
    assert LONGEST_WAIT - JUST_NOW <= wait_of(all_outbox(one)[0]) <= LONGEST_WAIT


@given(st.integers(1, 40), st.none() | st.floats(0))
def test_the_wait_is_the_schedules_or_longer(attempts: int, asked: float | None) -> None:
    planned = SCHEDULE[min(attempts, len(SCHEDULE)) - 1]
    assert planned <= wait_after(attempts, asked) <= max(planned * 1.2, LONGEST_WAIT)
    if asked is not None and asked <= LONGEST_WAIT:
        assert wait_after(attempts, asked) >= asked


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(one: Engine, receiver: Receiver, sender: WebhookSender, status: int) -> None:
    receiver.replies = [Reply(status, {"location": receiver.url + "/elsewhere"}), Reply(200)]
    assert deliver_due(one, {"pager": sender}) == done(failed=1)
    assert [r.path for r in receiver.received] == ["/hook"]
    assert all_outbox(one)[0].last_error == f"status {status}"


def test_connection_refused(one: Engine) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sender = WebhookSender(f"http://user:geheim@127.0.0.1:{port}/token", SECRET)
    assert deliver_due(one, {"pager": sender}) == done(failed=1)
    (row,) = all_outbox(one)
    assert row.last_error == "not reachable (ConnectError)"
    assert row.delivered_at is None
    assert row.dead_at is None


def test_an_address_that_is_none(one: Engine) -> None:
    assert deliver_due(one, {"pager": WebhookSender("http://127.0.0.1/\x00", SECRET)}) == done(failed=1)
    assert all_outbox(one)[0].last_error == "not reachable (InvalidURL)"


def test_a_slow_server(one: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.2)
    receiver.replies = [Reply(200, seconds=0.6), Reply(200)]
    sender = WebhookSender(receiver.url, SECRET)
    assert deliver_due(one, {"pager": sender}) == done(failed=1)
    assert all_outbox(one)[0].last_error == "no answer within 0.2 s"
    make_due(one)
    assert deliver_due(one, {"pager": sender}) == done(sent=1)
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1


def test_destinations_fail_apart(engine: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    open_alerts(engine, [flagged(1)], ("pager", "siem"))
    receiver.replies = [Reply(500)]
    siem = Recorder()
    assert deliver_due(engine, {"pager": sender, "siem": siem}) == done(sent=1, failed=1)
    make_due(engine)
    assert deliver_due(engine, {"pager": sender, "siem": siem}) == done(failed=1)
    assert len(siem.events) == 1
    assert siem.events[0].id.hex not in receiver.received[0].headers["webhook-id"]


def test_rows_of_destinations_that_are_not_configured_wait(one: Engine) -> None:
    assert deliver_due(one, {"siem": Recorder()}) == done()
    assert deliver_due(one, {}) == done()
    with one.connect() as connection:
        assert outbox_counts(connection) == {"pending": 1, "delivered": 0, "dead": 0}


def test_the_oldest_go_first_and_a_round_is_bounded(engine: Engine) -> None:
    for n in range(5):
        open_alerts(engine, [flagged(n, tenant=f"t{n}")])
    recorder = Recorder()
    assert deliver_due(engine, {"pager": recorder}, limit=3) == done(sent=3)
    assert deliver_due(engine, {"pager": recorder}, limit=3) == done(sent=2)
    assert [e.body["data"]["tenant"] for e in recorder.events] == [f"t{n}" for n in range(5)]


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
        while found := deliver_due(own, {"pager": recorder}, limit=7).sent:
            mine += found
        sent.append(mine)
        own.dispose()

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A loop that met only locked rows may stop early; the rest is still due.
    sent.append(deliver_due(engine, {"pager": recorder}, limit=rows).sent)
    assert sum(sent) == rows
    assert len({e.id for e in recorder.events}) == len(recorder.events) == rows


class Killed(BaseException):
    """What ends a process: no handler for errors sees it."""


def test_killed_between_sending_and_marking_sends_again_under_the_same_id(
    one: Engine, receiver: Receiver, sender: WebhookSender
) -> None:
    class Dying:
        def send(self, event: Event) -> None:
            sender.send(event)
            raise Killed

    with pytest.raises(Killed):
        deliver_due(one, {"pager": Dying()})
    (row,) = all_outbox(one)
    assert row.delivered_at is None
    assert LEASE.total_seconds() - JUST_NOW <= wait_of(row) <= LEASE.total_seconds()
    assert deliver_due(one, {"pager": sender}) == done()
    make_due(one)
    assert deliver_due(one, {"pager": sender}) == done(sent=1)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


def test_the_body_is_the_same_on_every_try(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    """The alert goes on counting; what a receiver gets under one id does not change."""
    receiver.replies = [Reply(500), Reply(200)]
    deliver_due(one, {"pager": sender})
    open_alerts(one, [flagged(8)])
    make_due(one)
    deliver_due(one, {"pager": sender})
    assert receiver.received[0].body == receiver.received[1].body


def test_an_error_is_kept_short(one: Engine) -> None:
    class Failing:
        def send(self, _: Event) -> None:
            raise DeliveryError("x" * 5000)

    deliver_due(one, {"pager": Failing()})
    assert len(all_outbox(one)[0].last_error) == 500


def test_the_body_holds_no_prompt_text(one: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    deliver_due(one, {"pager": sender})
    body: dict[str, Any] = json.loads(receiver.received[0].body)
    texts = {"text", "prompt", "messages", "content", "response", "attributes", "answer"}
    assert not texts & (set(body) | set(body["data"]) | set(body["data"]["top_message"]))


def test_the_schedule_is_standard_webhooks() -> None:
    assert tuple(sorted(SCHEDULE)) == SCHEDULE
    assert sum(SCHEDULE) > 2.5 * 86400
