"""Rules on what the turns of a conversation say together, and on turns that are new."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from alerts.errors import RulesError
from alerts.lifecycle.enqueue import top_messages
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.backtest import backtest
from alerts.rules.model import Flagged
from alerts.text import decided_by
from storage.coordinates import Coordinates
from storage.partitions import utc_today
from storage.writer import BatchRows
from tests.support.alerts.alert_rows import all_alerts
from tests.support.alerts.alert_scenes import rules
from tests.support.rows import message, score, write

ESCALATION = '[[threshold]]\nname = "escalation"\nmeasure = "trajectory"\nthreshold = 0.3\nseverity = "warning"\n'
CALM = Flagged("drift", 0.4, 0.5, "shop", "m", Coordinates("topic", 0, 1), "m1", flagged=False, day=utc_today())
RISING = replace(CALM, trajectory=0.39, path_length=0.8, turn=2, turn_new=True, reading="base64")


def test_turns_open_an_alert_that_no_score_does(engine: Engine) -> None:
    both = rules(ESCALATION + '[[threshold]]\nname = "plain"\n')
    today = utc_today()
    row = score(
        1,
        0.4,
        trajectory=0.39,
        path_length=0.8,
        turn_scores=(0.1, None, 0.4),
        top_turn=2,
        turn_new=True,
        reading="base64",
    )
    write(engine, BatchRows([message(1, day=today, tenant="shop", model="m")], [row]))
    with engine.begin() as connection:
        record_flagged(connection, [RISING], [], both.threshold)
    (alert,) = all_alerts(engine)
    assert (alert.rule, alert.top_score, alert.threshold) == ("escalation", 0.39, 0.3)
    assert alert.units == "class gaps over turns"
    assert alert.top_message["turn"] == 2
    with engine.connect() as connection:
        (top,) = top_messages(connection, alert.id, 5)
    assert top == alert.top_message
    assert decided_by(top) == " (read as base64; turn 3, which is new)"
    _, results, _ = backtest(engine, both, timedelta(days=1), timedelta(seconds=10))
    assert {result.name: result.messages for result in results} == {"escalation": 1, "plain": 0}


def test_what_a_rule_measures_decides() -> None:
    (trajectory,) = rules(ESCALATION).threshold
    (path,) = rules(ESCALATION.replace("trajectory", "path_length")).threshold
    assert trajectory.matches(RISING)
    assert not trajectory.matches(CALM)
    assert not trajectory.matches(replace(RISING, trajectory=0.3, flagged=True))
    assert path.matches(replace(RISING, trajectory=0.0))


def test_repeated_history_is_passed_over() -> None:
    (rule,) = rules(ESCALATION + "new_turns_only = true\n").threshold
    assert rule.matches(RISING)
    assert not rule.matches(replace(RISING, turn_new=False))
    (plain,) = rules('[[threshold]]\nname = "plain"\nnew_turns_only = true\n').threshold
    assert plain.matches(replace(CALM, score=0.6, flagged=True))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (ESCALATION.replace("threshold = 0.3\n", ""), "measure trajectory needs one"),
        (ESCALATION.replace("trajectory", "score"), "the score has its probe's"),
        (ESCALATION + "judge_resolves = true\n", "a judge is asked about scores"),
    ],
)
def test_a_rule_that_cannot_be(written: str, says: str) -> None:
    with pytest.raises((RulesError, ValueError), match=says):
        rules(written)
