"""What time does to alerts: silences expire, quiet alerts resolve."""

from __future__ import annotations

from sqlalchemy import Engine

from alerts.lifecycle import actions
from alerts.lifecycle.expiry import end_silences
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Rules
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
    pass_time,
    rules,
    silence_matching,
)


def test_threshold_alerts_that_are_quiet_resolve(engine: Engine) -> None:
    from tests.support.alerts.alert_rows import flagged

    found = rules('[[threshold]]\nresolve_after = "30m"\n[[threshold]]\nname = "other"')
    with engine.begin() as connection:
        record_flagged(connection, [flagged(1)], ["pager"], found.threshold)
    pass_time(engine, 1790)
    assert look(engine, found).resolved == 0
    pass_time(engine, 20)
    assert look(engine, found).resolved == 1
    assert {r.rule: r.state for r in all_alerts(engine)} == {"threshold": "resolved", "other": "open"}
    assert sorted(event_names(engine)) == ["opened", "opened", "resolved"]


NO_RULES = Rules(threshold=())


def test_when_a_silence_ends_what_it_suppressed_is_notified(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.silence_alert, alert, HOUR, ANNA)
    open_alerts(engine, [flagged(2)])
    pass_time(engine, 3590)
    assert end_silences(engine, ("pager",)) == 0
    pass_time(engine, 20)
    assert look(engine, NO_RULES).unsilenced == 1
    assert (only_alert(engine).state, event_names(engine)) == ("open", ["opened", "reopened"])
    assert audit_rows(engine)[-1].action == "unsilence"


def test_when_a_silence_ends_after_nothing_happened_nothing_is_notified(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.silence_alert, alert, HOUR, ANNA)
    pass_time(engine, 3610)
    assert end_silences(engine, ("pager",)) == 1
    assert (only_alert(engine).state, event_names(engine)) == ("open", ["opened"])


def test_opened_in_a_silence_it_is_notified_when_that_ends(engine: Engine) -> None:
    silence_matching(engine, rule="*")
    open_alerts(engine, [flagged(1)])
    pass_time(engine, 3610)
    end_silences(engine, ("pager",))
    assert event_names(engine) == ["opened"]


def test_a_breach_after_the_end_of_a_silence_notifies_at_once(engine: Engine) -> None:
    silence_matching(engine, rule="*")
    open_alerts(engine, [flagged(1)])
    pass_time(engine, 3610)
    (told,) = open_alerts(engine, [flagged(2)])
    assert (told.event, told.suppressed, only_alert(engine).state) == ("alert.opened", False, "open")
    assert end_silences(engine, ("pager",)) == 0
    assert event_names(engine) == ["opened"]


def test_acknowledged_before_a_silence_is_acknowledged_after_it(engine: Engine) -> None:
    alert = open_one(engine)
    in_transaction(engine, actions.acknowledge, alert, ANNA)
    in_transaction(engine, actions.silence_alert, alert, HOUR, ANNA)
    open_alerts(engine, [flagged(2)])
    pass_time(engine, 3610)
    end_silences(engine, ("pager",))
    assert (only_alert(engine).state, event_names(engine)) == ("acknowledged", ["opened", "acknowledged"])
