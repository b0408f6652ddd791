"""What rate and monitor rules measure, on real tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from alerts.rules.builtin import built_in
from alerts.rules.model import MonitorRule, RateRule, Rules
from alerts.rules.queries import measure_drift, measure_rate
from storage.schema import UNREADABLE_FROM, alert_messages
from tests.support.alerts.alert_rows import all_alerts, all_outbox
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
from tests.support.alerts.turns import take, turn


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


def test_a_conversation_counts_once_whatever_its_turns(engine: Engine) -> None:
    """Each turn repeats the history: five flagged turns are one flagged conversation."""
    scored(engine, 0, 5, conversation_id="c1")
    scored(engine, 10, 4, value=0.1, conversation_id="c1")
    assert look(engine, rules(BURST)).values == {("burst", _subject("shop")): 1.0}
    scored(engine, 20, 1, conversation_id="c1", tenant="bank")
    scored(engine, 30, 1, conversation_id="c2")
    assert look(engine, rules(BURST)).opened == []
    scored(engine, 40, 1)
    (opened,) = look(engine, rules(BURST)).opened
    assert opened.dedup_key == "burst:drift:shop"
    (row,) = all_alerts(engine)
    assert (row.units, row.top_score, row.count) == ("flagged conversations", 3, 7)


def test_of_counts_conversations_by_their_newest_message(engine: Engine) -> None:
    for n, talk in enumerate(("a", "b", "c")):
        scored(engine, n, 1, ago=100 - n, conversation_id=talk)
    # A conversation that was flagged goes on, and many calm ones come.
    scored(engine, 10, 1, value=0.1, ago=50, conversation_id="a")
    for n in range(3):
        scored(engine, 20 + n, 1, value=0.1, ago=60, conversation_id=f"calm-{n}")
    values = {n: look(engine, rules(f"{BURST.replace('3', '1')}of = {n}")).values for n in (1, 4, 5, 6)}
    assert {n: list(found.values()) for n, found in values.items()} == {1: [1.0], 4: [1.0], 5: [2.0], 6: [3.0]}


def test_messages_of_one_record_have_their_own_scores(engine: Engine) -> None:
    """A join without the place in the record would count each with the labels of both."""
    take(engine, turn(1, None, "shop", 0.9))
    take(engine, turn(1, None, "bank", 0.1), sub=1)
    take(engine, turn(1, None, "mill", 0.9), sub=2)
    scored(engine, 100, 1, value=0.1)
    rule = rules(BURST.replace("flagged = 3", "flagged = 1"))
    done = look(engine, rule)
    assert done.values == {("burst", _subject("shop")): 1.0, ("burst", _subject("mill")): 1.0}
    assert [(r.tenant, r.count, r.top_message.get("sub")) for r in rate_alerts(engine)] == [
        ("mill", 1, 2),
        ("shop", 1, None),
    ]


def test_each_message_of_a_record_is_added_to_the_alert(engine: Engine) -> None:
    rule = rules(BURST.replace("flagged = 3", "flagged = 1"))
    scored(engine, 100, 1, value=0.1)
    for sub, number in ((0, 1), (3, 2)):
        take(engine, turn(1, None), sub=sub)
        look(engine, rule)
        assert [r.count for r in rate_alerts(engine)] == [number]
    with engine.connect() as connection:
        subs = select(alert_messages.c.sub).where(alert_messages.c.alert_id == rate_alerts(engine)[0].id)
        assert sorted(connection.execute(subs).scalars()) == [0, 3]


def rate_alerts(engine: Engine) -> list[Any]:
    return sorted((r for r in all_alerts(engine) if r.kind == "rate"), key=lambda r: r.tenant)


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


def test_messages_that_were_not_read_whole(engine: Engine) -> None:
    scored(engine, 0, 4)
    read_in_part(engine, "length", 0, 1)
    read_in_part(engine, "length,media", 2, 2)
    scored(engine, 10, 1, ago=601)
    read_in_part(engine, "media", 10, 10)
    assert list(look(engine, monitor("partial")).values.values()) == [3]
    (row,) = all_alerts(engine)
    assert (row.dedup_key, row.units, row.tenant) == ("own:partial", "messages", "shop")
    assert look(engine, monitor("partial", "above = 3")).resolved == 1


def test_messages_that_cannot_be_made_sense_of(engine: Engine) -> None:
    scored(engine, 0, 5)
    for offset, share in enumerate((0.0, 0.29, UNREADABLE_FROM, 0.5, 1.0)):
        unreadable(engine, share, offset)
    scored(engine, 10, 1, ago=601)
    unreadable(engine, 1.0, 10)
    assert list(look(engine, monitor("unreadable")).values.values()) == [3]
    (row,) = all_alerts(engine)
    assert (row.dedup_key, row.units, row.tenant) == ("own:unreadable", "messages", "shop")
    assert look(engine, monitor("unreadable", "above = 3")).resolved == 1


def unreadable(engine: Engine, share: float, offset: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text('UPDATE messages SET unreadable = :share WHERE "offset" = :offset'), {"share": share, "offset": offset}
        )


def read_in_part(engine: Engine, why: str, first: int, last: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text('UPDATE messages SET partial = :why WHERE "offset" BETWEEN :first AND :last'),
            {"why": why, "first": first, "last": last},
        )


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"mallory": 60, "shop": 3}, "mallory"),
        ({"mallory": 30, "shop": 30}, None),
        ({"mallory": 20, "shop": 20, "bank": 21}, None),
        ({None: 60, "shop": 3}, None),
    ],
)
def test_a_flood_of_one_tenant_is_told_and_names_it(
    engine: Engine, numbers: dict[str | None, int], named: str | None
) -> None:
    """By the built-in rules; a few of another day do not count."""
    found = built_in(0.5, 1.0)
    scored(engine, 9000, 20, status="invalid", tenant="shop")
    assert look(engine, found).opened == []
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM messages"))
    for n, (tenant, number) in enumerate(numbers.items()):
        scored(engine, 100 * n, number, status="invalid", tenant=tenant)
    (opened,) = look(engine, found).opened
    assert (opened.dedup_key, opened.severity) == ("unscored:fail_open", "error")
    (row,) = all_alerts(engine)
    assert (row.tenant, row.top_score) == (named, sum(numbers.values()))
    assert look(engine, found).opened == []
    assert event_names(engine) == ["opened"]


def test_the_tenant_is_that_of_the_moment_when_it_is_told(engine: Engine) -> None:
    found = built_in(0.5, 1.0)
    scored(engine, 0, 30, status="invalid", tenant="shop")
    look(engine, found)
    scored(engine, 1000, 100, status="invalid", tenant="mallory")
    look(engine, found)
    assert [r.tenant for r in all_alerts(engine)] == ["shop"]
    scored(engine, 2000, 900, status="invalid", tenant="mallory")
    look(engine, found)
    assert [(r.tenant, r.severity) for r in all_alerts(engine)] == [("mallory", "critical")]
    assert [(r.event, r.body["data"]["tenant"]) for r in all_outbox(engine)] == [
        ("alert.opened", "shop"),
        ("alert.worsened", "mallory"),
    ]


def test_a_flood_that_comes_and_goes_is_one_alert(engine: Engine) -> None:
    found = built_in(0.5, 1.0)
    opened = resolved = 0
    for n in range(6):
        # Every ten minutes as many as make it, in between nearly none.
        scored(engine, 100 * n, 25, status="skipped")
        for _ in range(20):
            done = look(engine, found)
            opened, resolved = opened + len(done.opened), resolved + done.resolved
            pass_time(engine, 60)
    assert (opened, resolved) == (1, 0)


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


def test_score_drift_is_of_one_card(engine: Engine) -> None:
    """What another card of the same name scored, and what none is known to have, is compared with nothing."""
    card = {"calibration": {"quantiles": QUANTILES}}
    scored(engine, 0, 400, value=1.4, card=card, probe_digest="d1")
    scored(engine, 1000, 400, value=1.4, probe_digest="")
    rule = MonitorRule(name="own", check="score_drift")

    def drift() -> dict[str, float]:
        with engine.connect() as connection:
            return measure_drift(connection, rule)

    assert drift()["drift"] > 2
    # Until the next card has enough scores, the one before is measured.
    for n in range(40):
        scored(engine, 2000 + 10 * n, 4, value=(n + 0.5) / 40, card=card, probe_digest="d2")
    assert drift()["drift"] > 2
    for n in range(40):
        scored(engine, 3000 + 10 * n, 4, value=(n + 0.5) / 40, card=card, probe_digest="d2")
    assert drift()["drift"] < 0.05
    # A candidate that is replayed changes nothing; scores of unknown digest alone are no drift.
    scored(engine, 5000, 400, value=9, card=card, probe_digest="d3", shadow=True)
    assert drift()["drift"] < 0.05
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET probe_digest = '' WHERE shadow IS NOT TRUE AND \"offset\" >= 2000"))
        connection.execute(text("DELETE FROM scores WHERE probe_digest = 'd1'"))
    assert drift() == {}


def test_names_that_sql_would_trip_over(engine: Engine) -> None:
    odd = "100%_\\*'\u2400"
    scored(engine, 0, 3, tenant=odd)
    scored(engine, 10, 3, tenant="100xx")
    rule = RateRule(name="burst", flagged=3, window=timedelta(minutes=10), tenant=("100%_\\*",))
    with engine.connect() as connection:
        assert [m.subject.tenant for m in measure_rate(connection, rule)] == [odd]
