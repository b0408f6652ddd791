"""The delivery benchmark measures what it says, on a little of each."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from alerts.delivery.deliver import deliver_due
from benchmarks import delivery
from benchmarks.support.alerts import all_outbox, flagged, open_alerts
from benchmarks.support.destinations import to_webhook
from benchmarks.support.receiver import Reply, receiving

pytestmark = pytest.mark.slow


def test_a_burst_is_counted_in_requests(engine: Engine) -> None:
    found = delivery.notifications_of_a_burst(engine, 100)
    assert found["webhook"]["requests"] == found["pagerduty"]["requests"] == 1
    assert found["webhook, a page an event"]["requests"] == found["webhook, a page an event"]["events"] >= 50


def test_a_fault_without_loss(engine: Engine) -> None:
    found = delivery.through(engine, "one 503", [Reply(503), Reply()], 3)
    assert (found.events, found.requests, found.lost, found.repeats, found.repeats_that_differ) == (3, 4, 0, 0, 0)


@pytest.mark.parametrize("grouped", [True, False])
def test_an_hour(engine: Engine, grouped: bool) -> None:
    found = delivery.an_hour_away(engine, grouped)
    assert (found.events, found.lost, found.repeats_that_differ) == (60, 0, 0)
    assert found.seconds_to_recover is not None
    assert found.seconds_to_recover <= 200


def test_what_is_lost_or_differs_would_be_seen(engine: Engine) -> None:
    open_alerts(engine, [flagged(1), flagged(2, tenant="bank")])
    with receiving() as receiver:
        to = {"pager": to_webhook(receiver.url)}
        deliver_due(engine, to, limit=1)
        receiver.received[0].body = b"{}"
        deliver_due(engine, to, limit=1)
        receiver.received.append(type(receiver.received[0])("/", receiver.received[0].headers, b"[]"))
        receiver.received.pop(1)
        found = delivery.judged("made up", engine, receiver)
    assert (found.lost, found.repeats, found.repeats_that_differ) == (1, 1, 1)
    assert len(all_outbox(engine)) == 2
