"""Grouped pages on real tables: a burst is one page, and what it says."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, update

from alerts.delivery.deliver import Delivered, deliver_due
from alerts.delivery.notification import MAX_OTHERS
from alerts.links import Links
from storage.database import connect
from storage.schema import alerts, messages, outbox
from storage.writer import BatchRows
from tests.conftest import url_of
from tests.support.alert_rows import SECRET, Receiver, Reply, all_outbox, flagged, open_alerts
from tests.support.delivery import (
    GROUPED,
    Down,
    FakeClock,
    Recorder,
    carriers,
    channel,
    channels,
    configured,
    to_webhook,
)
from tests.support.rows import message, write


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def tell(engine: Engine, tenant: str, event: str, state: str) -> None:
    """What the lifecycle does when somebody acts on an alert: its state, and a row in the outbox."""
    with engine.begin() as connection:
        row = connection.execute(
            update(alerts)
            .where(alerts.c.tenant == tenant, alerts.c.state != "resolved")
            .values(state=state, resolved_at=func.now() if state == "resolved" else None)
            .returning(alerts.c.id)
        ).one()
        first = connection.execute(select(outbox).where(outbox.c.alert_id == row.id).limit(1)).one()
        body = {**first.body, "type": event, "data": {**first.body["data"], "state": state}}
        connection.execute(
            insert(outbox).values(
                id=func.gen_random_uuid(), alert_id=row.id, destination=first.destination, event=event, body=body
            )
        )


def test_a_thousand_messages_of_fifty_tenants_are_one_page(
    engine: Engine, receiver: Receiver, clock: FakeClock
) -> None:
    """In a second, by two workers at once, while two loops send."""
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
    for thread in threads:
        assert deliver_due(engine, to, clock=clock) == Delivered()
        thread.join()
    clock.sleep(400)
    loops = [threading.Thread(target=deliver_due, args=(engine, to), kwargs={"clock": clock}) for _ in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    (got,) = receiver.received
    data = json.loads(got.body)["data"]
    assert data["severity"] == "critical"
    assert (data["score"], data["count"]) == (1.599, 20)
    assert (data["group"]["alerts"], data["group"]["left_out"]) == (50, 49 - MAX_OTHERS)
    assert len(data["group"]["others"]) == MAX_OTHERS
    assert {one["count"] for one in data["group"]["others"]} == {20}
    assert data["group"]["standing"] == {"open": 50, "acknowledged": 0, "silenced": 0}
    assert all(r.delivered_at is not None for r in all_outbox(engine))
    assert len(got.body) < 20_000


def test_what_comes_after_the_page_waits_for_the_interval_and_graver_news_does_not(
    engine: Engine, clock: FakeClock
) -> None:
    recorder = Recorder()
    to = channels("pager", sender=recorder, policy=GROUPED)
    open_alerts(engine, [flagged(1, tenant="a")])
    clock.sleep(10)
    assert deliver_due(engine, to, clock=clock).sent == 1
    open_alerts(engine, [flagged(2, tenant="b")])
    clock.sleep(200)
    assert deliver_due(engine, to, clock=clock).sent == 0
    open_alerts(engine, [flagged(3, 2.0, tenant="c")])
    assert deliver_due(engine, to, clock=clock).sent == 1, "it is critical, and brings the other along"
    assert recorder.events[1].body["data"]["tenant"] == "c"
    assert [o["tenant"] for o in recorder.events[1].body["data"]["group"]["others"]] == ["b"]
    open_alerts(engine, [flagged(4, 2.0, tenant="d")])
    clock.sleep(299)
    assert deliver_due(engine, to, clock=clock).sent == 0
    clock.sleep(2)
    assert deliver_due(engine, to, clock=clock).sent == 1
    assert len({e.id for e in recorder.events}) == 3


def test_an_outage_of_an_hour(engine: Engine, clock: FakeClock) -> None:
    """A minute of alerts each minute, everything down: few tries, nothing lost, all there soon after its return."""
    sender = Down()
    to = channels("pager", sender=sender, policy=GROUPED)
    for minute in range(60):
        open_alerts(engine, [flagged(minute, tenant=f"t{minute}")])
        if minute % 10 == 9:
            tell(engine, f"t{minute}", "alert.resolved", "resolved")
        deliver_due(engine, to, clock=clock)
        clock.sleep(60)
    assert len(sender.tries) < 40, "the destination is asked, not each page"
    sender.away = False
    for _ in range(40):
        deliver_due(engine, to, clock=clock)
        clock.sleep(15)
    assert all(r.delivered_at is not None for r in all_outbox(engine))
    assert len({e.id for e in sender.events}) == len(sender.events) == 3
    assert [e.event for e in sender.events] == ["alert.opened", "alert.opened", "alert.resolved"]
    assert [e.body["data"]["group"]["alerts"] for e in sender.events] == [2, 58, 6]
    # Everything that was tried and failed went out under the id that it was tried with.
    assert {e.id for e in sender.tries} == {e.id for e in sender.events}


def test_groups_are_apart(engine: Engine, clock: FakeClock) -> None:
    recorder = Recorder()
    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, tenant="b"), flagged(3, probe="other")])
    clock.sleep(10)
    assert deliver_due(engine, channels("pager", sender=recorder, policy=GROUPED), clock=clock).sent == 2
    assert {e.body["data"]["group"]["key"]: e.body["data"]["group"]["alerts"] for e in recorder.events} == {
        "threshold:drift": 2,
        "threshold:other": 1,
    }


def test_links_are_made_of_what_the_alert_is(engine: Engine) -> None:
    links = Links("https://wiki.example/{rule}", "https://grafana.example/d/awry?var-tenant={tenant}&id={alert_id}")
    recorder = Recorder()
    open_alerts(engine, [flagged(1, tenant="a&b/ü")])
    deliver_due(engine, {"pager": channel(recorder, links=links)})
    data = recorder.events[0].body["data"]
    assert data["links"] == {
        "runbook": "https://wiki.example/threshold",
        "dashboard": f"https://grafana.example/d/awry?var-tenant=a%26b%2F%C3%BC&id={data['alert_id']}",
    }


def test_text_goes_out_only_where_it_is_asked_for_and_was_stored(engine: Engine) -> None:
    kept = {"messages": [{"role": "user", "content": "geheim"}], "response": "streng geheim"}
    write(engine, BatchRows([message(1, "s1", text=kept), message(2, "s2")], []))
    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, tenant="b")], ("with", "without"))
    asked, other = Recorder(), Recorder()
    deliver_due(engine, {"with": channel(asked, include_text=True), "without": channel(other)})
    texts: dict[str, Any] = {e.body["data"]["tenant"]: e.body["data"].get("text") for e in asked.events}
    assert texts == {"a": kept, "b": None}
    assert len(other.events) == 2
    assert "geheim" not in json.dumps([e.body for e in other.events])
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(messages)).scalar() == 2


PAGERDUTY: dict[str, Any] = {"name": "pager", "kind": "pagerduty", "routing_key": "k" * 32, "allow_private": True}


def said(receiver: Receiver) -> list[tuple[str, str]]:
    return [(e["event_action"], e["dedup_key"]) for e in (json.loads(r.body) for r in receiver.received)]


def test_one_incident_is_triggered_acknowledged_and_resolved(
    engine: Engine, receiver: Receiver, clock: FakeClock
) -> None:
    """Of two tenants: acknowledged when both are, resolved when both are."""
    to = {"pager": configured(Links(dashboard="https://g.example/{alert_id}"), url=receiver.url, **PAGERDUTY)}
    receiver.replies = [Reply(202)]
    key = "awry:threshold:drift"

    def after(seconds: float) -> list[tuple[str, str]]:
        clock.sleep(seconds)
        deliver_due(engine, to, clock=clock)
        return said(receiver)

    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, 1.2, tenant="b")])
    assert after(10) == [("trigger", key)]
    tell(engine, "a", "alert.acknowledged", "acknowledged")
    assert after(1) == [("trigger", key)]
    tell(engine, "b", "alert.acknowledged", "acknowledged")
    assert after(1) == [("trigger", key), ("acknowledge", key)]
    tell(engine, "a", "alert.resolved", "resolved")
    assert after(10)[2:] == [("acknowledge", key)], "what is left is acknowledged: it says so again"
    tell(engine, "b", "alert.resolved", "resolved")
    assert after(10)[3:] == [("resolve", key)]
    open_alerts(engine, [flagged(3, tenant="a")])
    assert after(310)[4:] == [("trigger", key)]
    assert {r.path for r in receiver.received} == {"/v2/enqueue"}
    trigger = json.loads(receiver.received[0].body)
    assert trigger["routing_key"] == "k" * 32
    payload = trigger["payload"]
    assert (payload["severity"], payload["class"], payload["component"]) == ("error", "threshold", "drift")
    assert payload["summary"].startswith("ERROR threshold: drift (tenant b")
    assert "1 other alert" in payload["summary"]
    assert payload["custom_details"]["group"]["alerts"] == 2
    assert trigger["links"][0]["href"].startswith("https://g.example/")
    assert set(json.loads(receiver.received[2].body)) == {"routing_key", "event_action", "dedup_key"}
    assert all(r.delivered_at is not None for r in all_outbox(engine))
    assert len(carriers(engine)) == 6


def test_an_incident_an_alert_where_that_is_wanted(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"pager": configured(url=receiver.url + "/", group_by=(), **PAGERDUTY)}
    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, tenant="b")])
    deliver_due(engine, to, clock=clock)
    tell(engine, "b", "alert.acknowledged", "acknowledged")
    tell(engine, "a", "alert.resolved", "resolved")
    deliver_due(engine, to, clock=clock)
    a, b = "awry:threshold:drift:a:smol", "awry:threshold:drift:b:smol"
    assert said(receiver) == [("trigger", a), ("trigger", b), ("acknowledge", b), ("resolve", a)]


def test_a_repeat_triggers_the_same_incident(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"pager": configured(url=receiver.url, **PAGERDUTY)}
    receiver.replies = [Reply(500), Reply(202)]
    open_alerts(engine, [flagged(1)])
    for _ in range(2):
        clock.sleep(10)
        deliver_due(engine, to, clock=clock)
    assert receiver.received[0].body == receiver.received[1].body
    assert said(receiver) == [("trigger", "awry:threshold:drift")] * 2


def test_a_webhook_that_wants_ocsf_gets_an_event_each(engine: Engine, receiver: Receiver) -> None:
    to = {
        "pager": configured(
            name="pager", kind="webhook", url=receiver.url, secret=SECRET, allow_private=True, format="ocsf"
        )
    }
    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, tenant="b")])
    assert deliver_due(engine, to).sent == 2
    assert {json.loads(r.body)["metadata"]["tenant_uid"] for r in receiver.received} == {"a", "b"}
