"""What people do with alerts, alone and at the same moment; every change is on record."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from alerts.errors import TransitionError, UnknownAlertError
from alerts.lifecycle import actions
from alerts.lifecycle.actions import Silenced
from alerts.lifecycle.audit import Actor
from alerts.lifecycle.expiry import end_silences
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Rules, ThresholdRule
from storage.schema import alert_messages
from tests.support.alert_rows import all_alerts, all_outbox, flagged, open_alerts, set_state
from tests.support.alert_scenes import ANNA, audit_rows, look, pass_time, rules
from tests.support.at_once import at_once
from tests.support.rows import wait_until_blocked

HOUR = timedelta(hours=1)
NO_RULES = Rules(threshold=())


def opened(engine: Engine, **names: Any) -> uuid.UUID:
    (one,) = open_alerts(engine, [flagged(1, **names)], ("pager", "siem"))
    return one.alert_id


def do(engine: Engine, action: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    with engine.begin() as connection:
        return action(connection, *arguments, **more)


def events(engine: Engine) -> list[str]:
    return [r.event.removeprefix("alert.") for r in all_outbox(engine) if r.destination == "pager"]


def row(engine: Engine) -> Any:
    (found,) = all_alerts(engine)
    return found


def test_from_open_to_resolved(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.acknowledge, alert, ANNA)
    assert (row(engine).state, row(engine).acknowledged_by) == ("acknowledged", "anna")
    do(engine, actions.resolve, alert, Actor("bob", "api", "10.0.0.7"))
    assert (row(engine).state, row(engine).resolved_by) == ("resolved", "bob")
    assert row(engine).resolved_at >= row(engine).acknowledged_at
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
    alert = opened(engine)
    set_state(engine, state)
    with pytest.raises(TransitionError, match=f"the alert is {state}"):
        do(engine, action, alert, ANNA)
    assert row(engine).state == state
    assert (len(audit_rows(engine)), len(all_outbox(engine))) == (1, 2)


def test_an_alert_that_is_not_there(engine: Engine) -> None:
    for action in (actions.acknowledge, actions.resolve, actions.reopen):
        with pytest.raises(UnknownAlertError, match="see awry alerts list"):
            do(engine, action, uuid.uuid4(), ANNA)


def test_who_never_heard_of_it_does_not_hear_of_its_end(engine: Engine) -> None:
    (one,) = open_alerts(engine, [flagged(1)], ())
    do(engine, actions.resolve, one.alert_id, ANNA)
    assert all_outbox(engine) == []


def test_reopened_by_a_person(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.judge, alert, "false", ANNA)
    do(engine, actions.resolve, alert, ANNA)
    do(engine, actions.reopen, alert, ANNA)
    found = row(engine)
    assert (found.state, found.reopened, found.resolved_at, found.verdict) == ("open", 1, None, None)
    assert events(engine) == ["opened", "resolved", "reopened"]


def test_two_of_a_key_are_never_live(engine: Engine) -> None:
    first = opened(engine)
    do(engine, actions.resolve, first, ANNA)
    second = opened(engine)
    with pytest.raises(TransitionError, match=f"{second} is live under the same key"):
        do(engine, actions.reopen, first, ANNA)


def test_reopening_waits_for_whoever_opens_the_key(engine: Engine) -> None:
    first = opened(engine)
    do(engine, actions.resolve, first, ANNA)
    errors: list[Exception] = []

    def reopen() -> None:
        try:
            do(engine, actions.reopen, first, ANNA)
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
    alert = opened(engine)

    def acknowledge(who: str) -> str:
        return str(do(engine, actions.acknowledge, alert, Actor(who, "cli")).acknowledged_by)

    results = at_once([partial(acknowledge, who) for who in ("anna", "bob")])
    (who,) = [r for r in results if isinstance(r, str)]
    assert [type(r) for r in results if r != who] == [TransitionError]
    assert row(engine).acknowledged_by == who
    assert events(engine) == ["opened", "acknowledged"]


def test_a_resolution_and_a_sighting_at_once(engine: Engine) -> None:
    """The worker waits for the one who resolves, then opens another: no count is lost, none is live twice."""
    alert = opened(engine)
    thread = threading.Thread(target=lambda: open_alerts(engine, [flagged(2)]))
    with engine.begin() as connection:
        actions.resolve(connection, alert, ANNA)
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert sorted((r.state, r.count) for r in all_alerts(engine)) == [("open", 1), ("resolved", 1)]


def test_verdicts(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.judge, alert, "false", ANNA, "a joke")
    do(engine, actions.judge, alert, "authorised_test", Actor("bob", "page"))
    assert (row(engine).verdict, row(engine).verdict_by, row(engine).state) == ("authorised_test", "bob", "open")
    assert [(r.before, r.after) for r in audit_rows(engine)[1:]] == [
        (None, {"verdict": "false", "note": "a joke"}),
        ({"verdict": "false", "by": "anna"}, {"verdict": "authorised_test"}),
    ]
    assert events(engine) == ["opened"]


def test_find_alert(engine: Engine) -> None:
    alert = opened(engine)
    for written in (str(alert), str(alert)[:8], "threshold:drift:shop:smol"):
        assert do(engine, actions.find_alert, written) == alert
    for written in ("", "%", "0", str(uuid.uuid4()), "threshold:drift:shop:smo"):
        with pytest.raises(UnknownAlertError, match="names none"):
            do(engine, actions.find_alert, written)


# Silences.


def silence(engine: Engine, lasting: timedelta = HOUR, severity: Any = "critical", **matchers: Any) -> Silenced:
    made = do(engine, actions.silence, matchers, lasting, ANNA, "planned", severity)
    assert isinstance(made, Silenced)
    return made


def test_a_silence_covers_what_is_live_and_what_comes(engine: Engine) -> None:
    shop, _ = opened(engine), opened(engine, tenant="bank")
    assert silence(engine, tenant="sh*").alerts == (shop,)
    assert {r.tenant: r.state for r in all_alerts(engine)} == {"shop": "silenced", "bank": "open"}
    (kept_back,) = open_alerts(engine, [flagged(5, tenant="shoes")])
    assert (kept_back.event, kept_back.suppressed) == ("alert.opened", True)
    assert {r.tenant: r.state for r in all_alerts(engine)} == {
        "shop": "silenced",
        "bank": "open",
        "shoes": "silenced",
    }
    assert events(engine) == ["opened", "opened"]


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
    opened(engine)
    assert bool(silence(engine, **matchers).alerts) is covered


def test_a_tenant_called_star_silences_itself_only(engine: Engine) -> None:
    star, _ = opened(engine, tenant="*"), opened(engine, tenant="bank")
    made = do(engine, actions.silence_alert, star, HOUR, ANNA)
    assert made.alerts == (star,)


def test_a_silence_holds_up_to_a_severity(engine: Engine) -> None:
    opened(engine)
    opened(engine, tenant="bank", value=3.0)
    silence(engine, severity="error", rule="*")
    assert {r.severity: r.state for r in all_alerts(engine)} == {"warning": "silenced", "critical": "open"}
    open_alerts(engine, [flagged(7, 3.0, tenant="mill"), flagged(8, 1.2, tenant="farm")])
    assert {r.tenant: r.state for r in all_alerts(engine)} | {"shop": "", "bank": ""} == {
        "shop": "",
        "bank": "",
        "mill": "open",
        "farm": "silenced",
    }


def test_a_silenced_alert_that_worsens_pages_anyway(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.silence_alert, alert, HOUR, ANNA)
    assert open_alerts(engine, [flagged(2, 0.7)]) == []
    (worse,) = open_alerts(engine, [flagged(3, 1.2)])
    assert (worse.event, worse.suppressed, row(engine).state) == ("alert.worsened", False, "open")
    # The silence is spent on it, though it holds on.
    (graver,) = open_alerts(engine, [flagged(4, 3.0)])
    assert (graver.event, row(engine).state) == ("alert.worsened", "open")
    assert events(engine) == ["opened", "worsened", "worsened"]


def test_opened_in_a_silence_it_pages_when_it_worsens(engine: Engine) -> None:
    silence(engine, rule="*")
    open_alerts(engine, [flagged(1)])
    open_alerts(engine, [flagged(2, 3.0)])
    assert events(engine) == ["worsened"]


def test_a_silence_ends_and_what_went_on_is_told(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.silence_alert, alert, HOUR, ANNA)
    open_alerts(engine, [flagged(2)])
    pass_time(engine, 3590)
    assert end_silences(engine, ("pager",)) == 0
    pass_time(engine, 20)
    assert look(engine, NO_RULES).unsilenced == 1
    assert (row(engine).state, events(engine)) == ("open", ["opened", "reopened"])
    assert audit_rows(engine)[-1].action == "unsilence"


def test_a_silence_ends_and_nothing_went_on(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.silence_alert, alert, HOUR, ANNA)
    pass_time(engine, 3610)
    assert end_silences(engine, ("pager",)) == 1
    assert (row(engine).state, events(engine)) == ("open", ["opened"])


def test_opened_in_a_silence_it_is_told_when_that_ends(engine: Engine) -> None:
    silence(engine, rule="*")
    open_alerts(engine, [flagged(1)])
    pass_time(engine, 3610)
    end_silences(engine, ("pager",))
    assert events(engine) == ["opened"]


def test_a_sighting_after_the_end_of_a_silence_tells_at_once(engine: Engine) -> None:
    silence(engine, rule="*")
    open_alerts(engine, [flagged(1)])
    pass_time(engine, 3610)
    (told,) = open_alerts(engine, [flagged(2)])
    assert (told.event, told.suppressed, row(engine).state) == ("alert.opened", False, "open")
    assert end_silences(engine, ("pager",)) == 0
    assert events(engine) == ["opened"]


def test_what_was_in_hand_before_the_silence_is_in_hand_after_it(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.acknowledge, alert, ANNA)
    do(engine, actions.silence_alert, alert, HOUR, ANNA)
    open_alerts(engine, [flagged(2)])
    pass_time(engine, 3610)
    end_silences(engine, ("pager",))
    assert (row(engine).state, events(engine)) == ("acknowledged", ["opened", "acknowledged"])


def test_silences_that_overlap(engine: Engine) -> None:
    opened(engine)
    short, long = silence(engine, HOUR, tenant="shop"), silence(engine, 2 * HOUR, rule="threshold")
    assert do(engine, actions.end_silence, long.id, ANNA) == []
    assert row(engine).silenced_until == short.ends_at
    assert end_silences(engine, ()) == 0
    assert do(engine, actions.end_silence, short.id, ANNA) == [row(engine).id]
    assert end_silences(engine, ()) == 1
    assert row(engine).state == "open"
    with pytest.raises(UnknownAlertError, match="or over"):
        do(engine, actions.end_silence, short.id, ANNA)
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
        do(engine, actions.silence, matchers, lasting, ANNA)


def test_a_resolved_alert_is_not_silenced(engine: Engine) -> None:
    alert = opened(engine)
    do(engine, actions.resolve, alert, ANNA)
    with pytest.raises(TransitionError, match="resolved"):
        do(engine, actions.silence_alert, alert, HOUR, ANNA)


def test_nothing_opens_between_a_silence_and_its_commit(engine: Engine) -> None:
    """Whoever opens waits for the one who silences, and the other way round."""
    thread = threading.Thread(target=lambda: open_alerts(engine, [flagged(1)]))
    with engine.begin() as connection:
        actions.silence(connection, {"rule": "*"}, HOUR, ANNA)
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert (row(engine).state, events(engine)) == ("silenced", [])

    def silencer() -> None:
        silence(engine, tenant="bank")

    thread = threading.Thread(target=silencer)
    with engine.begin() as connection:
        other = flagged(2, tenant="bank")
        record_flagged(connection, [other], ["pager"], [ThresholdRule(name="other")])
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert {r.tenant: r.state for r in all_alerts(engine)} == {"shop": "silenced", "bank": "silenced"}


def test_a_worker_that_is_stuck_does_not_hold_a_silencer_up_for_ever(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.lifecycle.silences._LOCK_SECONDS", 1)
    with engine.begin() as connection:
        record_flagged(connection, [flagged(1)], ["pager"])
        with pytest.raises(TransitionError, match="try again"):
            silence(engine, rule="*")
    assert silence(engine, rule="*").alerts


def test_workers_and_silencers_never_wait_in_a_ring(engine: Engine) -> None:
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
            do(engine, action)
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


# Reopening by a rule, and the messages of an alert.


def test_a_threshold_alert_is_reopened_within_its_time(engine: Engine) -> None:
    again = rules('[[threshold]]\nreopen_within = "30m"').threshold
    with engine.begin() as connection:
        (first,) = record_flagged(connection, [flagged(1, 3.0)], ["pager"], again)
    do(engine, actions.acknowledge, first.alert_id, ANNA)
    do(engine, actions.resolve, first.alert_id, ANNA)
    with engine.begin() as connection:
        (second,) = record_flagged(connection, [flagged(2)], ["pager"], again)
    assert (second.alert_id, second.event, second.severity) == (first.alert_id, "alert.reopened", "warning")
    found = row(engine)
    assert (found.count, found.reopened, found.acknowledged_at, found.top_score) == (2, 1, None, 3.0)
    assert [r.before for r in audit_rows(engine)][-1] == {"state": "resolved", "severity": "critical"}
    do(engine, actions.resolve, first.alert_id, ANNA)
    pass_time(engine, 1801)
    with engine.begin() as connection:
        (third,) = record_flagged(connection, [flagged(3)], ["pager"], again)
    assert third.event == "alert.opened"


def test_two_workers_reopen_it_once(engine: Engine) -> None:
    again = rules('[[threshold]]\nreopen_within = "30m"').threshold
    do(engine, actions.resolve, opened(engine), ANNA)
    told: list[Any] = []
    thread = threading.Thread(target=lambda: told.extend(do(engine, record_flagged, [flagged(3)], ["pager"], again)))
    with engine.begin() as connection:
        told += record_flagged(connection, [flagged(2)], ["pager"], again)
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert [o.event for o in told] == ["alert.reopened"]
    assert (row(engine).count, row(engine).reopened) == (3, 1)


def test_its_messages_are_kept_once_each(engine: Engine) -> None:
    open_alerts(engine, [flagged(n, 0.6 + n / 100) for n in range(9)])
    open_alerts(engine, [flagged(20, 2.0), flagged(20, 2.0)])
    with engine.connect() as connection:
        kept = connection.execute(select(alert_messages).order_by(alert_messages.c.offset)).all()
    assert [r.offset for r in kept] == [*range(9), 20]
    top = all_outbox(engine)[-1].body["data"]["top_messages"]
    assert [m["id"] for m in top] == ["m20", "m8", "m7", "m6", "m5"]
    assert set(top[0]) == {"source", "partition", "offset", "id", "score"}


def test_rules_of_a_file_each_have_their_alerts(engine: Engine) -> None:
    found = rules(
        '[[threshold]]\nname = "all"\n'
        '[[threshold]]\nname = "high"\nabove = 0.5\nseverity = "critical"\nper = "tenant"\n'
        '[[threshold]]\nname = "bank"\ntenant = "bank"\n'
        '[[threshold]]\nname = "quiet"\nshadow = true\n'
        '[[threshold]]\nname = "talk"\nper = ["conversation"]\n'
    ).threshold
    with engine.begin() as connection:
        record_flagged(connection, [flagged(1), flagged(2, 1.2)], ["pager"], found)
    assert {r.dedup_key: (r.count, r.severity) for r in all_alerts(engine)} == {
        "all:drift:shop:smol": (2, "error"),
        "high:drift:shop": (1, "critical"),
        "talk:drift:-": (2, "error"),
    }


def test_prepared_statements_find_the_index(engine: Engine) -> None:
    """After a few executions a statement is planned without its values."""
    with engine.connect() as connection:
        for n in range(15):
            record_flagged(connection, [flagged(n, tenant=f"t{n % 3}")], [])
            connection.commit()
            connection.execute(text("SELECT 1"))
    assert sorted(r.count for r in all_alerts(engine)) == [5, 5, 5]
