"""The alert rules: Prometheus's own tool reads them, they name metrics that exist, and they fire when they should."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.telemetry.metrics import METRICS
from tests.conftest import needs_program
from tests.support import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "awry.rules.yml"
OLDEST = 'awry_oldest_unscored_seconds{{instance="{}"}}'
LAG = 'awry_consumer_lag{{topic="awry.traffic", partition="{}"}}'
PARTIAL = 'awry_partial_total{{reason="{}"}}'
MISSED = 'awry_fail_open_total{{reason="{}"}}'
GONE = 'awry_destination_disabled{{destination="{}"}}'
LOOKS = 'awry_rule_looks_total{{result="{}"}}'
DEAD = 'awry_outbox_dead{{job="awry-{}"}}'

# Alert -> (series, minute, whether it fires then). Values are one a minute: START+STEPxTIMES.
CASES: dict[str, list[tuple[dict[str, str], int, bool]]] = {
    "AwryDown": [
        ({'up{job="awry-send"}': "1x10 0x50"}, 14, True),
        ({'up{job="awry-send"}': "1x10 0x0 1x50"}, 14, False),
        ({'up{job="prometheus"}': "0x50"}, 14, False),
    ],
    "AwryNoWorker": [
        ({'up{job="awry-send"}': "1x60"}, 6, True),
        ({'up{job="awry-run"}': "0x60"}, 6, True),
        ({'up{job="awry-run", instance="a"}': "0x60", 'up{job="awry-run", instance="b"}': "1x60"}, 6, False),
    ],
    "AwryFallsBehind": [
        ({OLDEST.format("a"): "10x60", OLDEST.format("b"): "400x60"}, 12, True),
        ({OLDEST.format("a"): "400x5 10x60"}, 12, False),
    ],
    "AwryLagGrows": [
        ({LAG.format(0): "2000+10x90", LAG.format(1): "0x90"}, 50, True),
        ({LAG.format(0): "9000-10x90"}, 50, False),
        ({LAG.format(0): "0+1x90"}, 50, False),
    ],
    "AwryDeadLetters": [
        ({'awry_dead_letters_total{reason="invalid"}': "0x10 1x50"}, 12, True),
        ({'awry_dead_letters_total{reason="invalid"}': "0x10 1x50"}, 40, False),
    ],
    "AwryFailsOpen": [
        ({MISSED.format("failed"): "0x10 1x50", MISSED.format("lost"): "0x60"}, 12, True),
        ({MISSED.format("failed"): "7x60"}, 20, False),
    ],
    "AwryPartial": [
        ({PARTIAL.format("length"): "0x10 0+3x80", PARTIAL.format("media"): "0x90"}, 40, True),
        ({PARTIAL.format("length"): "0x10 0+1x15 15x60"}, 60, False),
        ({PARTIAL.format("length"): "0x10 15x60", PARTIAL.format("media"): "0x10 15x60"}, 40, False),
    ],
    "AwryUnreadable": [
        ({'awry_unreadable_total{instance="a"}': "0x10 0+1x80"}, 60, True),
        ({'awry_unreadable_total{instance="a"}': "0x10 0+1x15 15x60"}, 60, False),
    ],
    "AwryAlertsUndelivered": [
        ({DEAD.format("send"): "3x70 4x50", DEAD.format("serve"): "3x70 4x50"}, 80, True),
        ({DEAD.format("send"): "3x120"}, 80, False),
        ({DEAD.format("send"): "1x10"}, 5, True),
    ],
    "AwryDestinationGone": [
        ({GONE.format("soc"): "0x5 1x10", GONE.format("siem"): "0x20"}, 8, True),
        ({GONE.format("soc"): "1x5 0x10", GONE.format("siem"): "0x20"}, 8, False),
    ],
    "AwryAlertsWait": [
        ({"awry_outbox_oldest_seconds": "60+60x40"}, 30, True),
        ({"awry_outbox_oldest_seconds": "60+60x15 0x40"}, 22, False),
        ({"awry_outbox_oldest_seconds": "310x60"}, 40, False),
    ],
    "AwryRulesNotEvaluated": [
        ({LOOKS.format("done"): "0+4x20 80x60", LOOKS.format("failed"): "0x20 0+4x60"}, 45, True),
        ({LOOKS.format("done"): "0+4x60", LOOKS.format("left"): "0+4x60"}, 45, False),
        ({LOOKS.format("done"): "0+4x20 80x5 80+4x60"}, 45, False),
    ],
    "AwryJudgeDown": [
        (
            {'awry_judge_circuit_open{instance="a"}': "0x5 1x50", 'awry_judge_circuit_open{instance="b"}': "0x60"},
            25,
            True,
        ),
        ({"awry_judge_circuit_open": "0x5 1x10 0x50"}, 25, False),
    ],
    "AwryReadingGaps": [
        (
            {'awry_reading_gaps_total{kind="hole"}': "0x10 1x50", 'awry_reading_gaps_total{kind="dropped"}': "0x60"},
            14,
            True,
        ),
        ({'awry_reading_gaps_total{kind="hole"}': "0x10 1x50"}, 40, False),
        ({'awry_reading_gaps_total{kind="hole"}': "3x60"}, 20, False),
    ],
    "AwryDatabaseDown": [
        ({'awry_database_up{job="awry-send"}': "1x10 0x10"}, 14, True),
        ({'awry_database_up{job="awry-send"}': "1x10 0x0 1x10"}, 14, False),
    ],
    "AwryReplicaBehind": [
        ({"awry_replica_lag_seconds": "0x5 400+60x40", "awry_replica_up": "1x60"}, 20, True),
        ({"awry_replica_lag_seconds": "0x5", "awry_replica_up": "1x5 0x40"}, 20, True),
        ({"awry_replica_lag_seconds": "0x5 400x5 3x40", "awry_replica_up": "1x60"}, 20, False),
        ({'awry_database_up{job="awry-send"}': "1x60"}, 20, False),
    ],
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = needs_program("promtool", "apt-get install prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("kind", "name"), [("rules", "awry.rules.yml"), ("config", "prometheus.yml")])
def test_prometheus_reads_them(kind: str, name: str) -> None:
    done = promtool("check", kind, FOLDER / name)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_every_metric_in_them_exists_with_its_labels() -> None:
    known = {metric.name: metric for metric in METRICS}
    for rule in rules():
        named = set(re.findall(r"\bawry_\w+", rule["expr"]))
        assert named <= set(known), rule["alert"]
        assert named or re.search(r"\bup\{", rule["expr"]), rule["alert"]
        for label in re.findall(r"\bby \((\w+)\)", rule["expr"]):
            assert all(label in known[name].labels for name in named), rule["alert"]
        counters = set(re.findall(r"(?:increase|rate)\((awry_\w+)", rule["expr"]))
        assert counters == {name for name in named if known[name].kind == "counter"}, rule["alert"]


def test_jobs_in_them_are_scraped() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]}
    for rule in rules():
        for pattern in re.findall(r'job=~?"([^"]+)"', rule["expr"]):
            assert any(re.fullmatch(pattern, job) for job in jobs), rule["alert"]


def test_every_rule_says_how_grave_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["description"], rule["alert"]


def test_every_rule_is_tried_both_ways() -> None:
    assert set(CASES) == {rule["alert"] for rule in rules()}
    assert all({fires for _, _, fires in cases} == {True, False} for cases in CASES.values())


@pytest.mark.parametrize("alert", CASES)
def test_they_fire_when_they_should(tmp_path: Path, alert: str) -> None:
    for number, (series, minute, fires) in enumerate(CASES[alert]):
        done = promtool("test", "rules", unit_test(tmp_path / f"{number}.yml", alert, series, minute, fires))
        assert done.returncode == 0, f"case {number}: {done.stdout}{done.stderr}"
        # And the case can fail: it does when it expects the contrary.
        done = promtool("test", "rules", unit_test(tmp_path / f"{number}.yml", alert, series, minute, not fires))
        assert done.returncode != 0, f"case {number}"


def unit_test(path: Path, alert: str, series: dict[str, str], minute: int, fires: bool) -> Path:
    """A test file for promtool that expects `alert` to fire at `minute`, or not to, whatever its labels are.

    promtool compares labels and texts exactly; the count of what fires needs neither.
    """
    expected = [{"labels": "{}", "value": 1}] if fires else []
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0',
                "eval_time": f"{minute}m",
                "exp_samples": expected,
            }
        ],
    }
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    return path
