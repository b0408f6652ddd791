"""Silences: which alerts they match, until when, and at the same moment as alerts that open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from alerts.errors import TransitionError, UnknownAlertError
from alerts.lifecycle import actions
from alerts.lifecycle.expiry import end_silences
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.builtin import built_in
from alerts.rules.model import ThresholdRule
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import (
    ANNA,
    HOUR,
    audit_rows,
    event_names,
    in_transaction,
    look,
    only_alert,
    open_one,
    scored,
    silence_matching,
)
from tests.support.rows import wait_until_blocked


# Silences.
def test_a_silence_matches_live_alerts_and_later_ones(engine: Engine) -> None:
    shop, _ = open_one(engine), open_one(engine, tenant="bank")
    assert silence_matching(engine, tenant="sh*").alerts == (shop,)
    assert {r.tenant: r.state for r in all_alerts(engine)} == {"shop": "silenced", "bank": "open"}
    (kept_back,) = open_alerts(engine, [flagged(5, tenant="shoes")])
    assert (kept_back.event, kept_back.suppressed) == ("alert.opened", True)
    assert {r.tenant: r.state for r in all_alerts(engine)} == {
        "shop": "silenced",
        "bank": "open",
        "shoes": "silenced",
    }
    assert event_names(engine) == ["opened", "opened"]


@pytest.mark.parametrize(
    ("matchers", "covered"),
    [
        ({"tenant": "shop"}, True),
        ({"tenant": "sho"}, False),
        ({"rule": "thresh*"}, True),
        ({"rule": "rate"}, False),
        ({"probe": "drift", "tenant": "bank"}, False),
        ({"model": "*"}, True),
        ({"model": "SMOL"}, False),
        ({"dedup_key": "threshold:drift:shop:smol"}, True),
        ({"dedup_key": "*"}, False),
    ],
)
def test_matchers(engine: Engine, matchers: dict[str, Any], covered: bool) -> None:
    open_one(engine)
    assert bool(silence_matching(engine, **matchers).alerts) is covered


def test_a_silence_of_a_tenant_leaves_alerts_on_the_monitor_alone(engine: Engine) -> None:
    """One that names a tenant is about the others, too."""
    found = built_in(0.5, 1.0)
    silence_matching(engine, tenant="load-*")
    scored(engine, 0, 30, status="invalid", tenant="load-7")
    (opened,) = look(engine, found).opened
    assert (opened.suppressed, only_alert(engine).tenant) == (False, "load-7")
    assert silence_matching(engine, tenant="load-*").alerts == ()
    assert silence_matching(engine, rule="unscored", tenant="*").alerts == (opened.alert_id,)


def test_a_tenant_called_star_silences_itself_only(engine: Engine) -> None:
    star, _ = open_one(engine, tenant="*"), open_one(engine, tenant="bank")
    made = in_transaction(engine, actions.silence_alert, star, HOUR, ANNA)
    assert made.alerts == (star,)


def test_a_silence_applies_up_to_a_severity(engine: Engine) -> None:
    open_one(engine)
    open_one(engine, tenant="bank", value=3.0)
    silence_matching(engine, severity="error", rule="*")
    assert {r.severity: r.state for r in all_alerts(engine)} == {"warning": "silenced", "critical": "open"}
    open_alerts(engine, [flagged(7, 3.0, tenant="mill"), flagged(8, 1.2, tenant="farm")])
    assert {r.tenant: r.state for r in all_alerts(engine)} | {"shop": "", "bank": ""} == {
        "shop": "",
        "bank": "",
        "mill": "open",
        "farm": "silenced",
    }


def test_a_silenced_alert_that_worsens_notifies_anyway(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.silence_alert, alert, HOUR, ANNA)
    assert open_alerts(engine, [flagged(2, 0.7)]) == []
    (worse,) = open_alerts(engine, [flagged(3, 1.2)])
    assert (worse.event, worse.suppressed, only_alert(engine).state) == ("alert.worsened", False, "open")
    # The silence is spent on it, though it holds on.
    (graver,) = open_alerts(engine, [flagged(4, 3.0)])
    assert (graver.event, only_alert(engine).state) == ("alert.worsened", "open")
    assert event_names(engine) == ["opened", "worsened", "worsened"]


def test_opened_in_a_silence_it_notifies_when_it_worsens(engine: Engine) -> None:
    silence_matching(engine, rule="*")
    open_alerts(engine, [flagged(1)])
    open_alerts(engine, [flagged(2, 3.0)])
    assert event_names(engine) == ["worsened"]


def test_silences_that_overlap(engine: Engine) -> None:
    open_one(engine)
    short, long = silence_matching(engine, HOUR, tenant="shop"), silence_matching(engine, 2 * HOUR, rule="threshold")
    assert in_transaction(engine, actions.end_silence, long.id, ANNA) == []
    assert only_alert(engine).silenced_until == short.ends_at
    assert end_silences(engine, ()) == 0
    assert in_transaction(engine, actions.end_silence, short.id, ANNA) == [only_alert(engine).id]
    assert end_silences(engine, ()) == 1
    assert only_alert(engine).state == "open"
    with pytest.raises(UnknownAlertError, match="or over"):
        in_transaction(engine, actions.end_silence, short.id, ANNA)
    assert [r.action for r in audit_rows(engine)] == [
        "opened",
        "silence",
        "silence",
        "silence",
        "silence",
        "end silence",
        "end silence",
        "unsilence",
    ]


@pytest.mark.parametrize(
    ("matchers", "lasting", "said"),
    [
        ({}, HOUR, "match by some of"),
        ({"user": "x"}, HOUR, "match by some of"),
        ({"rule": "*"}, timedelta(), "from 1s to 90d"),
        ({"rule": "*"}, timedelta(days=91), "from 1s to 90d"),
    ],
)
def test_silences_that_are_refused(engine: Engine, matchers: dict[str, str], lasting: timedelta, said: str) -> None:
    with pytest.raises(TransitionError, match=said):
        in_transaction(engine, actions.silence, matchers, lasting, ANNA)


def test_a_resolved_alert_is_not_silenced(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.resolve, alert, ANNA)
    with pytest.raises(TransitionError, match="resolved"):
        in_transaction(engine, actions.silence_alert, alert, HOUR, ANNA)


def test_nothing_opens_between_a_silence_and_its_commit(engine: Engine) -> None:
    """Whoever opens waits for the one who silences, and the other way round."""
    thread = threading.Thread(target=lambda: open_alerts(engine, [flagged(1)]))
    with engine.begin() as connection:
        actions.silence(connection, {"rule": "*"}, HOUR, ANNA)
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert (only_alert(engine).state, event_names(engine)) == ("silenced", [])

    def silencer() -> None:
        silence_matching(engine, tenant="bank")

    thread = threading.Thread(target=silencer)
    with engine.begin() as connection:
        other = flagged(2, tenant="bank")
        record_flagged(connection, [other], ["pager"], [ThresholdRule(name="other")])
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert {r.tenant: r.state for r in all_alerts(engine)} == {"shop": "silenced", "bank": "silenced"}


def test_a_worker_that_is_stuck_does_not_block_a_silence_for_ever(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.lifecycle.silences._LOCK_SECONDS", 1)
    with engine.begin() as connection:
        record_flagged(connection, [flagged(1)], ["pager"])
        with pytest.raises(TransitionError, match="try again"):
            silence_matching(engine, rule="*")
    assert silence_matching(engine, rule="*").alerts


def test_workers_and_silences_never_deadlock(engine: Engine) -> None:
    barrier = threading.Barrier(3)
    errors: list[Exception] = []

    def worker(order: int) -> None:
        barrier.wait()
        for n in range(25):
            batch = [flagged(n, tenant=t) for t in "abc"][::order]
            work(partial(record_flagged, flagged=batch, destinations=["pager"]))

    def silencer() -> None:
        barrier.wait()
        for _ in range(25):
            work(lambda c: actions.silence(c, {"tenant": "*"}, HOUR, ANNA))

    def work(action: Callable[[Connection], Any]) -> None:
        try:
            in_transaction(engine, action)
        except Exception as error:
            errors.append(error)

    threads = [
        threading.Thread(target=worker, args=(1,)),
        threading.Thread(target=worker, args=(-1,)),
        threading.Thread(target=silencer),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {r.tenant: r.count for r in all_alerts(engine)} == dict.fromkeys("abc", 50)
