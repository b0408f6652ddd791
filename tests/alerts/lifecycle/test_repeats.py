"""Later turns of a conversation that an alert was resolved for: counted there, and told only where they are news."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text

from alerts.lifecycle import actions
from alerts.lifecycle.actions import Verdict
from alerts.rules.model import ThresholdRule
from storage.database import connect
from storage.queries.alerts import judged_messages
from storage.schema import alert_messages
from tests.conftest import url_of
from tests.support.alerts.alert_rows import all_alerts
from tests.support.alerts.alert_scenes import ANNA, audit_rows, event_names, in_transaction, look, pass_time, rules
from tests.support.alerts.turns import take, turn
from tests.support.at_once import at_once

DAY = 86_400.0


def resolve_all(engine: Engine) -> None:
    for row in all_alerts(engine):
        if row.state != "resolved":
            in_transaction(engine, actions.resolve, row.id, ANNA)


def states(engine: Engine) -> list[tuple[str, int]]:
    return [(row.state, row.count) for row in all_alerts(engine)]


def test_the_next_turn_after_the_alert_was_resolved_counts_and_is_not_told(engine: Engine) -> None:
    take(engine, turn(1))
    take(engine, turn(2))
    resolve_all(engine)
    before = len(audit_rows(engine))
    assert take(engine, turn(3, value=0.7)) == []
    assert take(engine, turn(4), turn(5)) == []
    (row,) = all_alerts(engine)
    assert (row.state, row.count, row.top_score, row.top_message["id"]) == ("resolved", 5, 0.7, "m3")
    assert row.last_seen_at > row.resolved_at
    assert event_names(engine) == ["opened", "resolved"]
    assert len(audit_rows(engine)) == before
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(alert_messages)).scalar_one() == 5


@pytest.mark.parametrize(
    "other",
    [
        turn(9, "another"),
        turn(9, None),
        turn(9, "talk", "bank"),
        turn(9, "talk", None),
        turn(9, "talk", value=1.2),
    ],
)
def test_what_is_news_after_all(engine: Engine, other: Any) -> None:
    """Another conversation, one of another tenant with the same id, none, and the same at a higher severity."""
    take(engine, turn(1))
    resolve_all(engine)
    assert [o.event for o in take(engine, other)] == ["alert.opened"]
    assert sorted(states(engine)) == [("open", 1), ("resolved", 1)]


def test_it_is_the_severity_of_the_conversation_that_counts_not_that_of_the_alert(engine: Engine) -> None:
    take(engine, turn(1, "calm"), turn(2, "worst", value=3.0))
    resolve_all(engine)
    assert take(engine, turn(3, "calm"), turn(4, "worst", value=2.9)) == []
    (opened,) = take(engine, turn(5, "calm", value=1.7))
    assert (opened.event, opened.severity) == ("alert.opened", "critical")


def test_a_turn_in_a_live_alert_counts_there_and_worsens_it(engine: Engine) -> None:
    take(engine, turn(1))
    assert take(engine, turn(2)) == []
    assert [o.event for o in take(engine, turn(3, value=1.2))] == ["alert.worsened"]
    assert states(engine) == [("open", 3)]


def test_a_repeat_leaves_another_live_alert_of_the_key_alone(engine: Engine) -> None:
    take(engine, turn(1, value=1.7))
    resolve_all(engine)
    take(engine, turn(2, "another"))
    assert take(engine, turn(3, value=1.7), turn(4, "another")) == []
    assert states(engine) == [("resolved", 2), ("open", 2)]
    assert [row.severity for row in all_alerts(engine)] == ["critical", "warning"]
    # What the live one has worsens it, and only that.
    assert [o.event for o in take(engine, turn(5, value=2.5), turn(6, "another", value=1.2))] == ["alert.worsened"]
    assert states(engine) == [("resolved", 3), ("open", 3)]


def test_a_conversation_that_is_in_the_live_alert_counts_there(engine: Engine) -> None:
    take(engine, turn(1))
    resolve_all(engine)
    take(engine, turn(2, value=1.2))
    assert take(engine, turn(3)) == []
    assert states(engine) == [("resolved", 1), ("open", 2)]


def test_of_several_resolved_alerts_it_counts_for_the_last_one(engine: Engine) -> None:
    take(engine, turn(1))
    resolve_all(engine)
    pass_time(engine, 60)
    take(engine, turn(2, value=1.2))
    resolve_all(engine)
    assert take(engine, turn(3, value=1.2), turn(4)) == []
    assert states(engine) == [("resolved", 1), ("resolved", 3)]


def test_it_is_told_again_after_repeat_within(engine: Engine) -> None:
    take(engine, turn(1))
    resolve_all(engine)
    pass_time(engine, DAY - 60)
    assert take(engine, turn(2)) == []
    pass_time(engine, 120)
    assert [o.event for o in take(engine, turn(3))] == ["alert.opened"]
    assert states(engine) == [("resolved", 2), ("open", 1)]


def test_without_repeat_within_each_turn_is_news(engine: Engine) -> None:
    found = (ThresholdRule(repeat_within=timedelta()),)
    take(engine, turn(1), rules=found)
    resolve_all(engine)
    assert [o.event for o in take(engine, turn(2), rules=found)] == ["alert.opened"]


def test_an_alert_that_would_reopen_stays_resolved_for_a_repeat(engine: Engine) -> None:
    found = (ThresholdRule(reopen_within=timedelta(hours=1)),)
    take(engine, turn(1), rules=found)
    resolve_all(engine)
    assert take(engine, turn(2), rules=found) == []
    assert [o.event for o in take(engine, turn(3, "another"), rules=found)] == ["alert.reopened"]
    assert [o.event for o in take(engine, turn(4), rules=found)] == []
    assert states(engine) == [("open", 4)]


@pytest.mark.parametrize("verdict", ["true", "false", "authorised_test"])
def test_a_verdict_is_on_the_turns_before_it(engine: Engine, verdict: Verdict) -> None:
    take(engine, turn(1))
    resolve_all(engine)
    in_transaction(engine, actions.judge, all_alerts(engine)[0].id, verdict, ANNA)
    assert take(engine, turn(2)) == []
    (row,) = all_alerts(engine)
    assert (row.verdict, row.count) == (verdict, 2)
    with engine.connect() as connection:
        assert {at.offset for at in judged_messages(connection, "drift", (verdict,))} == {1}
    assert [o.event for o in take(engine, turn(3, value=1.2))] == ["alert.opened"]


def test_a_rule_that_resolves_by_itself(engine: Engine) -> None:
    found = rules('[[threshold]]\nresolve_after = "10m"')
    take(engine, turn(1), rules=found.threshold)
    pass_time(engine, 700)
    assert look(engine, found).resolved == 1
    assert take(engine, turn(2), rules=found.threshold) == []
    assert states(engine) == [("resolved", 2)]


def test_keys_by_conversation(engine: Engine) -> None:
    found = (ThresholdRule(per=("conversation",)),)
    take(engine, turn(1), turn(2, "another"), rules=found)
    resolve_all(engine)
    assert take(engine, turn(3), turn(4, "another"), rules=found) == []
    assert states(engine) == [("resolved", 2), ("resolved", 2)]


def test_messages_of_one_record_are_several(engine: Engine) -> None:
    take(engine, turn(1))
    resolve_all(engine)
    assert take(engine, turn(1), sub=1) == []
    (row,) = all_alerts(engine)
    assert row.count == 2
    with engine.connect() as connection:
        assert sorted(connection.execute(select(alert_messages.c.sub)).scalars()) == [0, 1]


def test_the_neighbour_in_a_record_is_another_conversation(engine: Engine) -> None:
    take(engine, turn(1))
    take(engine, turn(1, "neighbour", value=0.1), sub=1)
    resolve_all(engine)
    assert [o.event for o in take(engine, turn(2, "neighbour"))] == ["alert.opened"]


def test_workers_at_once_count_every_turn(engine: Engine) -> None:
    """Repeats of two alerts in both orders, beside turns that reopen the later one."""
    found = (ThresholdRule(reopen_within=timedelta(hours=1)),)
    take(engine, turn(1, "x"))
    resolve_all(engine)
    take(engine, turn(2, "y"))
    resolve_all(engine)
    workers = [connect(url_of(engine)) for _ in range(4)]

    def work(number: int) -> None:
        for n in range(10):
            at = 1000 * (number + 1) + 10 * n
            new = [turn(at + 2, f"new-{number}")] if n == number else []
            take(workers[number], turn(at, "x"), turn(at + 1, "y"), *new, rules=found)

    assert at_once([partial(work, number) for number in range(4)]) == [None] * 4
    for worker in workers:
        worker.dispose()
    assert sum(row.count for row in all_alerts(engine)) == 2 + 4 * 20 + 4
    assert len(all_alerts(engine)) == 2


def test_odd_names(engine: Engine) -> None:
    """As the tables hold them: NUL and half a surrogate pair are replaced there."""
    take(engine, turn(1, "t\x00\ud800", "s\x00"))
    resolve_all(engine)
    assert take(engine, turn(2, "t\x00\ud800", "s\x00")) == []


def test_names_of_all_lengths_can_be_stored(engine: Engine) -> None:
    """Also ones that take four bytes a letter: the key of an alert is in an index."""
    long = "\U0001f600" * 512
    found = (ThresholdRule(per=("tenant", "model", "conversation")),)
    assert len(take(engine, turn(1, long, long), rules=found)) == 1
    assert len(take(engine, turn(2, long, long + "x"), rules=found)) == 1
    (first, second) = all_alerts(engine)
    assert first.dedup_key != second.dedup_key
    assert max(len(r.dedup_key.encode()) for r in (first, second)) <= 1000
    resolve_all(engine)
    assert take(engine, turn(3, long, long), rules=found) == []
    row = all_alerts(engine)[0]
    in_transaction(engine, actions.reopen, row.id, ANNA)
    silenced = in_transaction(engine, actions.silence_alert, row.id, timedelta(hours=1), ANNA)
    assert silenced.alerts == (row.id,)


def test_the_search_for_repeats_uses_indexes(engine: Engine) -> None:
    from alerts.lifecycle.repeats import _EARLIER

    for n in range(40):
        take(engine, *(turn(100 * n + i, f"talk-{n}", "shop", 0.6) for i in range(50)))
    resolve_all(engine)
    wanted = {"keys": ["threshold:drift:shop:smol"], "tenants": ["shop"], "conversations": ["talk-3"]}
    span = {"within": timedelta(days=1), "since": all_alerts(engine)[0].opened_at}
    with engine.begin() as connection:
        connection.execute(text("ANALYZE"))
        plan = "\n".join(connection.execute(text(f"EXPLAIN {_EARLIER.text}"), wanted | span).scalars())
    assert "Seq Scan" not in plan
    assert "conversation_id" in plan
