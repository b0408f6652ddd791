"""The metrics: one list that the registry, the code and the page agree on; the database answers or is left out."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY as DEFAULT_REGISTRY
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import DuplicateTimeseries
from sqlalchemy import Engine, create_engine, text, update

from monitor.telemetry import metrics
from monitor.telemetry.metrics import (
    METRICS,
    REGISTRY,
    STAGE_SECONDS,
    STAGES,
    DatabaseCollector,
    Metric,
    reference,
    stage,
)
from storage.queries.alerts import live_alert_counts
from storage.schema import alerts
from tests.support import ROOT
from tests.support.alerts.alert_rows import flagged, make_due, open_alerts, set_state

NAMES = [m.name for m in METRICS]
SEVERITIES = ("warning", "error", "critical")

# Written out: what a dashboard or an alert rule outside this repository relies on.
CLOSED = {
    "awry_messages_total": ("status", ("scored", "truncated", "skipped", "invalid", "failed")),
    "awry_fail_open_total": ("reason", ("skipped", "failed", "invalid", "lost")),
    "awry_dead_letters_total": ("reason", ("invalid", "failed")),
    "awry_stage_seconds_count": ("stage", ("poll", "tokenize", "forward", "mitigate", "output", "store", "commit")),
    "awry_batch_splits_total": ("reason", ("out_of_memory", "error")),
    "awry_access_refused_total": ("reason", ("wrong", "blocked", "scope", "tenant", "sign-on")),
    "awry_reading_gaps_total": ("kind", ("hole", "dropped", "new_instance")),
    "awry_rebalances_total": ("event", ("assigned", "revoked", "lost")),
    "awry_judge_not_asked_total": (
        "reason",
        ("queue full", "budget spent", "judge down", "waited too long", "worker stopped"),
    ),
    "awry_judge_failures_total": (
        "reason",
        (
            *("timeout", "unreachable", "rate limited", "server error", "refused by server", "too large", "garbage"),
            *("declined", "command failed", "internal error"),
        ),
    ),
}
WITHOUT_LABELS = (
    "awry_known_messages_total",
    "awry_readings_lost_total",
    "awry_readings_repeated_total",
    "awry_tokens_total",
    "awry_verdicts_total",
    "awry_answers_total",
    "awry_abandoned_messages_total",
    "awry_commit_failures_total",
    "awry_judge_cached_total",
    "awry_judge_tokens_total",
    "awry_batch_messages_count",
    "awry_batch_fill_ratio_count",
)
# What the database answers at scrape time.
ASKED = {
    "awry_outbox_pending",
    "awry_outbox_dead",
    "awry_outbox_oldest_seconds",
    "awry_destination_failures",
    "awry_destination_disabled",
    "awry_alerts_live",
    "awry_database_up",
}
# What the device and the read replica answer, where there is one: test_gpu.py, tests/monitor/web/test_replica.py.
OF_REPLICA = {"awry_replica_up", "awry_replica_lag_seconds"}
# What the worker's source answers: test_waiting.py.
OF_SOURCE = {"awry_tenant_waiting_messages", "awry_tenant_waiting_seconds"}
OF_OTHERS = {"awry_gpu_memory_bytes"} | OF_REPLICA | OF_SOURCE
# What would make a series for each message, sender or text.
UNBOUNDED = {"tenant", "user", "user_id", "id", "message_id", "conversation_id", "offset", "sha256", "prompt", "text"}


def constants() -> dict[str, str]:
    """Constants of the module, and the metrics that they are."""
    found = {}
    for constant, value in vars(metrics).items():
        if isinstance(value, Metric):
            found[constant] = value.name
        elif isinstance(value, Counter | Gauge | Histogram):
            (family,) = value.describe()
            found[constant] = family.name + ("_total" if family.type == "counter" else "")
    return found


METRICS_FILE = "telemetry/metrics.py"


def mentioned(tree: ast.AST) -> set[str]:
    """Names that are read in a piece of code; an import alone reads nothing."""
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return names | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


def unused(sources: dict[str, str]) -> set[str]:
    """Metrics that no module but metrics.py touches, by their constant or through a helper that mentions it."""
    helpers = {
        node.name: mentioned(node)
        for node in ast.parse(sources[METRICS_FILE]).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    reached = {name for file, code in sources.items() if file != METRICS_FILE for name in mentioned(ast.parse(code))}
    before: set[str] = set()
    while before != reached:
        before = set(reached)
        reached |= {name for helper in before & helpers.keys() for name in helpers[helper]}
    return {metric for constant, metric in constants().items() if constant not in reached}


def sources() -> dict[str, str]:
    folder = ROOT / "monitor"
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def fresh_process(code: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a process that has only just started, then ran `code`."""
    script = f"from monitor.telemetry.metrics import *\n{code}\nfrom prometheus_client import generate_latest\n"
    script += "print(generate_latest(REGISTRY).decode())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }


def test_the_list_is_what_the_registry_exposes(engine: Engine) -> None:
    with metrics.watching(engine):
        families = [f for f in REGISTRY.collect() if not f.name.startswith("process_")]
    exposed = {f.name + ("_total" if f.type == "counter" else ""): f for f in families}
    assert sorted(exposed) == sorted(set(NAMES) - OF_OTHERS)
    assert len(set(NAMES)) == len(NAMES)
    for metric in METRICS:
        if metric.name in OF_OTHERS:
            continue
        family = exposed[metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == metric.labels.keys()
            assert all(sample.labels[name] in values for name, values in metric.labels.items() if values)


def test_nothing_is_on_the_clients_default_registry() -> None:
    assert not [f.name for f in DEFAULT_REGISTRY.collect() if f.name.startswith("awry")]


def test_each_metric_is_one_constant() -> None:
    assert sorted(constants().values()) == sorted(NAMES)


def test_every_metric_is_used() -> None:
    assert unused(sources()) == set()


def test_the_walk_sees_what_is_not_used() -> None:
    module = sources()[METRICS_FILE]
    assert unused({METRICS_FILE: module}) == set(NAMES)
    only_imported = "from monitor.telemetry.metrics import TOKENS\nTOKENS = 1"
    assert unused({METRICS_FILE: module, "worker.py": only_imported}) == set(NAMES)
    used = "from monitor import metrics\nmetrics.TOKENS.inc()\nwith metrics.stage('store'): pass\nmetrics.watching(e)"
    assert (
        set(NAMES) - unused({METRICS_FILE: module, "worker.py": used})
        == {"awry_tokens_total", "awry_stage_seconds"} | ASKED | OF_REPLICA
    )


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_names_follow_the_rules(metric: Metric) -> None:
    name = metric.name
    assert re.fullmatch(r"awry(_[a-z]+)+", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert name.endswith("_seconds") == (metric.unit == "seconds")
    assert name.endswith("_ratio") == (metric.unit == "ratio")
    assert not set(name.split("_")) & {"ms", "milliseconds", "minutes", "hours", "kb", "mb", "percent"}
    assert not set(name.split("_")) & {"counter", "gauge", "histogram", "count", "sum", "bucket"}
    if name.endswith("_info"):
        assert (metric.kind, metric.unit) == ("gauge", "")
    for label in metric.labels:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label)
        assert label not in {"le", "quantile", "job", "instance"}
        assert label not in UNBOUNDED or metric.name in OF_SOURCE  # which shows a few: test_waiting.py
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert not metric.help.endswith(".")
    assert "|" not in metric.help, "breaks the table"


def test_the_page_holds_the_list() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("<!-- metrics: generated by make docs -->")[2].partition("<!-- end of metrics -->")[0]
    rows = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in table.strip().splitlines()[2:]]
    assert rows == [(f"`{name}`", *rest) for name, *rest in reference()], "run make docs"
    assert "status: scored, truncated, skipped, invalid, failed" in table


def test_counters_of_closed_sets_are_there_before_anything_happened() -> None:
    samples = fresh_process()
    for name, (label, values) in CLOSED.items():
        found = {labels: value for (sample, labels), value in samples.items() if sample == name}
        assert found == {((label, value),): 0.0 for value in values}
    assert [samples[name, ()] for name in WITHOUT_LABELS] == [0.0] * len(WITHOUT_LABELS)
    # What only a running awry knows is made by nobody's guess.
    assert not [key for key in samples if {"probe", "topic", "destination"} & {label for label, _ in key[1]}]


def test_start_at_zero_adds_the_names_of_the_settings() -> None:
    samples = fresh_process("start_at_zero(probe=['drift', 'spill'])\nstart_at_zero(destination=['soc'])")
    for probe in ("drift", "spill"):
        assert samples["awry_score_count", (("probe", probe),)] == 0
        for mode in ("live", "shadow"):
            assert samples["awry_flagged_total", (("mode", mode), ("probe", probe))] == 0
        for severity in SEVERITIES:
            for result in ("alerted", "would_alert"):
                key = (("probe", probe), ("result", result), ("severity", severity))
                assert samples["awry_alerts_total", key] == 0
    for result in ("sent", "retried", "dead"):
        assert samples["awry_deliveries_total", (("destination", "soc"), ("result", result))] == 0
    assert not [key for key in samples if key[0] in ("awry_probe_info", "awry_consumer_lag")]


