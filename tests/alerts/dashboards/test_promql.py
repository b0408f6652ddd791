"""Every Prometheus expression of the dashboards and of the alert rules: it names metrics that exist, uses each by its
kind, and a real Prometheus that scraped a real worker answers it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import Engine

from alerts.dashboards import dashboards
from alerts.dashboards.panels import Json
from alerts.dashboards.provisioning import _alerting
from benchmarks.grafana_macros import View, expanded, targets
from monitor.telemetry import metrics
from monitor.telemetry.gpu import GpuCollector
from monitor.telemetry.health import serving
from monitor.telemetry.metrics import METRICS, REGISTRY
from monitor.telemetry.waiting import Waiting, WaitingCollector
from tests.monitor.telemetry.test_gpu import Cuda
from tests.monitor.telemetry.test_prometheus import Prometheus, eventually, scraping
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.models.tiny import tiny_chat
from tests.support.stream.worker import lines, make_probe, run_worker, wire

pytestmark = pytest.mark.slow

KNOWN = {metric.name: metric for metric in METRICS}
# Of Prometheus itself, and of its client.
OTHERS = {"up": "gauge", "process_resident_memory_bytes": "gauge"}
EXPRESSIONS = [
    pytest.param(board, target, id=f"{board['uid']}/{panel['title']}/{target['refId']}")
    for board in dashboards().values()
    for panel, target in targets(board, "prometheus")
]
_WORDS = {"sum", "by", "rate", "increase", "avg", "max", "min", "histogram_quantile", "or", "vector"}


def named(expression: str) -> set[str]:
    """The metrics of an expression; a word that is neither that nor known is an error."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", expression)
    words = set(re.findall(r"[a-z_]\w*", bare)) - _WORDS
    assert all(w.startswith("awry_") or w in OTHERS for w in words), words
    return words


def metric_of(name: str) -> Any:
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    found = KNOWN.get(name) or (KNOWN[base] if base in KNOWN and KNOWN[base].kind == "histogram" else None)
    assert found is not None, f"{name} is not among monitor.telemetry.metrics.METRICS"
    return found


def view() -> View:
    now = datetime.now(UTC)
    return View(now - timedelta(hours=1), now)


def rule_expressions() -> list[str]:
    (group,) = _alerting()["groups"]
    return [d["model"]["expr"] for rule in group["rules"] for d in rule["data"] if "expr" in d["model"]]


@pytest.mark.parametrize(("board", "target"), EXPRESSIONS)
def test_it_names_metrics_that_exist_and_uses_them_by_their_kind(board: Json, target: Json) -> None:
    expression = expanded(target["expr"], board, view())
    names = named(expression)
    assert names
    ours = [metric_of(name) for name in names if name not in OTHERS]
    for name in names - set(OTHERS):
        metric = metric_of(name)
        rated = re.search(rf"(?:rate|increase)\({name}\b", expression) is not None
        assert rated == (metric.kind in ("counter", "histogram")), f"{name} is a {metric.kind}"
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        for label in re.split(r",\s*", grouped):
            assert label in {"instance", "job", "le"} or all(label in m.labels for m in ours), label
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        assert label == "instance" or all(label in m.labels for m in ours), label
    for label, value in re.findall(r'(\w+)=~?"([^"]*)"', expression):
        if label not in ("instance", "job"):
            assert all(set(value.split("|")) <= set(m.labels[label]) for m in ours)


def test_every_metric_of_the_worker_is_on_a_dashboard() -> None:
    shown = {
        metric_of(name).name
        for board in dashboards().values()
        for _, target in targets(board, "prometheus")
        for name in named(expanded(target["expr"], board, view())) - set(OTHERS)
    }
    for name in (
        "messages_total",
        "fail_open_total",
        "dead_letters_total",
        "stage_seconds",
        "batch_fill_ratio",
        "consumer_lag",
        "oldest_unscored_seconds",
        "gpu_memory_bytes",
        "flagged_total",
        "alerts_total",
        "deliveries_total",
        "outbox_pending",
        "outbox_dead",
        "database_up",
        "tokens_total",
    ):
        assert f"awry_{name}" in shown


