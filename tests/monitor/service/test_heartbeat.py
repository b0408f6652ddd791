"""Workers say that they live; the loop beside the sender evaluates rules and outlives the database."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, func, select, update

from alerts.evaluator import Evaluated
from alerts.rules.model import Rules
from monitor.service import heartbeat, rule_loop
from monitor.service.heartbeat import HeartbeatWriter
from monitor.service.rule_loop import RuleEvaluation, evaluating
from monitor.stream.jsonl import JsonLines
from monitor.telemetry import metrics
from probes.model.load import ChatModel
from storage.database import connect
from storage.heartbeat import KEPT
from storage.schema import workers
from tests.conftest import url_of
from tests.support.alert_rows import all_alerts
from tests.support.alert_scenes import rules, scored
from tests.support.worker import lines, make_probe, run_worker, wire


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(workers).order_by(workers.c.started_at)))


def source(folder: Path) -> JsonLines:
    return JsonLines(str(lines(folder / "t", [wire("m")])), name="stream", max_bytes=4096)


def test_a_worker_says_that_it_lives_and_when_it_last_stored(engine: Engine, tmp_path: Path) -> None:
    writer = HeartbeatWriter(engine, source(tmp_path))
    assert writer.write()
    (first,) = rows(engine)
    assert (first.source, first.lag_unit, first.stored_at) == ("stream", "bytes", None)
    writer.stored()
    assert writer.write()
    assert writer.write()
    (last,) = rows(engine)
    assert first.seen_at < last.stored_at < last.seen_at
    assert last.started_at == first.started_at


def test_it_tells_while_the_worker_is_busy_and_at_its_end(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_EVERY_SECONDS", 0.05)
    writer = HeartbeatWriter(engine, source(tmp_path))
    with writer.beating():
        until = time.monotonic() + 20
        while not rows(engine) or rows(engine)[0].seen_at == rows(engine)[0].started_at:
            assert time.monotonic() < until
            time.sleep(0.02)
        writer.stored()
    (last,) = rows(engine)
    assert last.stored_at is not None
    time.sleep(0.15)
    assert rows(engine) == [last]


def test_rows_of_long_ago_go_when_another_begins(engine: Engine, tmp_path: Path) -> None:
    HeartbeatWriter(engine, source(tmp_path)).write()
    with engine.begin() as connection:
        connection.execute(update(workers).values(seen_at=func.now() - KEPT))
    HeartbeatWriter(engine, source(tmp_path)).write()
    assert len(rows(engine)) == 1


def test_a_database_that_is_away_stops_nobody(engine: Engine, tmp_path: Path) -> None:
    writer = HeartbeatWriter(engine, source(tmp_path))
    writer.stored()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE workers RENAME TO gone")
    assert not writer.write()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO workers")
    assert writer.write()
    assert rows(engine)[0].stored_at is not None


def test_a_source_that_changes_while_it_is_asked_ends_no_reporting(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a partition is taken away between two looks at it."""
    answers: list[object] = [KeyError("partition"), 7]

    def lag(_: JsonLines) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(JsonLines, "lag", property(lag))
    writer = HeartbeatWriter(engine, source(tmp_path))
    writer.stored()
    assert [writer.write(), writer.write()] == [False, True]
    assert (rows(engine)[0].lag, rows(engine)[0].stored_at is None) == (7, False)


