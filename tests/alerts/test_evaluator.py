"""Rate and monitor rules on stored scores: they open, hold, clear, reopen, and never say anything twice."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text

from alerts.evaluator import evaluate
from alerts.lifecycle import actions
from alerts.rules.model import RateRule, Rules
from storage.database import connect
from storage.locks import SharedLock, lock
from tests.conftest import url_of
from tests.support.alerts.alert_rows import all_alerts, all_outbox, set_state
from tests.support.alerts.alert_scenes import (
    ANNA,
    BURST,
    event_names,
    insert_worker,
    look,
    pass_time,
    phases,
    rules,
    scored,
    seconds_ago,
)
from tests.support.at_once import at_once
from tests.support.rows import wait_until_blocked


def test_a_burst_opens_one_alert_with_its_messages(engine: Engine) -> None:
    scored(engine, 0, 2)
    assert look(engine, rules(BURST)).opened == []
    scored(engine, 2, 2, value=1.5)
    (opened,) = look(engine, rules(BURST)).opened
    assert (opened.event, opened.dedup_key, opened.severity) == ("alert.opened", "burst:drift:shop", "error")
    assert look(engine, rules(BURST)).opened == []
    (row,) = all_alerts(engine)
    assert (row.kind, row.count, row.top_score, row.threshold, row.units) == ("rate", 4, 4, 3, "flagged conversations")
    assert (row.tenant, row.model, row.first_message["id"], row.top_message["score"]) == ("shop", None, "m0", 1.5)
    (sent,) = all_outbox(engine)
    assert [m["id"] for m in sent.body["data"]["top_messages"]] == ["m2", "m3", "m0", "m1"]


def test_it_counts_each_message_once_while_it_lasts(engine: Engine) -> None:
    scored(engine, 0, 3)
    look(engine, rules(BURST))
    scored(engine, 3, 2)
    for _ in range(3):
        pass_time(engine, 15)
        look(engine, rules(BURST))
    (row,) = all_alerts(engine)
    assert (row.count, row.top_score) == (5, 5)
    assert event_names(engine) == ["opened"]


def test_the_condition_must_be_true_for_its_time(engine: Engine) -> None:
    waits = rules(BURST + 'for = "1m"')
    scored(engine, 0, 3)
    for _ in range(4):
        assert look(engine, waits).opened == []
        pass_time(engine, 15)
    assert len(look(engine, waits).opened) == 1


def test_a_short_breach_leaves_nothing(engine: Engine) -> None:
    waits = rules(BURST + 'for = "1m"')
    scored(engine, 0, 3, ago=570)
    look(engine, waits)
    assert phases(engine) == {"burst:drift:shop": "pending"}
    pass_time(engine, 31)
    look(engine, waits)
    assert phases(engine) == {}
    assert all_alerts(engine) == []


def test_it_clears_after_its_time_and_notifies(engine: Engine) -> None:
    scored(engine, 0, 3)
    look(engine, rules(BURST))
    pass_time(engine, 600)
    seen = []
    for _ in range(12):
        look(engine, rules(BURST))
        (row,) = all_alerts(engine)
        seen.append(row.state)
        pass_time(engine, 30)
    # Five minutes by default: ten looks of 30 s after the first clear one.
    assert seen == ["open"] * 10 + ["resolved"] * 2
    (row,) = all_alerts(engine)
    assert row.resolved_by == "rule burst"
    assert event_names(engine) == ["opened", "resolved"]
    assert phases(engine) == {}


def test_between_its_limits_it_stays_as_it_was(engine: Engine) -> None:
    sticky = rules(BURST + 'clear_at = 1\nclear_for = "0s"')
    scored(engine, 0, 1, ago=300)
    scored(engine, 10, 2)
    look(engine, sticky)
    pass_time(engine, 301)
    look(engine, sticky)  # two left: no breach any more, and not clear
    assert [r.state for r in all_alerts(engine)] == ["open"]
    pass_time(engine, 300)
    look(engine, sticky)
    assert [r.state for r in all_alerts(engine)] == ["resolved"]


def test_what_comes_back_soon_is_the_same_alert(engine: Engine) -> None:
    quick = rules(BURST + 'clear_for = "0s"')
    scored(engine, 0, 3)
    look(engine, quick)
    pass_time(engine, 601)
    look(engine, quick)
    scored(engine, 10, 3)
    (again,) = look(engine, quick).opened
    assert again.event == "alert.reopened"
    (row,) = all_alerts(engine)
    assert (row.state, row.reopened, row.count) == ("open", 1, 6)
    assert event_names(engine) == ["opened", "resolved", "reopened"]


@pytest.mark.parametrize("judged", [True, False])
def test_what_comes_back_late_or_was_judged_is_another_one(engine: Engine, judged: bool) -> None:
    quick = rules(BURST + 'clear_for = "0s"')
    scored(engine, 0, 3)
    (first,) = look(engine, quick).opened
    pass_time(engine, 601)
    look(engine, quick)
    if judged:
        with engine.begin() as connection:
            actions.judge(connection, first.alert_id, "true", ANNA)
    else:
        pass_time(engine, 3600)
    scored(engine, 10, 3)
    assert [o.event for o in look(engine, quick).opened] == ["alert.opened"]
    assert sorted((r.state, r.count) for r in all_alerts(engine)) == [("open", 3), ("resolved", 3)]


def test_resolved_by_a_person_it_stays_quiet_until_it_was_clear(engine: Engine) -> None:
    quick = rules(BURST + 'clear_for = "0s"\nreopen_within = "0s"')
    scored(engine, 0, 3)
    (first,) = look(engine, quick).opened
    with engine.begin() as connection:
        actions.resolve(connection, first.alert_id, ANNA)
    scored(engine, 10, 2)
    assert look(engine, quick).opened == []
    pass_time(engine, 601)
    look(engine, quick)
    scored(engine, 20, 3)
    assert [o.event for o in look(engine, quick).opened] == ["alert.opened"]
    assert [r.count for r in all_alerts(engine)] == [3, 3]


def test_resolved_by_a_person_it_reopens_when_its_severity_increases(engine: Engine) -> None:
    graded = rules(BURST + "severity = {warning = 3, critical = 6}")
    scored(engine, 0, 3)
    (first,) = look(engine, graded).opened
    with engine.begin() as connection:
        actions.resolve(connection, first.alert_id, ANNA)
    scored(engine, 10, 3)
    (again,) = look(engine, graded).opened
    assert (again.event, again.severity) == ("alert.reopened", "critical")


def test_severity_follows_the_value(engine: Engine) -> None:
    graded = rules(BURST + "severity = {warning = 3, critical = 6}")
    scored(engine, 0, 5)
    look(engine, graded)
    scored(engine, 10, 1)
    look(engine, graded)
    assert [(r.event, r.body["data"]["severity"]) for r in all_outbox(engine)] == [
        ("alert.opened", "warning"),
        ("alert.worsened", "critical"),
    ]


def test_a_rule_in_shadow_notifies_nobody(engine: Engine) -> None:
    quiet = rules(BURST + "shadow = true")
    scored(engine, 0, 3)
    assert [look(engine, quiet).would_open for _ in range(3)] == [[("drift", "error")], [], []]
    assert all_alerts(engine) == []
    assert all_outbox(engine) == []


@pytest.mark.parametrize("kind", ["rate", "monitor"])
def test_what_fires_when_a_rule_leaves_shadow_notifies_once(engine: Engine, kind: str) -> None:
    written = BURST if kind == "rate" else '[[monitor]]\nname = "own"\ncheck = "no_worker"\nwindow = "10m"\n'
    scored(engine, 0, 3)
    insert_worker(engine, seen_at=seconds_ago(700))
    assert look(engine, rules(written + "shadow = true")).opened == []
    assert [o.event for _ in range(3) for o in look(engine, rules(written)).opened] == ["alert.opened"]
    assert [r.count for r in all_alerts(engine)] == [3 if kind == "rate" else 1]
    assert event_names(engine) == ["opened"]


def test_destinations_notified_before_shadow_are_notified_of_the_end(engine: Engine) -> None:
    quick = BURST + 'clear_for = "0s"\n'
    scored(engine, 0, 3)
    look(engine, rules(quick))
    pass_time(engine, 700)
    look(engine, rules(quick + "shadow = true"))
    assert event_names(engine) == ["opened", "resolved"]
    assert phases(engine) == {}


@pytest.mark.parametrize("jump", [-7200.0, 86400.0])
def test_a_clock_that_jumps_makes_no_condition_true_for_long(engine: Engine, jump: float) -> None:
    waits = rules(BURST + 'for = "5m"\n').model_copy()
    scored(engine, 0, 3)
    look(engine, waits)
    with engine.begin() as connection:
        # The scores stay in the window: only what the evaluator remembers is far away now.
        connection.execute(text("UPDATE rule_states SET evaluated_at = now() - :by"), {"by": timedelta(seconds=jump)})
    assert look(engine, waits).opened == []
    assert phases(engine) == {"burst:drift:shop": "pending"}


def test_states_of_removed_rules_are_deleted(engine: Engine) -> None:
    scored(engine, 0, 3)
    look(engine, rules(BURST))
    look(engine, rules(""))
    assert phases(engine) == {}
    assert [r.state for r in all_alerts(engine)] == ["open"]


def test_only_one_evaluates_at_a_time(engine: Engine) -> None:
    scored(engine, 0, 3)
    with engine.begin() as connection:
        lock(connection, SharedLock.RULES)
        assert evaluate(engine, rules(BURST), ("pager",)) is None
    assert len(look(engine, rules(BURST)).opened) == 1


def test_an_evaluation_whose_connection_is_gone_ends(engine: Engine) -> None:
    """As the server does it with a process that was frozen for half a minute."""
    from alerts.evaluator import _exclusive

    with _exclusive(engine) as exclusive:
        assert exclusive
        others = text(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = CAST('locks' AS regclass) "
            "AND mode = 'RowShareLock' AND pid <> pg_backend_pid()"
        )
        with engine.connect() as connection:
            assert connection.execute(others).all()
    with _exclusive(engine) as exclusive:
        assert exclusive


def test_evaluators_at_once_open_one_alert_a_key(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the lock that keeps them apart is gone."""
    from contextlib import contextmanager

    from alerts import evaluator

    @contextmanager
    def together(_: Engine) -> Any:
        yield True

    monkeypatch.setattr(evaluator, "_exclusive", together)
    for n, tenant in enumerate("abcdef"):
        scored(engine, 10 * n, 3, tenant=tenant)
    engines = [connect(url_of(engine)) for _ in range(3)]

    def work(own: Engine) -> list[str]:
        keys: list[str] = []
        for _ in range(5):
            done = evaluate(own, rules(BURST), ("pager",))
            assert done is not None
            keys += [o.dedup_key for o in done.opened]
        return keys

    found = at_once([partial(work, own) for own in engines])
    for own in engines:
        own.dispose()
    assert [one for one in found if not isinstance(one, list)] == []
    opened = [key for keys in found for key in keys]
    assert sorted(opened) == [f"burst:drift:{t}" for t in "abcdef"]
    assert [r.count for r in all_alerts(engine)] == [3] * 6
    assert event_names(engine) == ["opened"] * 6