def test_the_check_sees_what_is_wrong() -> None:
    with pytest.raises(AssertionError, match="not among"):
        metric_of("awry_messages")
    with pytest.raises(AssertionError):
        named("sum(rate(kafka_lag[5m]))")


@pytest.fixture(scope="module")
def prometheus(
    postgres_url: str, module_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """It scrapes this process each second, in which a worker has run over thirty messages, two of them broken."""
    folder: Path = tmp_path_factory.mktemp("prometheus")
    gpu = GpuCollector(Cuda(), "cuda:0")
    chat = tiny_chat("llama")
    probe = make_probe(chat, threshold=-1e6, recipe="ablate")
    metrics.start_at_zero(probe=[probe.name], destination=["pager"])
    # Of a stream and a device that are not here.
    metrics.CONSUMER_LAG.labels("awry.traffic", 0).set(5)
    REGISTRY.register(gpu)
    waiting = WaitingCollector(lambda: {"shop": Waiting(3, datetime.now(UTC))})
    REGISTRY.register(waiting)
    open_alerts(module_engine, [flagged(1, 2.0)], ("pager",))
    path = lines(folder / "t", [*(wire(f"m{n}", f"message {n}", tenant="shop") for n in range(30)), b"{broken", b"x"])
    try:
        with (
            metrics.watching(module_engine),
            serving("127.0.0.1:0", live=lambda: None, ready=lambda: None) as server,
            scraping(server, folder, "awry-run") as api,
        ):
            assert api.shows("up", 1)
            run_worker(module_engine, chat, [probe], path, answers=folder / "answers")
            assert api.shows('sum(awry_flagged_total{probe="drift"}) > bool 0', 1)
            yield api
    finally:
        REGISTRY.unregister(gpu)
        REGISTRY.unregister(waiting)
        metrics.CONSUMER_LAG.remove("awry.traffic", "0")


def ask(prometheus: Prometheus, expression: str) -> list[dict[str, Any]] | None:
    answer = prometheus.get("/api/v1/query?" + urlencode({"query": expression}))
    assert answer is not None, f"Prometheus refuses {expression}"
    return answer["data"]["result"] or None


def _is_one(prometheus: Prometheus, expression: str) -> bool:
    (one,) = ask(prometheus, expression) or [{"value": [0, "nan"]}]
    return float(one["value"][1]) == 1


def first_result(prometheus: Prometheus, expression: str) -> Any:
    """The result as soon as there is one: not every metric is in the first scrape."""
    return eventually(lambda: ask(prometheus, expression), expression)


@pytest.mark.parametrize(("board", "target"), EXPRESSIONS)
def test_a_real_prometheus_answers_it(prometheus: Prometheus, board: Json, target: Json) -> None:
    expression = expanded(target["expr"], board, view())
    found = first_result(prometheus, expression)
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        assert all(label in one["metric"] for one in found), "the legend names a label that is not there"
    if target["instant"]:
        assert len(found) == 1, "one number"


def test_it_answers_the_rules_and_the_variables(prometheus: Prometheus) -> None:
    assert rule_expressions()
    for expression in rule_expressions():
        assert eventually(lambda: _is_one(prometheus, expression) or None, expression)  # noqa: B023 - asked at once
    variables = [v for b in dashboards().values() for v in b["templating"]["list"] if isinstance(v.get("query"), dict)]
    for variable in variables:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert match is not None
        metric_of(match[1])
        found = first_result(prometheus, match[1])
        assert all(match[2] in one["metric"] for one in found)


def test_the_numbers_are_the_workers(prometheus: Prometheus) -> None:
    board = dashboards()["awry-worker"]
    stats = {p["title"]: t["expr"] for p, t in targets(board, "prometheus") if p["type"] == "stat"}

    def number(title: str) -> float:
        (one,) = ask(prometheus, expanded(stats[title], board, view())) or [{"value": [0, "nan"]}]
        return float(one["value"][1])

    assert eventually(lambda: number("Workers") == 1 or None, "workers")  # a scrape that was late says 0
    assert number("Lag") == 5
    assert eventually(lambda: True if number("Dead letters") > 1 else None, "dead letters")


def test_a_mistake_in_an_expression_is_seen(prometheus: Prometheus) -> None:
    with pytest.raises(AssertionError, match="refuses"):
        ask(prometheus, "sum(rate(awry_messages_total))")
