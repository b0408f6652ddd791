"""The rule loop: it evaluates again and again, counts what it opens, and outlives the database and its own defects."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from alerts.evaluator import Evaluated
from alerts.rules.model import Rules
from alerts.rules.queries import Subject
from monitor.service import rule_loop
from monitor.service.rule_loop import RuleEvaluation, evaluating
from monitor.telemetry import metrics
from storage.database import connect
from tests.conftest import url_of
from tests.support.alerts.alert_rows import all_alerts
from tests.support.alerts.alert_scenes import rules, scored
from tests.support.stream.kafka import wait_for

BURST = '[[rate]]\nname = "burst"\nflagged = 2\nwindow = "1h"\n'


def test_it_evaluates_repeatedly_and_ends_with_the_block(engine: Engine) -> None:
    def counted() -> float:
        return float(metrics.RULE_EVALUATIONS.labels("done")._value.get())

    before = counted()
    with evaluating(engine, rules(BURST), ("pager",), 0.05, lambda _: None):
        wait_for(lambda: counted() > before)
        scored(engine, 0, 2, probe="evaluated")
        wait_for(lambda: all_alerts(engine))
    evaluations = counted()
    assert evaluations - before >= 2
    assert metrics.ALERTS.labels("evaluated", "error", "alerted")._value.get() == 1
    time.sleep(0.2)
    assert counted() == evaluations


def test_a_database_that_does_not_answer_is_reported_once(engine: Engine) -> None:
    reported: list[str] = []
    away = connect(url_of(engine))
    evaluation = RuleEvaluation(away, rules(BURST), (), reported.append)
    assert evaluation() is not None
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE alerts RENAME TO gone")
    assert evaluation() is None
    assert evaluation() is None
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO alerts")
    assert evaluation() is not None
    away.dispose()
    assert reported == ["rules: not evaluated, the database does not answer (ProgrammingError)"]


def test_a_defect_is_reported_once_and_does_not_end_the_loop(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []

    def broken(*_: object) -> Evaluated:
        raise KeyError("geheim")

    monkeypatch.setattr(rule_loop, "evaluate", broken)
    failed = metrics.RULE_EVALUATIONS.labels("failed")._value.get()
    evaluation = RuleEvaluation(engine, rules(BURST), (), reported.append)
    assert [evaluation(), evaluation()] == [None, None]
    assert reported == ["rules: not evaluated, a defect of awry (KeyError)"]
    assert metrics.RULE_EVALUATIONS.labels("failed")._value.get() == failed + 2


def test_drift_is_in_the_metrics_while_it_is_measured(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rules('[[monitor]]\nname = "d"\ncheck = "score_drift"\n')
    answers = [Evaluated(values={("d", Subject("p")): 0.3, ("x", Subject("q")): 9.0}), Evaluated()]
    monkeypatch.setattr(rule_loop, "evaluate", lambda *_: answers.pop(0))
    evaluation = RuleEvaluation(engine, found, (), lambda _: None)
    registry = CollectorRegistry()
    registry.register(metrics.SCORE_DRIFT)
    evaluation()
    assert registry.get_sample_value("awry_score_drift", {"probe": "p"}) == 0.3
    assert registry.get_sample_value("awry_score_drift", {"probe": "q"}) is None
    evaluation()
    assert registry.get_sample_value("awry_score_drift", {"probe": "p"}) is None


def test_tail_drift_of_all_traffic_is_in_the_metrics(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenants' names are in no metric."""
    found = rules('[[monitor]]\nname = "d"\ncheck = "tail_drift"\n')
    measured = {("d", Subject("p")): 0.3, ("d", Subject("p", "shop")): 9.0, ("d", Subject("q", "shop")): 9.0}
    monkeypatch.setattr(rule_loop, "evaluate", lambda *_: Evaluated(values=measured))
    registry = CollectorRegistry()
    registry.register(metrics.TAIL_DRIFT)
    RuleEvaluation(engine, found, (), lambda _: None)()
    assert registry.get_sample_value("awry_tail_drift", {"probe": "p"}) == 0.3
    assert registry.get_sample_value("awry_tail_drift", {"probe": "q"}) is None


def test_an_alert_of_the_monitor_itself_is_counted(engine: Engine) -> None:
    found: Rules = rules('[[monitor]]\nname = "m"\ncheck = "dead_letters"\nseverity = "critical"')
    scored(engine, 0, status="failed")
    before = metrics.ALERTS.labels("-", "critical", "alerted")._value.get()
    RuleEvaluation(engine, found, (), lambda _: None)()
    assert metrics.ALERTS.labels("-", "critical", "alerted")._value.get() == before + 1