def test_a_rule_that_cannot_be_measured_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from alerts import evaluator

    scored(engine, 0, 3)
    look(engine, rules(BURST))
    monkeypatch.setattr(evaluator, "_STATEMENT_SECONDS", "0.001")
    slow = Rules(threshold=(), rate=(RateRule(name="burst", flagged=3, window="10m"),))
    monkeypatch.setattr(evaluator, "measure_rate", lambda c, _: c.execute(text("SELECT pg_sleep(5)")))
    done = evaluate(engine, slow, ())
    assert done is not None
    assert done.failed == {"burst": "QueryCanceled"}
    assert [r.state for r in all_alerts(engine)] == ["open"]
    assert phases(engine) == {"burst:drift:shop": "firing"}


def test_an_error_in_one_rule_or_key_does_not_stop_the_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from alerts import evaluator

    real, poison = evaluator._breach, "burst:drift:bank"

    def broken(connection: Any, rule: Any, one: Any, severity: str, *, fired: bool) -> Any:
        if one.dedup_key == poison:
            raise KeyError("geheim")
        return real(connection, rule, one, severity, fired=fired)

    monkeypatch.setattr(evaluator, "_breach", broken)
    for n, tenant in enumerate(("bank", "shop")):
        scored(engine, 10 * n, 3, tenant=tenant)
    scored(engine, 50, status="failed")
    done = evaluate(engine, rules(BURST + '[[monitor]]\nname = "own"\ncheck = "dead_letters"\n'), ("pager",))
    assert done is not None
    assert done.failed == {"burst": "KeyError"}
    assert {o.dedup_key for o in done.opened} == {"burst:drift:shop", "own:dead_letters"}


def test_a_person_resolves_what_a_rule_clears_at_the_same_time(engine: Engine) -> None:
    quick = rules(BURST + 'clear_for = "0s"')
    scored(engine, 0, 3)
    (opened,) = look(engine, quick).opened
    pass_time(engine, 700)
    found: list[Any] = []
    with engine.begin() as connection:
        actions.resolve(connection, opened.alert_id, ANNA)
        thread = threading.Thread(target=lambda: found.append(evaluate(engine, quick, ("pager",))))
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert found[0].failed == {}
    assert event_names(engine) == ["opened", "resolved"]
    assert phases(engine) == {}


def test_an_acknowledged_burst_is_not_notified_again(engine: Engine) -> None:
    scored(engine, 0, 3)
    look(engine, rules(BURST))
    set_state(engine, "acknowledged")
    scored(engine, 10, 3)
    assert look(engine, rules(BURST)).opened == []
    assert event_names(engine) == ["opened"]
