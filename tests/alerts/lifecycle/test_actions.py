"""What people do with alerts, alone and at the same moment; every change is on record."""

from __future__ import annotations

import threading
import uuid
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.errors import TransitionError, UnknownAlertError
from alerts.lifecycle import actions
from alerts.lifecycle.audit import Actor
from alerts.lifecycle.lifecycle import record_flagged
from tests.support.alerts.alert_rows import all_alerts, all_outbox, flagged, open_alerts, set_state
from tests.support.alerts.alert_scenes import (
    ANNA,
    audit_rows,
    event_names,
    in_transaction,
    only_alert,
    open_one,
)
from tests.support.at_once import at_once
from tests.support.rows import wait_until_blocked


def test_from_open_to_resolved(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.acknowledge, alert, ANNA)
    assert (only_alert(engine).state, only_alert(engine).acknowledged_by) == ("acknowledged", "anna")
    in_transaction(engine, actions.resolve, alert, Actor("bob", "api", "10.0.0.7"))
    assert (only_alert(engine).state, only_alert(engine).resolved_by) == ("resolved", "bob")
    assert only_alert(engine).resolved_at >= only_alert(engine).acknowledged_at
    told = [(r.event, r.destination, r.body["data"].get("by"), r.body["data"]["state"]) for r in all_outbox(engine)]
    assert told == [
        ("alert.opened", "pager", None, "open"),
        ("alert.opened", "siem", None, "open"),
        ("alert.acknowledged", "pager", "anna", "acknowledged"),
        ("alert.acknowledged", "siem", "anna", "acknowledged"),
        ("alert.resolved", "pager", "bob", "resolved"),
        ("alert.resolved", "siem", "bob", "resolved"),
    ]
    seen = [(r.action, r.who, r.via, r.origin, r.before, r.after) for r in audit_rows(engine)]
    assert seen == [
        ("opened", "rule threshold", "rule", None, None, {"state": "open", "severity": "warning"}),
        (
            "acknowledge",
            "anna",
            "cli",
            "laptop",
            {"state": "open", "severity": "warning"},
            {"state": "acknowledged", "severity": "warning"},
        ),
        (
            "resolve",
            "bob",
            "api",
            "10.0.0.7",
            {"state": "acknowledged", "severity": "warning"},
            {"state": "resolved", "severity": "warning"},
        ),
    ]
    assert {r.alert_id for r in audit_rows(engine)} == {alert}


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("acknowledged", actions.acknowledge),
        ("resolved", actions.acknowledge),
        ("resolved", actions.resolve),
        ("open", actions.reopen),
        ("silenced", actions.reopen),
    ],
)
def test_what_cannot_be_leaves_no_trace(engine: Engine, state: str, action: Any) -> None:
    alert = open_one(engine)
    set_state(engine, state)
    with pytest.raises(TransitionError, match=f"the alert is {state}"):
        in_transaction(engine, action, alert, ANNA)
    assert only_alert(engine).state == state
    assert (len(audit_rows(engine)), len(all_outbox(engine))) == (1, 2)


def test_an_alert_that_is_not_there(engine: Engine) -> None:
    for action in (actions.acknowledge, actions.resolve, actions.reopen):
        with pytest.raises(UnknownAlertError, match="see awry alerts list"):
            in_transaction(engine, action, uuid.uuid4(), ANNA)


def test_destinations_that_were_not_notified_are_not_notified_of_the_end(engine: Engine) -> None:
    (one,) = open_alerts(engine, [flagged(1)], ())
    in_transaction(engine, actions.resolve, one.alert_id, ANNA)
    assert all_outbox(engine) == []


def test_reopened_by_a_person(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.judge, alert, "false", ANNA)
    in_transaction(engine, actions.resolve, alert, ANNA)
    in_transaction(engine, actions.reopen, alert, ANNA)
    found = only_alert(engine)
    assert (found.state, found.reopened, found.resolved_at, found.verdict) == ("open", 1, None, None)
    assert event_names(engine) == ["opened", "resolved", "reopened"]


def test_two_of_a_key_are_never_live(engine: Engine) -> None:
    first = open_one(engine)
    in_transaction(engine, actions.resolve, first, ANNA)
    second = open_one(engine)
    with pytest.raises(TransitionError, match=f"{second} is live under the same key"):
        in_transaction(engine, actions.reopen, first, ANNA)


def test_reopening_waits_for_whoever_opens_the_key(engine: Engine) -> None:
    first = open_one(engine)
    in_transaction(engine, actions.resolve, first, ANNA)
    errors: list[Exception] = []

    def reopen() -> None:
        try:
            in_transaction(engine, actions.reopen, first, ANNA)
        except TransitionError as error:
            errors.append(error)

    thread = threading.Thread(target=reopen)
    with engine.begin() as connection:
        record_flagged(connection, [flagged(2)], ["pager"])
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert len(errors) == 1
    assert sorted(r.state for r in all_alerts(engine)) == ["open", "resolved"]


def test_two_people_at_once(engine: Engine) -> None:
    alert = open_one(engine)

    def acknowledge(who: str) -> str:
        return str(in_transaction(engine, actions.acknowledge, alert, Actor(who, "cli")).acknowledged_by)

    results = at_once([partial(acknowledge, who) for who in ("anna", "bob")])
    (who,) = [r for r in results if isinstance(r, str)]
    assert [type(r) for r in results if r != who] == [TransitionError]
    assert only_alert(engine).acknowledged_by == who
    assert event_names(engine) == ["opened", "acknowledged"]


def test_a_resolution_and_a_breach_at_once(engine: Engine) -> None:
    """The worker waits for the one who resolves, then opens another: no count is lost, none is live twice."""
    alert = open_one(engine)
    thread = threading.Thread(target=lambda: open_alerts(engine, [flagged(2)]))
    with engine.begin() as connection:
        actions.resolve(connection, alert, ANNA)
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert sorted((r.state, r.count) for r in all_alerts(engine)) == [("open", 1), ("resolved", 1)]


def test_verdicts(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.judge, alert, "false", ANNA, "a joke")
    in_transaction(engine, actions.judge, alert, "authorised_test", Actor("bob", "page"))
    assert (only_alert(engine).verdict, only_alert(engine).verdict_by, only_alert(engine).state) == (
        "authorised_test",
        "bob",
        "open",
    )
    assert [(r.before, r.after) for r in audit_rows(engine)[1:]] == [
        (None, {"verdict": "false", "note": "a joke"}),
        ({"verdict": "false", "by": "anna"}, {"verdict": "authorised_test"}),
    ]
    assert event_names(engine) == ["opened"]


def test_find_alert(engine: Engine) -> None:
    alert = open_one(engine)
    for written in (str(alert), str(alert)[:8], "threshold:drift:shop:smol"):
        assert in_transaction(engine, actions.find_alert, written) == alert
    for written in ("", "%", "0", str(uuid.uuid4()), "threshold:drift:shop:smo"):
        with pytest.raises(UnknownAlertError, match="names none"):
            in_transaction(engine, actions.find_alert, written)