def test_no_series_tells_when_it_was_made() -> None:
    assert not [key for key in fresh_process() if key[0].endswith("_created")]


def test_both_expositions_can_be_read_back() -> None:
    metrics.SCORE.labels("readable").observe(-0.25)
    metrics.CONSUMER_LAG.labels('to"pic\n', 0).set(3)
    try:
        plain = {f.name for f in text_string_to_metric_families(generate_latest(REGISTRY).decode())}
        lines = generate_openmetrics(REGISTRY).decode().splitlines(keepends=True)  # type: ignore[no-untyped-call]
    finally:
        metrics.SCORE.remove("readable")
        metrics.CONSUMER_LAG.remove('to"pic\n', "0")
    # Buckets below 0 allow no sum, and then the standard no count, but the client writes one and its own reader
    # refuses it. Prometheus does not (test_prometheus.py).
    strict = "".join(line for line in lines if not line.startswith("awry_score_count"))
    modern = {f.name for f in parse_openmetrics(strict)}  # type: ignore[no-untyped-call]
    families = {m.name.removesuffix("_total") for m in METRICS} - ASKED - OF_OTHERS
    assert modern >= families
    assert {n.removesuffix("_total") for n in plain} >= families


def test_scores_fall_into_quarters_of_a_class_gap() -> None:
    registry = CollectorRegistry()
    registry.register(metrics.SCORE)
    for score in (-3.0, -2.0, 0.2, 0.3, 4.0, 9.0):
        metrics.SCORE.labels("edges").observe(score)
    try:
        below = {
            bound: registry.get_sample_value("awry_score_bucket", {"probe": "edges", "le": bound})
            for bound in ("-2.0", "0.0", "0.25", "0.5", "4.0", "+Inf")
        }
    finally:
        metrics.SCORE.remove("edges")
    assert below == {"-2.0": 2, "0.0": 2, "0.25": 3, "0.5": 4, "4.0": 5, "+Inf": 6}


@pytest.mark.parametrize("fails", [False, True])
def test_a_stage_is_timed_also_when_it_raises(fails: bool) -> None:
    def read(what: str) -> float:
        return REGISTRY.get_sample_value(f"awry_stage_seconds_{what}", {"stage": "mitigate"}) or 0.0

    count, total, inside = read("count"), read("sum"), 0.0
    started = time.perf_counter()
    try:
        with stage("mitigate"):
            within = time.perf_counter()
            while inside < 0.01:
                inside = time.perf_counter() - within
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert read("count") == count + 1
    assert inside <= read("sum") - total <= time.perf_counter() - started
    assert STAGES == ("poll", "tokenize", "forward", "mitigate", "output", "store", "commit")
    assert STAGE_SECONDS.labels("mitigate") is STAGE_SECONDS.labels(stage="mitigate")


def asked(engine: Engine) -> CollectorRegistry:
    """A registry with nothing but the database's metrics."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(engine))
    return registry


def exposed(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample, as it is written."""
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (n.rpartition(" ") for n in lines if not n.startswith("#"))}


DOWN = {"awry_database_up": 0.0}


