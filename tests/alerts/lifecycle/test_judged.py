"""A judge's verdicts on the messages of an alert: it ends when all are harmless, whoever comes first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from alerts.errors import RulesError
from alerts.lifecycle.audit import Actor
from alerts.lifecycle.judged import lower, release
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Flagged, ThresholdRule
from storage.judgements import Judgement, record_judgement
from storage.partitions import utc_today
from tests.support.alerts.alert_rows import all_alerts, all_outbox, flagged
from tests.support.alerts.alert_scenes import rules, scored
from tests.support.rows import digest_of, wait_until_blocked

JUDGE = Actor("judge small at host", "rule", "host")
RULES = rules('[[threshold]]\nname = "each"\njudge_resolves = true\njudge_holds = "20s"\n').threshold


def alert_of(engine: Engine, number: int, given: Sequence[ThresholdRule] = RULES, **more: Any) -> list[Flagged]:
    """An alert with so many messages, all of them waiting for the judge."""
    scored(engine, 0, number)
    found = [replace(flagged(n, 0.9), day=utc_today(), waiting=True, **more) for n in range(number)]
    with engine.begin() as connection:
        record_flagged(connection, found, ("pager",), given)
    return found


def judge(engine: Engine, one: Flagged, verdict: Judgement, given: Sequence[ThresholdRule] = RULES) -> None:
    with engine.begin() as connection:
        at, now = one.coordinates, datetime.now(UTC)
        assert record_judgement(connection, at, one.probe, digest_of("drift"), verdict, "small", None, now)
        if verdict == "harmless":
            lower(connection, one, given, JUDGE)
        else:
            release(connection, one, given)


def due(engine: Engine) -> list[bool]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT due_at <= now() FROM outbox ORDER BY seq")).scalars())


def test_the_last_verdict_resolves(engine: Engine) -> None:
    found = alert_of(engine, 3)
    assert due(engine) == [False]
    for one in found[:2]:
        judge(engine, one, "harmless")
        assert [alert.state for alert in all_alerts(engine)] == ["open"]
    judge(engine, found[2], "harmless")
    (alert,) = all_alerts(engine)
    assert (alert.state, alert.resolved_by) == ("resolved", JUDGE.who)
    # Nobody was told, and nobody needs to be.
    assert all_outbox(engine) == []


@pytest.mark.parametrize("verdict", ["harmful", "failed", "not asked"])
def test_any_other_verdict_lets_go_what_is_held(engine: Engine, verdict: Judgement) -> None:
    found = alert_of(engine, 2)
    judge(engine, found[0], verdict)
    assert due(engine) == [True]
    judge(engine, found[1], "harmless")
    assert [alert.state for alert in all_alerts(engine)] == ["open"]


def test_two_verdicts_at_once(engine: Engine) -> None:
    """Each of two transactions does not see the other's verdict; the one that is later must not miss it."""
    found = alert_of(engine, 2)
    connection = engine.connect()
    first = connection.begin()
    at, now = found[0].coordinates, datetime.now(UTC)
    assert record_judgement(connection, at, "drift", digest_of("drift"), "harmless", "small", None, now)
    assert lower(connection, found[0], RULES, JUDGE) == 0
    other = threading.Thread(target=judge, args=(engine, found[1], "harmless"))
    other.start()
    wait_until_blocked(engine)
    first.commit()
    connection.close()
    other.join(20)
    assert [alert.state for alert in all_alerts(engine)] == ["resolved"]


def test_messages_that_are_gone_were_not_judged(engine: Engine) -> None:
    found = alert_of(engine, 2)
    with engine.begin() as connection:
        connection.execute(text('DELETE FROM alert_messages WHERE "offset" = 1'))
    judge(engine, found[0], "harmless")
    assert [alert.state for alert in all_alerts(engine)] == ["open"]


def test_a_rule_that_does_not_say_so_lowers_nothing(engine: Engine) -> None:
    plain = rules('[[threshold]]\nname = "each"\n').threshold
    found = alert_of(engine, 1, plain)
    assert due(engine) == [True]
    judge(engine, found[0], "harmless", plain)
    assert [alert.state for alert in all_alerts(engine)] == ["open"]


def test_what_is_not_judged_is_not_held(engine: Engine) -> None:
    """One message outside of the band is enough."""
    scored(engine, 0, 2)
    asked = replace(flagged(0, 0.9), day=utc_today(), waiting=True)
    with engine.begin() as connection:
        record_flagged(connection, [asked, replace(flagged(1, 5.0), day=utc_today())], ("pager",), RULES)
    assert due(engine) == [True]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('judge_holds = "20s"', "judge_holds: needs judge_resolves"),
        ('judge_resolves = true\njudge_holds = "1m"', "judge_holds: at most 25s"),
        ("judge_resolves = 7", "judge_resolves"),
    ],
)
def test_mistakes_in_rules(fields: str, said: str) -> None:
    with pytest.raises(RulesError, match=said):
        rules(f'[[threshold]]\nname = "each"\n{fields}\n')
