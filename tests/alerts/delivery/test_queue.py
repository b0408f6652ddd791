"""Claims: each notification is sent once, in order, and again under the same id after a crash."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text, update

from alerts.delivery.deliver import deliver_due
from alerts.delivery.notification import MAX_OTHERS
from alerts.delivery.queue import LEASE
from alerts.senders.base import DeliveryError, Notification
from alerts.senders.webhook import WebhookSender
from storage.database import connect
from storage.schema import outbox
from tests.conftest import url_of
from tests.support.alerts.alert_rows import Receiver, all_outbox, flagged, open_alerts
from tests.support.alerts.delivery import (
    GROUPED,
    Down,
    FakeClock,
    Recorder,
    act_on_alert,
    channel,
    channels,
    delivered,
    to_webhook,
)


def test_an_event_never_overtakes_an_earlier_one_of_its_alert(engine: Engine, clock: FakeClock) -> None:
    """The first notification fails; the second of the same alert waits for it, another alert's does not."""
    open_alerts(engine, [flagged(1, 0.6)])
    open_alerts(engine, [flagged(2, 1.2)])
    open_alerts(engine, [flagged(3, tenant="bank")])
    sender = Recorder(DeliveryError("status 400", fault="notification"))
    to = channels("pager", sender=sender)
    assert deliver_due(engine, to, clock=clock) == delivered(sent=1, failed=1)
    assert [(e.event, e.body["data"]["tenant"]) for e in sender.sent] == [
        ("alert.opened", "shop"),
        ("alert.opened", "bank"),
    ]
    clock.sleep(10)
    assert deliver_due(engine, to, clock=clock) == delivered(sent=2)
    assert [(e.event, e.body["data"]["tenant"]) for e in sender.sent[2:]] == [
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
    assert len({e.id for e in recorder.sent}) == len(recorder.sent) == rows


class Killed(BaseException):
    """What ends a process: no handler for errors sees it."""


def test_killed_between_sending_and_recording_sends_again_under_the_same_id(
    alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender, clock: FakeClock
) -> None:
    class Dying:
        def send(self, notification: Notification) -> None:
            sender.send(notification)
            raise Killed

    with pytest.raises(Killed):
        deliver_due(alert_in_outbox, channels("pager", sender=Dying()), clock=clock)
    (row,) = all_outbox(alert_in_outbox)
    assert row.delivered_at is None
    assert row.due_at == clock.now + LEASE
    to = channels("pager", sender=sender)
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered()
    clock.sleep(LEASE.total_seconds() + 1)
    assert deliver_due(alert_in_outbox, to, clock=clock) == delivered(sent=1)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


def test_an_expired_claim_cannot_undo_what_the_next_one_recorded(alert_in_outbox: Engine, clock: FakeClock) -> None:
    """A loop stood still while sending; another sent the notification; then the first one's failure comes in."""
    heir = Recorder()

    class Stalled:
        def send(self, _: Notification) -> None:
            clock.sleep(LEASE.total_seconds() + 1)
            assert deliver_due(alert_in_outbox, channels("pager", sender=heir), clock=clock) == delivered(sent=1)
            raise DeliveryError("no answer within 15 s")

    deliver_due(alert_in_outbox, channels("pager", sender=Stalled()), clock=clock)
    (row,) = all_outbox(alert_in_outbox)
    assert row.delivered_at is not None
    assert row.last_error is None
    clock.sleep(1e5)
    assert deliver_due(alert_in_outbox, channels("pager", sender=heir), clock=clock) == delivered()
    assert len(heir.sent) == 1


def test_a_clock_that_jumps_loses_nothing(engine: Engine, clock: FakeClock) -> None:
    """Ahead by a day, then back: what was sent stays sent, what waits is sent."""
    open_alerts(engine, [flagged(1)])
    recorder = Recorder()
    to = channels("pager", sender=recorder)
    clock.sleep(86400)
    assert deliver_due(engine, to, clock=clock) == delivered(sent=1)
    clock.sleep(-86400)
    open_alerts(engine, [flagged(2, 1.2)])
    assert deliver_due(engine, to, clock=clock) == delivered(sent=1)
    assert [e.event for e in recorder.sent] == ["alert.opened", "alert.worsened"]


def test_a_clock_that_is_set_back_delays_no_notification(engine: Engine, clock: FakeClock) -> None:
    """By a day, while one notification waits for its group's interval, another for a retry; a destination is paused."""
    open_alerts(engine, [flagged(1)], ("grouped", "retried"))
    recorder, failing = Recorder(), Recorder(DeliveryError("status 503", retry_after=3000))
    to = {"grouped": channel(recorder, GROUPED), "retried": channel(failing)}
    clock.sleep(86400)
    assert deliver_due(engine, to, clock=clock) == delivered(sent=1, failed=1)
    open_alerts(engine, [flagged(2, tenant="bank")], ("grouped",))
    with engine.begin() as connection:
        connection.execute(
            update(outbox)
            .where(outbox.c.delivered_at.is_(None), outbox.c.page_id.is_(None))
            .values(created_at=clock.now, due_at=clock.now + timedelta(seconds=300))
        )
    clock.sleep(-86400)
    assert deliver_due(engine, to, clock=clock) == delivered(sent=2)
    assert [len(one.sent) for one in (recorder, failing)] == [2, 2]
    assert failing.sent[0].id == failing.sent[1].id


def test_what_was_attempted_before_the_migration_keeps_its_id(alert_in_outbox: Engine, clock: FakeClock) -> None:
    """As migration 0004 leaves a row that had been tried."""
    (row,) = all_outbox(alert_in_outbox)
    with alert_in_outbox.begin() as connection:
        connection.execute(
            text(
                "UPDATE outbox SET attempts = 3, page_id = id, page = body, formed_at = created_at, "
                "group_key = 'before 0004: ' || id"
            )
        )
    recorder = Recorder()
    assert deliver_due(alert_in_outbox, channels("pager", sender=recorder), clock=clock) == delivered(sent=1)
    assert [(e.id, e.attempts) for e in recorder.sent] == [(row.id, 4)]


def test_a_thousand_messages_of_fifty_tenants_are_two_notifications(
    engine: Engine, receiver: Receiver, clock: FakeClock
) -> None:
    """In a second, by two workers at once, while two loops send: the first at once, all others together."""
    to = {"pager": to_webhook(receiver.url, group_by=["rule", "probe"])}
    found = [flagged(n, 0.6 + n / 1000, tenant=f"t{n % 50:02}") for n in range(1000)]

    def work(part: int) -> None:
        own = connect(url_of(engine))
        for start in range(part * 500, part * 500 + 500, 50):
            open_alerts(own, found[start : start + 50])
        own.dispose()

    threads = [threading.Thread(target=work, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    while not deliver_due(engine, to, clock=clock).sent:
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    clock.sleep(400)
    loops = [threading.Thread(target=deliver_due, args=(engine, to), kwargs={"clock": clock}) for _ in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    first, got = receiver.received
    assert json.loads(first.body)["type"] == "alert.opened"
    data = json.loads(got.body)["data"]
    assert data["severity"] == "critical"
    assert (data["score"], data["count"]) == (1.599, 20)
    # Each alert became worse, and so is told of in the second notification, whichever was in the first.
    assert (data["group"]["alerts"], data["group"]["left_out"]) == (50, 49 - MAX_OTHERS)
    assert len(data["group"]["others"]) == MAX_OTHERS
    assert {one["count"] for one in data["group"]["others"]} == {20}
    assert data["group"]["standing"] == {"open": 50, "acknowledged": 0, "silenced": 0}
    assert all(r.delivered_at is not None for r in all_outbox(engine))
    assert len(got.body) < 20_000


def test_later_events_wait_for_the_interval_and_more_severe_ones_do_not(engine: Engine, clock: FakeClock) -> None:
    recorder = Recorder()
    to = channels("pager", sender=recorder, policy=GROUPED)
    open_alerts(engine, [flagged(0, tenant="first")])
    assert deliver_due(engine, to, clock=clock).sent == 1, "the group was quiet"
    open_alerts(engine, [flagged(1, tenant="a")])
    clock.sleep(9)
    assert deliver_due(engine, to, clock=clock).sent == 0
    clock.sleep(2)
    assert deliver_due(engine, to, clock=clock).sent == 1, "the rest of the burst"
    open_alerts(engine, [flagged(2, tenant="b")])
    clock.sleep(200)
    assert deliver_due(engine, to, clock=clock).sent == 0
    open_alerts(engine, [flagged(3, 2.0, tenant="c")])
    assert deliver_due(engine, to, clock=clock).sent == 1, "it is critical, and brings the other along"
    assert recorder.sent[2].body["data"]["tenant"] == "c"
    assert [o["tenant"] for o in recorder.sent[2].body["data"]["group"]["others"]] == ["b"]
    open_alerts(engine, [flagged(4, 2.0, tenant="d")])
    clock.sleep(299)
    assert deliver_due(engine, to, clock=clock).sent == 0
    clock.sleep(2)
    assert deliver_due(engine, to, clock=clock).sent == 1
    assert len({e.id for e in recorder.sent}) == 4


def test_an_outage_of_an_hour(engine: Engine, clock: FakeClock) -> None:
    """A minute of alerts each minute, everything down: few tries, nothing lost, all there soon after its return."""
    sender = Down()
    to = channels("pager", sender=sender, policy=GROUPED)
    for minute in range(60):
        open_alerts(engine, [flagged(minute, tenant=f"t{minute}")])
        if minute % 10 == 9:
            act_on_alert(engine, f"t{minute}", "alert.resolved", "resolved")
        deliver_due(engine, to, clock=clock)
        clock.sleep(60)
    assert len(sender.attempts) < 40, "the destination is tried, not each notification"
    sender.away = False
    for _ in range(40):
        deliver_due(engine, to, clock=clock)
        clock.sleep(15)
    assert all(r.delivered_at is not None for r in all_outbox(engine))
    assert len({e.id for e in sender.sent}) == len(sender.sent) == 3
    assert [e.event for e in sender.sent] == ["alert.opened", "alert.opened", "alert.resolved"]
    assert [e.body["data"]["group"]["alerts"] for e in sender.sent] == [1, 59, 6]
    # Everything that was tried and failed went out under the id that it was tried with.
    assert {e.id for e in sender.attempts} == {e.id for e in sender.sent}


def test_groups_are_apart(engine: Engine, clock: FakeClock) -> None:
    recorder = Recorder()
    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, tenant="b"), flagged(3, probe="other")])
    clock.sleep(10)
    assert deliver_due(engine, channels("pager", sender=recorder, policy=GROUPED), clock=clock).sent == 2
    assert {e.body["data"]["group"]["key"]: e.body["data"]["group"]["alerts"] for e in recorder.sent} == {
        "threshold:drift": 2,
        "threshold:other": 1,
    }