def test_the_database_is_asked_at_each_scrape(engine: Engine) -> None:
    registry = asked(engine)
    states = ("open", "acknowledged", "silenced")
    nothing = {
        f'awry_alerts_live{{severity="{severity}",state="{state}"}}': 0.0 for state in states for severity in SEVERITIES
    }
    assert exposed(registry) == {
        "awry_database_up": 1.0,
        "awry_outbox_pending": 0.0,
        "awry_outbox_dead": 0.0,
        "awry_outbox_oldest_seconds": 0.0,
        **nothing,
    }

    # Over the threshold by 0.1 a warning, by 0.6 an error, by 2 critical; two destinations each.
    for tenant, value in (("a", 0.6), ("b", 0.6), ("c", 1.1), ("d", 2.5), ("e", 2.5)):
        open_alerts(engine, [flagged(1, value, tenant=tenant)], ("pager", "siem"))
    with engine.begin() as connection:
        connection.execute(update(alerts).where(alerts.c.tenant == "c").values(state="silenced"))
        connection.execute(update(alerts).where(alerts.c.tenant == "d").values(state="acknowledged"))
        connection.execute(update(alerts).where(alerts.c.tenant == "e").values(state="resolved"))
        connection.execute(
            text("UPDATE outbox SET dead_at = now() WHERE destination = 'siem' AND event = :e"), {"e": "alert.opened"}
        )
        connection.execute(text("UPDATE outbox SET delivered_at = now() WHERE body->'data'->>'tenant' = 'a'"))
        connection.execute(text("UPDATE outbox SET dead_at = NULL WHERE body->'data'->>'tenant' = 'a'"))
        connection.execute(text("UPDATE outbox SET created_at = now() - interval '90 s' WHERE destination = 'pager'"))
        for name, failures, disabled in (("pager", 3, "now()"), ("siem", 0, "NULL")):
            connection.execute(
                text(
                    f"INSERT INTO destinations (name, fingerprint, failures, disabled_at) "  # noqa: S608
                    f"VALUES ('{name}', '', {failures}, {disabled})"
                )
            )
    found = exposed(registry)
    assert 90 <= found.pop("awry_outbox_oldest_seconds") < 120
    assert found == {
        'awry_destination_failures{destination="pager"}': 3.0,
        'awry_destination_failures{destination="siem"}': 0.0,
        'awry_destination_disabled{destination="pager"}': 1.0,
        'awry_destination_disabled{destination="siem"}': 0.0,
        "awry_database_up": 1.0,
        "awry_outbox_pending": 4.0,
        "awry_outbox_dead": 4.0,
        **nothing,
        'awry_alerts_live{severity="warning",state="open"}': 2.0,
        'awry_alerts_live{severity="error",state="silenced"}': 1.0,
        'awry_alerts_live{severity="critical",state="acknowledged"}': 1.0,
    }

    set_state(engine, "resolved")
    assert {k: v for k, v in exposed(registry).items() if "live" in k} == nothing
    with engine.connect() as connection:
        assert live_alert_counts(connection) == {}


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        yield silent.getsockname()[1]


def elsewhere(port: int) -> Engine:
    return create_engine(f"postgresql+psycopg://somebody:geheim@127.0.0.1:{port}/nothing")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_database_that_is_down_does_not_fail_the_scrape() -> None:
    engine = elsewhere(free_port())
    registry = asked(engine)
    assert exposed(registry) == DOWN
    assert b"awry_outbox_pending" not in generate_latest(registry), "its type without a value"
    with metrics.watching(engine):
        everything = exposed(REGISTRY)
    assert everything["awry_database_up"] == 0
    assert 'awry_messages_total{status="scored"}' in everything
    assert "awry_outbox_pending" not in everything


@pytest.mark.slow
def test_a_database_that_says_nothing_is_not_waited_for(black_hole: int) -> None:
    started = time.monotonic()
    assert exposed(asked(elsewhere(black_hole))) == DOWN
    assert time.monotonic() - started < 8, "Prometheus gives up after 10 s"


def test_a_database_without_our_tables_is_down(empty_engine: Engine) -> None:
    assert exposed(asked(empty_engine)) == DOWN


@pytest.mark.slow
def test_a_query_that_hangs_is_cut_and_the_next_scrape_tries_again(engine: Engine) -> None:
    registry = asked(engine)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE"))
        started = time.monotonic()
        assert exposed(registry) == DOWN
        assert time.monotonic() - started < 8
    assert exposed(registry)["awry_database_up"] == 1


def test_scrapes_keep_no_connection(engine: Engine) -> None:
    registry = asked(engine)
    for _ in range(3):
        exposed(registry)
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'awry metrics' AND datname = :name"
        deadline = time.monotonic() + 10
        # The server notices a closed connection a moment later.
        while connection.execute(text(query), {"name": engine.url.database}).scalar() and time.monotonic() < deadline:
            connection.rollback()
            time.sleep(0.01)
        assert connection.execute(text(query), {"name": engine.url.database}).scalar() == 0


def test_watching_ends_with_its_block(engine: Engine) -> None:
    for _ in range(2):
        with metrics.watching(engine):
            assert REGISTRY.get_sample_value("awry_database_up") == 1
            with pytest.raises(DuplicateTimeseries):
                REGISTRY.register(DatabaseCollector(engine))
        assert REGISTRY.get_sample_value("awry_database_up") is None


def test_the_outbox_counts_what_waits_for_its_time_too(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)], ("pager",))
    assert exposed(asked(engine))["awry_outbox_pending"] == 1
    make_due(engine)
    assert exposed(asked(engine))["awry_outbox_pending"] == 1
