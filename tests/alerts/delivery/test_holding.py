"""What time intervals and inhibition hold, until when, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from alerts.delivery.channel import Channel
from alerts.delivery.deliver import deliver_due
from alerts.delivery.grouping import Policy
from alerts.lifecycle import actions
from alerts.lifecycle.audit import by_rule
from alerts.lifecycle.inhibited import mark_inhibited
from alerts.lifecycle.lifecycle import record_flagged
from alerts.routing.inhibition import InhibitRule
from alerts.routing.intervals import TimeInterval
from alerts.routing.routing import Routing, routing_of
from alerts.routing.tree import Route
from storage.queries.outbox import oldest_pending_seconds
from storage.schema import outbox
from tests.support.alerts.alert_rows import all_alerts, all_outbox, flagged
from tests.support.alerts.alert_scenes import ANNA, audit_rows, in_transaction
from tests.support.alerts.delivery import FakeClock, Recorder

NIGHT = TimeInterval.model_validate(
    {"name": "night", "time_intervals": [{"times": [{"start_time": "00:00", "end_time": "06:00"}]}]}
)
# Warnings wait for the morning, the rest does not.
BY_NIGHT = routing_of(
    ("pager",),
    Route.model_validate(
        {
            "destinations": ["pager"],
            "routes": [{"matchers": ['severity="warning"'], "mute_time_intervals": ["night"]}],
        }
    ),
    (),
    (NIGHT,),
)
CRITICAL_FIRST = routing_of(
    ("pager",),
    None,
    [
        InhibitRule.model_validate(
            {
                "source_matchers": ['severity="critical"'],
                "target_matchers": ['severity="warning"'],
                "equal": ["tenant"],
            }
        )
    ],
)
WARNING, CRITICAL = 0.6, 2.0
_ALONE = Policy()


class Night:
    """Alerts that are opened and delivered at times of one day."""

    def __init__(self, engine: Engine, routing: Routing, policy: Policy, **more: Any) -> None:
        self.engine, self.routing, self.clock, self.sender = engine, routing, FakeClock(), Recorder()
        self.channels = {"pager": Channel(self.sender, policy, routing=routing, **more)}
        self.at("02:00")

    def at(self, time: str) -> None:
        hour, minute = map(int, time.split(":"))
        day = datetime.now(UTC).replace(hour=hour, minute=minute, second=0, microsecond=0) + timedelta(days=1)
        self.clock.now = day

    def flag(self, offset: int, value: float, **names: Any) -> None:
        in_transaction(self.engine, record_flagged, [flagged(offset, value, **names)], self.routing)
        # As if it was enqueued when the test's clock says.
        with self.engine.begin() as connection:
            waiting = update(outbox).where(outbox.c.page_id.is_(None), outbox.c.held_by.is_(None))
            connection.execute(waiting.values(created_at=self.clock.now, due_at=self.clock.now))

    def resolve(self) -> None:
        for row in all_alerts(self.engine):
            if row.state != "resolved":
                in_transaction(self.engine, actions.resolve, row.id, by_rule("test"))
        with self.engine.begin() as connection:
            connection.execute(update(outbox).where(outbox.c.event == "alert.resolved").values(due_at=self.clock.now))

    def deliver(self) -> list[str]:
        """What is sent now: events without `alert.`."""
        before = len(self.sender.sent)
        deliver_due(self.engine, self.channels, clock=self.clock)
        return [n.event.removeprefix("alert.") for n in self.sender.sent[before:]]


@pytest.fixture
def night(engine: Engine) -> Callable[..., Night]:
    return lambda routing=BY_NIGHT, policy=_ALONE, **more: Night(engine, routing, policy, **more)


@pytest.mark.parametrize("policy", [Policy(), Policy(("rule", "probe"), wait=10, interval=300)])
def test_what_fires_in_a_mute_interval_is_told_at_its_end(night: Callable[..., Night], policy: Policy) -> None:
    here = night(BY_NIGHT, policy)
    here.flag(1, WARNING)
    assert here.deliver() == []
    (row,) = all_outbox(here.engine)
    assert row.routes == ['{}/{severity="warning"}']
    assert row.held_by.startswith("mute time interval night, until ")
    assert row.held_by.endswith("06:00 UTC")
    with here.engine.connect() as connection:
        assert oldest_pending_seconds(connection) == 0, "nobody is to be called because it waits on purpose"
    here.at("05:59")
    assert here.deliver() == []
    here.at("06:00")
    here.clock.sleep(20)
    assert here.deliver() == ["opened"]
    (row,) = all_outbox(here.engine)
    assert row.held_by is None
    assert here.sender.sent[0].body["data"]["severity"] == "warning"


def test_what_was_over_before_its_end_is_told_to_nobody(night: Callable[..., Night]) -> None:
    here = night()
    here.flag(1, WARNING)
    assert here.deliver() == []
    here.at("03:00")
    here.resolve()
    assert here.deliver() == []
    here.at("06:01")
    assert here.deliver() == []
    assert all_outbox(here.engine) == []
    (dropped,) = [row for row in audit_rows(here.engine) if row.action == "not notified"]
    assert dropped.after["destination"] == "pager"
    assert dropped.after["events"] == 2
    assert dropped.after["held_by"].startswith("mute time interval night")


def test_the_end_of_what_was_told_before_is_told_after_the_interval(night: Callable[..., Night]) -> None:
    here = night()
    here.at("23:00")
    here.flag(1, WARNING)
    assert here.deliver() == ["opened"]
    here.clock.sleep(4 * 3600)
    here.resolve()
    assert here.deliver() == []
    here.clock.sleep(4 * 3600)
    assert here.deliver() == ["resolved"]


def test_worse_is_told_at_once_with_what_was_held_before_it(night: Callable[..., Night]) -> None:
    here = night()
    here.flag(1, WARNING)
    assert here.deliver() == []
    here.flag(2, CRITICAL)
    assert here.deliver() == ["opened", "worsened"], "nothing overtakes an earlier event of its alert"


def test_held_rows_are_not_in_the_way_of_others(night: Callable[..., Night], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alerts.delivery.queue.MAX_EVENTS", 3)
    here = night(BY_NIGHT, Policy(("rule", "probe")))
    for n in range(7):
        here.flag(n, WARNING, tenant=f"t{n}")
    assert here.deliver() == []
    here.clock.sleep(1)
    here.flag(20, CRITICAL, tenant="shop")
    assert here.deliver() == ["opened"]
    assert here.sender.sent[0].body["data"]["tenant"] == "shop"
    assert here.sender.sent[0].body["data"]["group"]["standing"]["open"] == 1, "of those that it was told of"
    here.at("07:00")
    while here.deliver():
        here.clock.sleep(400)
    told = {n.body["data"]["tenant"] for n in here.sender.sent}
    told |= {each["tenant"] for n in here.sender.sent for each in n.body["data"]["group"]["others"]}
    assert told == {"shop", *(f"t{n}" for n in range(7))}


def test_what_is_silenced_while_it_is_held_stays_held(night: Callable[..., Night]) -> None:
    here = night()
    here.flag(1, WARNING)
    assert here.deliver() == []
    (alert,) = all_alerts(here.engine)
    in_transaction(here.engine, actions.silence_alert, alert.id, timedelta(hours=8), ANNA)
    here.at("06:01")
    assert here.deliver() == []
    assert [row.held_by for row in all_outbox(here.engine)] == ["silenced"]


def test_an_interval_that_was_removed_holds_nothing(night: Callable[..., Night]) -> None:
    here = night()
    here.flag(1, WARNING)
    assert here.deliver() == []
    here.channels = {"pager": Channel(here.sender, routing=routing_of(("pager",), None))}
    here.clock.sleep(31)
    assert here.deliver() == ["opened"]


def test_an_alertmanager_does_not_get_what_is_held_among_all_that_fires(night: Callable[..., Night]) -> None:
    whole = Policy(whole=True)
    here = night(BY_NIGHT, whole, resend_every=timedelta(seconds=60))
    here.flag(1, WARNING, tenant="quiet")
    here.flag(2, CRITICAL, tenant="loud")
    here.deliver()
    here.clock.sleep(61)
    here.deliver()
    posted = [entry["tenant"] for n in here.sender.sent for entry in n.body["alerts"]]
    assert set(posted) == {"loud"}
    here.at("06:01")
    here.deliver()
    assert {entry["tenant"] for entry in here.sender.sent[-1].body["alerts"]} == {"loud", "quiet"}


def test_an_inhibited_alert_is_told_when_its_source_is_over(night: Callable[..., Night]) -> None:
    here = night(CRITICAL_FIRST)
    here.flag(1, CRITICAL, tenant="shop", model="big")
    here.flag(2, WARNING, tenant="shop", model="small")
    here.flag(3, WARNING, tenant="bank", model="small")
    assert mark_inhibited(here.engine, here.routing) == 1
    assert here.deliver() == ["opened", "opened"], "not the one of the same tenant"
    source, target, other = all_alerts(here.engine)
    assert (source.inhibited_by, target.inhibited_by, other.inhibited_by) == (None, [source.id], None)
    (held,) = [row for row in all_outbox(here.engine) if row.held_by]
    assert held.held_by == f"inhibited by alert {str(source.id)[:8]}"
    in_transaction(here.engine, actions.silence_alert, source.id, timedelta(hours=8), ANNA)
    here.clock.sleep(31)
    assert here.deliver() == [], "a silenced source inhibits, too"
    in_transaction(here.engine, actions.resolve, source.id, ANNA)
    here.clock.sleep(31)
    assert sorted(here.deliver()) == ["opened", "resolved"]
    assert mark_inhibited(here.engine, here.routing) == 0
    assert all(row.inhibited_by is None for row in all_alerts(here.engine))


def counting(engine: Engine) -> list[str]:
    """The statements from now on."""
    statements: list[str] = []

    def on_statement(*call: Any) -> None:
        statements.append(call[2])

    event.listen(engine, "before_cursor_execute", on_statement)
    return statements


def test_without_anything_that_holds_nothing_is_asked_of_the_database(engine: Engine) -> None:
    """A destination of a configuration of before: its deliveries cost no more queries."""
    statements, costs = counting(engine), []
    for number, routing in enumerate((None, None, routing_of(("pager",), None))):
        in_transaction(engine, record_flagged, [flagged(number, tenant=f"t{number}")], ("pager",))
        statements.clear()
        assert deliver_due(engine, {"pager": Channel(Recorder(), routing=routing)}).sent == 1
        costs.append(len(statements))
    assert costs[2] == costs[1], "the first one writes the row of the destination, too"


def test_routes_are_decided_without_a_query_in_the_workers_transaction(engine: Engine) -> None:
    statements, costs = counting(engine), []
    for number, to in enumerate((("pager",), BY_NIGHT)):
        statements.clear()
        in_transaction(engine, record_flagged, [flagged(number, tenant=f"t{number}")], to)
        costs.append(len(statements))
    assert costs[0] == costs[1]
    assert [row.routes for row in all_outbox(engine)] == [None, ['{}/{severity="warning"}']]
