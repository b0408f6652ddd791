"""Deliveries: retried with growing waits, at-least-once under one id, and given up in the end."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from sqlalchemy import Engine
from standardwebhooks.webhooks import Webhook

from alerts.delivery.backoff import MAX_REFUSALS, MAX_RETRY_AFTER
from alerts.delivery.deliver import deliver_due
from alerts.senders import http
from alerts.senders.base import DeliveryError
from alerts.senders.webhook import WebhookSender
from storage.queries.outbox import outbox_counts
from tests.support.alerts.alert_rows import SECRET, Receiver, Reply, all_outbox, flagged, open_alerts
from tests.support.alerts.delivery import (
    Down,
    FakeClock,
    Recorder,
    channel,
    channels,
    delivered,
    place,
    seconds_until_due,
    to_webhook,
    webhook_sender,
)


def test_a_webhook_arrives_and_its_signature_verifies(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender
) -> None:
    assert deliver_due(alert_in_outbox, channels("pager", sender=sender)) == delivered(sent=1)
    (got,) = receiver.received
    body = Webhook(SECRET).verify(got.body, got.headers)
    (row,) = all_outbox(alert_in_outbox)
    assert body == row.body == row.page
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == f"msg_{row.id.hex}"
    assert row.delivered_at is not None
    assert (row.attempts, row.last_error, row.dead_at, row.claim_id) == (1, None, None, None)
    assert deliver_due(alert_in_outbox, channels("pager", sender=sender)) == delivered()
    assert len(receiver.received) == 1


def test_failures_wait_longer_each_time_under_one_id(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    receiver.replies = [Reply(500)]
    to = channels("pager", sender=sender)
    for n, planned in enumerate((5, 10, 20, 40, 80, 120, 120), 1):
        assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(failed=1)
        (row,) = all_outbox(alert_in_outbox)
        assert planned <= seconds_until_due(row, clock) <= planned * 1.5
        assert (row.attempts, row.last_error, row.delivered_at) == (n, "status 500", None)
        assert (place(alert_in_outbox).failures, place(alert_in_outbox).held_until) == (n, row.due_at)
        clock.sleep(seconds_until_due(row, clock) - 0.1)
        assert deliver_due(alert_in_outbox, to, clock=clock) == delivered()
        clock.sleep(0.2)
    receiver.replies = [Reply(200)]
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(sent=1)
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1
    assert len({r.body for r in receiver.received}) == 1
    assert len(receiver.received) == 8
    assert all_outbox(alert_in_outbox)[0].last_error is None
    assert (place(alert_in_outbox).failures, place(alert_in_outbox).held_until, place(alert_in_outbox).last_error) == (
        0,
        None,
        None,
    )


def test_dead_when_it_is_too_old(alert_in_outbox: Engine, clock: FakeClock) -> None:
    to = {"pager": channel(Down(), give_up=timedelta(hours=2))}
    tries = 0
    while deliver_due(alert_in_outbox, to, clock=clock).dead == 0:
        tries += 1
        clock.sleep(200)
        assert tries < 100
    assert 35 <= tries <= 37
    (row,) = all_outbox(alert_in_outbox)
    assert (row.dead_at, row.last_error) == (clock.now, "not reachable (ConnectError)")
    clock.sleep(1e6)
    assert deliver_due(alert_in_outbox, channels("pager", sender=Recorder()), clock=clock) == delivered()
    with alert_in_outbox.connect() as connection:
        assert outbox_counts(connection) == {"pending": 0, "delivered": 0, "dead": 1}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_notification_that_is_rejected_dies_and_delays_no_other(
    engine: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock, status: int
) -> None:
    open_alerts(engine, [flagged(1)])
    receiver.replies = [Reply(status)]
    to = channels("pager", sender=sender)
    assert deliver_due(engine, to, clock=clock) == delivered(failed=1)
    assert (place(engine).failures, place(engine).held_until) == (0, None)
    receiver.replies = [Reply(200)]
    open_alerts(engine, [flagged(2, tenant="bank")])
    assert deliver_due(engine, to, clock=clock) == delivered(sent=1), "the next notification does not wait"
    receiver.replies = [Reply(status)]
    for n in range(2, MAX_REFUSALS):
        clock.sleep(200)
        assert deliver_due(engine, to, clock=clock) == delivered(failed=1)
        assert all_outbox(engine)[0].refusals == n
    clock.sleep(200)
    assert deliver_due(engine, to, clock=clock) == delivered(dead=1)
    assert all_outbox(engine)[0].last_error == f"status {status}"


def test_an_outage_is_no_rejection(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    """A notification that was attempted often while its receiver was down is not dead at the first 400."""
    to = channels("pager", sender=sender)
    receiver.replies = [Reply(503)]
    for _ in range(MAX_REFUSALS + 5):
        deliver_due(alert_in_outbox, to, clock=clock)
        clock.sleep(200)
    receiver.replies = [Reply(400)]
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(failed=1)


def test_gone_stops_the_destination_and_loses_nothing(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    receiver.replies = [Reply(410)]
    to = {"pager": channel(sender, fingerprint="a"), "siem": channel(Recorder())}
    open_alerts(alert_in_outbox, [flagged(8, tenant="bank")], ("pager", "siem"))
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(sent=1, gone=1)
    assert place(alert_in_outbox).disabled_at == clock.now
    assert [(r.destination, r.dead_at) for r in all_outbox(alert_in_outbox)] == [
        ("pager", None),
        ("pager", None),
        ("siem", None),
    ]
    receiver.replies = [Reply(200)]
    clock.sleep(86400)
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered()
    assert len(receiver.received) == 1
    # An owner who changes the address has mended it.
    changed = to | {"pager": channel(sender, fingerprint="b")}
    assert deliver_due(alert_in_outbox, changed, clock=clock) == delivered(sent=2)
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 2


def test_retry_after_in_seconds_pauses_the_whole_destination(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    receiver.replies = [Reply(429, {"retry-after": "1200"}), Reply(200)]
    to = channels("pager", sender=sender)
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(failed=1)
    assert seconds_until_due(all_outbox(alert_in_outbox)[0], clock) == 1200
    open_alerts(alert_in_outbox, [flagged(8, tenant="bank")])
    clock.sleep(1199)
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered()
    clock.sleep(1)
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(sent=2)


def test_retry_after_as_a_date(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=900)
    receiver.replies = [Reply(503, {"retry-after": format_datetime(at, usegmt=True)})]
    assert deliver_due(alert_in_outbox, channels("pager", sender=sender), clock=clock) == delivered(failed=1)
    assert abs(seconds_until_due(all_outbox(alert_in_outbox)[0], clock) - 900) < 5


@pytest.mark.parametrize(
    "header", ["soon", "", "-5", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 -0000", "0"]
)
def test_a_useless_retry_after_leaves_the_schedule(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock, header: str
) -> None:
    receiver.replies = [Reply(429, {"retry-after": header})]
    assert deliver_due(alert_in_outbox, channels("pager", sender=sender), clock=clock) == delivered(failed=1)
    assert 5 <= seconds_until_due(all_outbox(alert_in_outbox)[0], clock) <= 7.5


@pytest.mark.parametrize("header", ["inf", "1e18", "99999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_an_endless_retry_after_is_cut(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock, header: str
) -> None:
    receiver.replies = [Reply(429, {"retry-after": header})]
    assert deliver_due(alert_in_outbox, channels("pager", sender=sender), clock=clock) == delivered(failed=1)
    assert seconds_until_due(all_outbox(alert_in_outbox)[0], clock) == MAX_RETRY_AFTER


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, status: int
) -> None:
    receiver.replies = [Reply(status, {"location": receiver.url + "/elsewhere"}), Reply(200)]
    assert deliver_due(alert_in_outbox, channels("pager", sender=sender)) == delivered(failed=1)
    assert [r.path for r in receiver.received] == ["/hook"]
    assert all_outbox(alert_in_outbox)[0].last_error == f"status {status}"


def test_connection_refused_names_no_token(alert_in_outbox: Engine) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sender = webhook_sender(f"http://user:geheim@127.0.0.1:{port}/token")
    assert deliver_due(alert_in_outbox, channels("pager", sender=sender)) == delivered(failed=1)
    (row,) = all_outbox(alert_in_outbox)
    assert row.last_error == "not reachable (ConnectError)"
    assert (row.delivered_at, row.dead_at) == (None, None)


def test_a_slow_receiver_gets_the_same_notification_again(
    alert_in_outbox: Engine, receiver: Receiver, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = http.TIMEOUT_SECONDS
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", 0.2)
    receiver.replies = [Reply(200, seconds=0.6), Reply(200)]
    to = channels("pager", sender=webhook_sender(receiver.url))
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(failed=1)
    assert all_outbox(alert_in_outbox)[0].last_error == "no answer within 0.2 s"
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", patience)
    clock.sleep(10)
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(sent=1)
    assert len({(r.headers["webhook-id"], r.body) for r in receiver.received}) == 1


def test_destinations_fail_apart(engine: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock) -> None:
    open_alerts(engine, [flagged(1)], ("pager", "siem"))
    receiver.replies = [Reply(500)]
    siem = Recorder()
    to = {"pager": channel(sender), "siem": channel(siem)}
    assert deliver_due(engine, to, clock=clock) == delivered(sent=1, failed=1)
    clock.sleep(10)
    assert deliver_due(engine, to, clock=clock) == delivered(failed=1)
    assert len(siem.sent) == 1
    assert siem.sent[0].id.hex not in receiver.received[0].headers["webhook-id"]


def test_rows_of_destinations_that_are_not_configured_wait(alert_in_outbox: Engine) -> None:
    assert deliver_due(alert_in_outbox, channels("siem", sender=Recorder())) == delivered()
    assert deliver_due(alert_in_outbox, {}) == delivered()
    with alert_in_outbox.connect() as connection:
        assert outbox_counts(connection) == {"pending": 1, "delivered": 0, "dead": 0}


def test_the_oldest_go_first_and_a_round_is_bounded(engine: Engine) -> None:
    for n in range(5):
        open_alerts(engine, [flagged(n, tenant=f"t{n}")])
    recorder = Recorder()
    assert deliver_due(engine, channels("pager", sender=recorder), limit=3) == delivered(sent=3)
    assert deliver_due(engine, channels("pager", sender=recorder), limit=3) == delivered(sent=2)
    assert [e.body["data"]["tenant"] for e in recorder.sent] == [f"t{n}" for n in range(5)]


def test_the_body_is_the_same_on_every_try(alert_in_outbox: Engine, receiver: Receiver, clock: FakeClock) -> None:
    """The alert goes on counting, settings change; what a receiver gets under one id does not."""
    receiver.replies = [Reply(500), Reply(200)]
    grouped = {"group_by": ["rule", "probe"], "group_wait_seconds": 0}
    deliver_due(alert_in_outbox, {"pager": to_webhook(receiver.url, **grouped)}, clock=clock)
    open_alerts(alert_in_outbox, [flagged(8), flagged(9, 5.0, tenant="bank")])
    clock.sleep(10)
    deliver_due(alert_in_outbox, {"pager": to_webhook(receiver.url, **grouped)}, clock=clock)
    assert receiver.received[0].body == receiver.received[1].body
    assert receiver.received[0].headers["webhook-id"] == receiver.received[1].headers["webhook-id"]


def test_an_error_is_stored_short(alert_in_outbox: Engine) -> None:
    deliver_due(alert_in_outbox, channels("pager", sender=Recorder(DeliveryError("x" * 5000))))
    assert len(all_outbox(alert_in_outbox)[0].last_error) == 500


def test_a_bug_in_a_sender_is_a_failed_attempt_and_quotes_nothing(alert_in_outbox: Engine) -> None:
    assert deliver_due(alert_in_outbox, channels("pager", sender=Recorder(KeyError("geheim")))) == delivered(failed=1)
    assert all_outbox(alert_in_outbox)[0].last_error == "the sender broke (KeyError)"


def test_the_body_holds_no_prompt_text(alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    deliver_due(alert_in_outbox, channels("pager", sender=sender))
    body: dict[str, Any] = json.loads(receiver.received[0].body)
    texts = {"text", "prompt", "messages", "content", "response", "attributes", "answer"}
    assert not texts & (set(body) | set(body["data"]) | set(body["data"]["top_message"]))
