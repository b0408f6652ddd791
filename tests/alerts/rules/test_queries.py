"""What rate and monitor rules measure, on real tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.rules.model import MonitorRule, RateRule, Rules
from alerts.rules.queries import measure_drift, measure_rate
from tests.support.alerts.alert_rows import all_alerts
from tests.support.alerts.alert_scenes import (
    BURST,
    event_names,
    insert_worker,
    look,
    pass_time,
    rules,
    scored,
    seconds_ago,
)


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ("", {"burst:drift:shop", "burst:drift:bank"}),
        ('per = "model"', {"burst:drift:smol"}),
        ('per = "conversation"', {"burst:drift:c1"}),
        ("per = []", {"burst:drift"}),
        ('tenant = ["b*", "x"]', {"burst:drift:bank"}),
        ('probe = "other"', set()),
        ('per = ["tenant", "conversation"]', {"burst:drift:shop:c1"}),
    ],
)
def test_messages_are_counted_by_the_labels_of_per(engine: Engine, more: str, keys: set[str]) -> None:
    scored(engine, 0, 3, conversation_id="c1")
    scored(engine, 10, 3, tenant="bank")
    scored(engine, 20, 2, tenant="mill", conversation_id="c2")
    assert {o.dedup_key for o in look(engine, rules(f'{BURST}count = "messages"\n{more}')).opened} == keys


def test_what_is_not_counted(engine: Engine) -> None:
    """Calm messages, old ones, probes in shadow and replays."""
    scored(engine, 0, 2)
    scored(engine, 10, 5, value=0.1)
    scored(engine, 20, 5, ago=601)
    scored(engine, 30, 5, shadow=True)
    scored(engine, 40, 5, probe="other", shadow=True)
    assert look(engine, rules(BURST)).values == {("burst", _subject("shop")): 2.0}


def _subject(tenant: str) -> Any:
    from alerts.rules.queries import Subject

    return Subject("drift", tenant)


def test_of_looks_at_the_last_messages_only(engine: Engine) -> None:
    scored(engine, 0, 3, ago=100)
    scored(engine, 10, 8, value=0.1, ago=50)
    ten, eleven = (rules(f"{BURST}of = {n}") for n in (10, 11))
    assert look(engine, ten).opened == []
    assert [o.dedup_key for o in look(engine, eleven).opened] == ["burst:drift:shop"]


def test_of_is_counted_by_group(engine: Engine) -> None:
    scored(engine, 0, 3, ago=100)
    scored(engine, 10, 30, value=0.1, ago=50, tenant="bank")
    assert len(look(engine, rules(BURST + "of = 3")).opened) == 1


def monitor(check: str, more: str = "") -> Rules:
    return rules(f'[[monitor]]\nname = "own"\ncheck = "{check}"\nwindow = "10m"\nclear_for = "0s"\n{more}')


def test_no_traffic(engine: Engine) -> None:
    assert look(engine, monitor("no_traffic")).opened == []  # nobody has ever read anything
    insert_worker(engine, stored_at=seconds_ago(590))
    insert_worker(engine, stored_at=seconds_ago(5000))
    assert look(engine, monitor("no_traffic")).opened == []
    pass_time(engine, 15)
    (opened,) = look(engine, monitor("no_traffic")).opened
    assert (opened.dedup_key, opened.probe) == ("own:no_traffic", None)
    (row,) = all_alerts(engine)
    assert (row.kind, row.units, row.threshold, row.first_message, row.count) == ("monitor", "seconds", 600, None, 1)
    insert_worker(engine, stored_at=seconds_ago(1))
    look(engine, monitor("no_traffic"))
    assert [r.state for r in all_alerts(engine)] == ["resolved"]
    assert event_names(engine) == ["opened", "resolved"]


def test_no_worker(engine: Engine) -> None:
    insert_worker(engine, seen_at=seconds_ago(601), stored_at=seconds_ago(1))
    assert len(look(engine, monitor("no_worker")).opened) == 1


def test_lag_and_delay_are_those_of_workers_with_a_heartbeat(engine: Engine) -> None:
    insert_worker(engine, lag=600, oldest_seconds=20.0)
    insert_worker(engine, lag=300, oldest_seconds=301.0)
    insert_worker(engine, lag=900, oldest_seconds=900.0, seen_at=seconds_ago(300))
    insert_worker(engine, lag=10**9, lag_unit="bytes")
    assert list(look(engine, monitor("lag")).values.values()) == [900]
    assert list(look(engine, monitor("delay")).values.values()) == [301]
    assert look(engine, monitor("lag", "above = 899")).opened[0].severity == "error"


@pytest.mark.parametrize(("check", "number"), [("dead_letters", 2), ("fail_open", 3)])
def test_what_went_by_without_a_score(engine: Engine, check: str, number: int) -> None:
    for n, status in enumerate(("invalid", "failed", "skipped", "truncated")):
        scored(engine, n, status=status)
    scored(engine, 10, status="failed", ago=601)
    done = look(engine, monitor(check))
    assert list(done.values.values()) == [number]
    assert len(done.opened) == 1
    assert look(engine, monitor(check, f"above = {number}")).resolved == 1


QUANTILES = [[n / 40, n / 40] for n in range(41)]


def test_score_drift_is_by_probe(engine: Engine) -> None:
    card = {"calibration": {"quantiles": QUANTILES}}
    for n in range(40):
        scored(engine, 10 * n, 10, value=(n + 0.5) / 40, card=card)
    scored(engine, 1000, 400, value=1.4, probe="other", card=card)
    scored(engine, 2000, 100, value=1.4, probe="few", card=card)
    scored(engine, 3000, 400, value=1.4, probe="quiet", card=card, shadow=True)
    done = look(engine, monitor("score_drift"))
    values = {subject.probe: value for (_, subject), value in done.values.items()}
    assert set(values) == {"drift", "other"}
    assert values["drift"] < 0.05
    assert values["other"] > 2
    assert [o.dedup_key for o in done.opened] == ["own:other"]
    with engine.connect() as connection:
        only = MonitorRule(name="own", check="score_drift", probe=("dr*",))
        assert set(measure_drift(connection, only)) == {"drift"}


def test_names_that_sql_would_trip_over(engine: Engine) -> None:
    odd = "100%_\\*'\u2400"
    scored(engine, 0, 3, tenant=odd)
    scored(engine, 10, 3, tenant="100xx")
    rule = RateRule(name="burst", flagged=3, window=timedelta(minutes=10), tenant=("100%_\\*",))
    with engine.connect() as connection:
        assert [m.subject.tenant for m in measure_rate(connection, rule)] == [odd]