def test_the_worker_reports_and_a_replay_does_not(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(tmp_path / "t", [wire("m1"), wire("m2")])
    run_worker(engine, chat, [make_probe(chat)], path, heartbeats=False)
    assert rows(engine) == []
    run_worker(engine, chat, [make_probe(chat, "other")], path)
    (row,) = rows(engine)
    assert (row.source, row.lag) == ("stream", 0)
    assert row.stored_at is not None


def test_scores_of_probes_in_shadow_say_so(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    from storage.schema import scores

    path = lines(tmp_path / "t", [wire("m1")])
    found = [make_probe(chat, "loud", threshold=-1e6), make_probe(chat, "quiet", threshold=-1e6)]
    run_worker(engine, chat, found, path, shadow=frozenset({"quiet"}))
    with engine.connect() as connection:
        stored = {row.probe: row.shadow for row in connection.execute(select(scores.c.probe, scores.c.shadow))}
    assert stored == {"loud": None, "quiet": True}
    assert [r.probe for r in all_alerts(engine)] == ["loud"]


def test_rules_in_shadow_are_counted_as_what_they_would_do(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(tmp_path / "t", [wire("m1", tenant="a"), wire("m2", tenant="b"), wire("m3", tenant="a")])
    probe = make_probe(chat, "shadowed-rule", threshold=-1e6)
    found = rules('[[threshold]]\nshadow = true\nseverity = "error"\nper = "tenant"').threshold
    run_worker(engine, chat, [probe], path, rules=found)
    assert all_alerts(engine) == []
    counted = metrics.ALERTS.labels("shadowed-rule", "error", "would_alert")
    assert counted._value.get() == 2


BURST = '[[rate]]\nname = "burst"\nflagged = 2\nwindow = "1h"\n'


def test_it_looks_again_and_again_and_ends_with_the_block(engine: Engine) -> None:
    with evaluating(engine, rules(BURST), ("pager",), 0.05, lambda _: None):
        time.sleep(0.2)
        scored(engine, 0, 2, probe="looked-at")
        until = time.monotonic() + 20
        while not all_alerts(engine):
            assert time.monotonic() < until
            time.sleep(0.02)
    looks = metrics.RULE_EVALUATIONS.labels("done")._value.get()
    assert looks >= 2
    assert metrics.ALERTS.labels("looked-at", "error", "alerted")._value.get() == 1
    time.sleep(0.2)
    assert metrics.RULE_EVALUATIONS.labels("done")._value.get() == looks


def test_a_database_that_is_away_is_told_once(engine: Engine) -> None:
    said: list[str] = []
    away = connect(url_of(engine))
    look = RuleEvaluation(away, rules(BURST), (), said.append)
    assert look() is not None
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE alerts RENAME TO gone")
    assert look() is None
    assert look() is None
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO alerts")
    assert look() is not None
    away.dispose()
    assert said == ["rules: not evaluated, the database does not answer (ProgrammingError)"]


def test_a_defect_ends_no_looking_and_is_told_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def broken(*_: object) -> Evaluated:
        raise KeyError("geheim")

    monkeypatch.setattr(rule_loop, "evaluate", broken)
    failed = metrics.RULE_EVALUATIONS.labels("failed")._value.get()
    look = RuleEvaluation(engine, rules(BURST), (), said.append)
    assert [look(), look()] == [None, None]
    assert said == ["rules: not evaluated, a defect of awry (KeyError)"]
    assert metrics.RULE_EVALUATIONS.labels("failed")._value.get() == failed + 2


def test_drift_is_on_the_metrics_while_it_can_be_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from alerts.rules.queries import Subject

    found = rules('[[monitor]]\nname = "d"\ncheck = "score_drift"\n')
    answers = [Evaluated(values={("d", Subject("p")): 0.3, ("x", Subject("q")): 9.0}), Evaluated()]
    monkeypatch.setattr(rule_loop, "evaluate", lambda *_: answers.pop(0))
    look = RuleEvaluation(engine, found, (), lambda _: None)
    registry = CollectorRegistry()
    registry.register(metrics.SCORE_DRIFT)
    look()
    assert registry.get_sample_value("awry_score_drift", {"probe": "p"}) == 0.3
    assert registry.get_sample_value("awry_score_drift", {"probe": "q"}) is None
    look()
    assert registry.get_sample_value("awry_score_drift", {"probe": "p"}) is None


def test_an_alert_of_the_monitor_itself_is_counted(engine: Engine) -> None:
    found: Rules = rules('[[monitor]]\nname = "m"\ncheck = "dead_letters"\nseverity = "critical"')
    scored(engine, 0, status="failed")
    before = metrics.ALERTS.labels("-", "critical", "alerted")._value.get()
    RuleEvaluation(engine, found, (), lambda _: None)()
    assert metrics.ALERTS.labels("-", "critical", "alerted")._value.get() == before + 1
