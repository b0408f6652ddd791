"""PagerDuty incidents of groups of alerts."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Engine

from alerts.delivery.deliver import deliver_due
from alerts.links import Links
from tests.support.alerts.alert_rows import Receiver, Reply, all_outbox, flagged, open_alerts
from tests.support.alerts.delivery import (
    FakeClock,
    act_on_alert,
    carriers,
    configured,
)

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
    act_on_alert(engine, "a", "alert.acknowledged", "acknowledged")
    assert after(1) == [("trigger", key)]
    act_on_alert(engine, "b", "alert.acknowledged", "acknowledged")
    assert after(1) == [("trigger", key), ("acknowledge", key)]
    act_on_alert(engine, "a", "alert.resolved", "resolved")
    assert after(10)[2:] == [("acknowledge", key)], "what is left is acknowledged: it says so again"
    act_on_alert(engine, "b", "alert.resolved", "resolved")
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
    act_on_alert(engine, "b", "alert.acknowledged", "acknowledged")
    act_on_alert(engine, "a", "alert.resolved", "resolved")
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
