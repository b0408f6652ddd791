"""While the monitor is blind nothing is "all quiet": what would be resolved for want of messages stays and says why."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import (
    BURST,
    event_names,
    insert_worker,
    look,
    only_alert,
    pass_time,
    rules,
    scored,
    seconds_ago,
)

QUIET = rules('[[threshold]]\nname = "threshold"\nresolve_after = "1h"\n')
COUNTING = rules(
    BURST
    + 'clear_for = "1m"\n'
    + '[[monitor]]\nname = "unscored"\ncheck = "fail_open"\nabove = 2\nwindow = "10m"\nclear_for = "1m"\n'
    + '[[monitor]]\nname = "gone"\ncheck = "no_worker"\nwindow = "5m"\nclear_for = "1m"\n'
)


def alert_states(engine: Engine) -> dict[str, str]:
    return {row.rule: row.state for row in all_alerts(engine)}


def open_quiet_one(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)], ("pager",))
    pass_time(engine, 3700)


@pytest.mark.parametrize(
    ("worker", "why"),
    [
        ({"seen_at": seconds_ago(600)}, "the monitor is blind: no heartbeat of a worker since "),
        ({"oldest_seconds": 900.0}, "the monitor is blind: workers are more than 5m behind"),
    ],
)
def test_an_alert_without_messages_is_not_over_while_nobody_looks(
    engine: Engine, worker: dict[str, object], why: str
) -> None:
    open_quiet_one(engine)
    insert_worker(engine, **worker)
    done = look(engine, QUIET)
    assert (done.resolved, only_alert(engine).state) == (0, "open")
    assert only_alert(engine).held_open.startswith(why)
    assert event_names(engine) == ["opened"]
    # Somebody looks again, and has nothing more to read.
    insert_worker(engine, oldest_seconds=0.5)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE workers SET seen_at = now(), oldest_seconds = 0.5")
    assert look(engine, QUIET).resolved == 1
    assert event_names(engine) == ["opened", "resolved"]
    assert only_alert(engine).held_open is None


def test_a_files_worker_that_has_ended_is_not_blindness(engine: Engine) -> None:
    open_quiet_one(engine)
    insert_worker(engine, source="traffic.jsonl", lag_unit="bytes", seen_at=seconds_ago(7200))
    assert look(engine, QUIET).resolved == 1


def test_a_rule_on_not_seeing_that_fires_holds_it_too(engine: Engine) -> None:
    found = rules(
        '[[threshold]]\nname = "threshold"\nresolve_after = "1h"\n'
        '[[monitor]]\nname = "unscored"\ncheck = "fail_open"\nabove = 2\nwindow = "10m"\n'
    )
    open_quiet_one(engine)
    scored(engine, 10, 5, status="failed")
    look(engine, found)
    assert look(engine, found).blind == ("unscored fires",)
    assert alert_states(engine) == {"threshold": "open", "unscored": "open"}
    held = next(row for row in all_alerts(engine) if row.rule == "threshold")
    assert held.held_open == "the monitor is blind: unscored fires"


def test_counts_that_fall_because_nothing_is_read_resolve_nothing(engine: Engine) -> None:
    insert_worker(engine)
    scored(engine, 1, 3)
    scored(engine, 10, 5, status="failed")
    look(engine, COUNTING)
    assert alert_states(engine) == {"burst": "open", "unscored": "open"}
    for _ in range(4):
        pass_time(engine, 300)
        look(engine, COUNTING)
    assert alert_states(engine) == {"burst": "open", "unscored": "open", "gone": "open"}
    assert "resolved" not in event_names(engine)
    burst = next(row for row in all_alerts(engine) if row.rule == "burst")
    assert "gone fires" in burst.held_open
    # A worker is back: first that is over, then what it knows about by then.
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE workers SET seen_at = now()")
    for _ in range(8):
        look(engine, COUNTING)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE rule_states SET evaluated_at = evaluated_at - interval '60 s'")
    assert alert_states(engine) == {"burst": "resolved", "unscored": "resolved", "gone": "resolved"}
    resolved = [row.rule for row in sorted(all_alerts(engine), key=lambda row: row.resolved_at)]
    assert resolved[0] == "gone"
    assert all(row.held_open is None for row in all_alerts(engine))


def test_what_makes_it_blind_may_end_by_itself(engine: Engine) -> None:
    found = rules('[[monitor]]\nname = "unscored"\ncheck = "fail_open"\nabove = 2\nwindow = "10m"\nclear_for = "0s"\n')
    insert_worker(engine)
    scored(engine, 10, 5, status="failed")
    look(engine, found)
    assert alert_states(engine) == {"unscored": "open"}
    pass_time(engine, 700)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE workers SET seen_at = now()")
    look(engine, found)
    look(engine, found)
    assert alert_states(engine) == {"unscored": "resolved"}
