"""A real Prometheus scrapes a real health server and answers queries with what was counted."""

from __future__ import annotations

import http.client
import json
import math
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client import generate_latest
from sqlalchemy import Engine

from monitor.telemetry import metrics
from monitor.telemetry.health import HealthServer, serving
from monitor.telemetry.metrics import REGISTRY
from tests.conftest import needs_program
from tests.support.alerts.alert_rows import flagged, open_alerts

pytestmark = pytest.mark.slow

INSTALL = "apt-get install prometheus"
PATIENCE_SECONDS = 60.0
CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: {job}
    static_configs:
      - targets: ["{address}"]
"""


def eventually(look: Callable[[], Any], what: str) -> Any:
    """What `look` finds as soon as it is not None; it fails after PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    pytest.fail(f"{what}: not within {PATIENCE_SECONDS:g} s")


class Prometheus:
    """The HTTP API of a running one."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            return (json.loads(body) if path.startswith("/api/") else body) if response.status == 200 else None
        except ConnectionError:
            return None
        finally:
            connection.close()

    def value(self, query: str) -> float | None:
        """The one value of an instant query; None when there is none yet."""
        answer = self.get("/api/v1/query?" + urlencode({"query": query}))
        found = answer["data"]["result"] if answer else []
        assert len(found) < 2, f"{query} has {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def shows(self, query: str, value: float) -> bool:
        """Whether a scrape brings this value before long."""
        last: list[float | None] = []

        def look() -> bool | None:
            last.append(self.value(query))
            return True if last[-1] is not None and math.isclose(last[-1], value, rel_tol=1e-9) else None

        try:
            return bool(eventually(look, query))
        except pytest.fail.Exception:
            pytest.fail(f"{query} is {last[-1]}, not {value}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def scraping(server: HealthServer, folder: Path, job: str = "awry") -> Iterator[Prometheus]:
    """A Prometheus that scrapes this server each second, until the block ends."""
    program = needs_program("prometheus", INSTALL)
    config, log, port = folder / "prometheus.yml", folder / "prometheus.log", free_port()
    config.write_text(CONFIG.format(address=server.address, job=job))
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder) as process:
        api = Prometheus(port)

        def ready() -> bool | None:
            assert process.poll() is None, log.read_text()
            return True if api.get("/-/ready") is not None else None

        try:
            eventually(ready, "Prometheus starts")
            yield api
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0, log.read_text()


@pytest.fixture
def server() -> Iterator[HealthServer]:
    with serving("127.0.0.1:0", live=lambda: None, ready=lambda: None) as running:
        yield running


@pytest.fixture
def busy() -> Iterator[None]:
    """Metrics as after some work, under names of our own; the counters of closed sets go on from where they are."""
    metrics.start_at_zero(probe=["scraped"], destination=["scraped-soc"])
    metrics.PROBE_INFO.labels("scraped", 3, "smol", "0.61").set(1)
    metrics.BUILD_INFO.labels("0.1.0-scraped").set(1)
    metrics.CONSUMER_LAG.labels("scraped-topic", 4).set(1234)
    for score in (-0.4, 0.1, 0.1, 0.9, 5.0):
        metrics.SCORE.labels("scraped").observe(score)
    yield
    metrics.SCORE.remove("scraped")
    metrics.PROBE_INFO.remove("scraped", "3", "smol", "0.61")
    metrics.BUILD_INFO.remove("0.1.0-scraped")
    metrics.CONSUMER_LAG.remove("scraped-topic", "4")
    for counter in (metrics.FLAGGED, metrics.ALERTS):
        counter.remove_by_labels({"probe": "scraped"})
    metrics.DELIVERIES.remove_by_labels({"destination": "scraped-soc"})


@pytest.mark.usefixtures("busy")
def test_prometheus_reads_what_was_counted(server: HealthServer, engine: Engine, tmp_path: Path) -> None:
    open_alerts(engine, [flagged(1, 0.6)], ("pager", "siem"))
    scored = REGISTRY.get_sample_value("awry_messages_total", {"status": "scored"}) or 0.0
    with metrics.watching(engine), scraping(server, tmp_path) as prometheus:
        # There before the first one, so that the increase counts.
        assert prometheus.shows('awry_alerts_total{probe="scraped",severity="error",result="alerted"}', 0)
        assert prometheus.shows('awry_flagged_total{probe="scraped",mode="live"}', 0)
        metrics.ALERTS.labels("scraped", "error", "alerted").inc()
        metrics.FLAGGED.labels("scraped", "live").inc(2)
        metrics.MESSAGES.labels("scored").inc(7)
        metrics.DELIVERIES.labels("scraped-soc", "retried").inc()
        for query, value in {
            "up": 1,
            'awry_alerts_total{probe="scraped",severity="error",result="alerted"}': 1,
            'increase(awry_alerts_total{probe="scraped",severity="error",result="alerted"}[5m]) > bool 0': 1,
            'awry_flagged_total{probe="scraped",mode="live"}': 2,
            'awry_flagged_total{probe="scraped",mode="shadow"}': 0,
            'awry_messages_total{status="scored"}': scored + 7,
            'awry_deliveries_total{destination="scraped-soc",result="retried"}': 1,
            'awry_consumer_lag{topic="scraped-topic",partition="4"}': 1234,
            'awry_score_count{probe="scraped"}': 5,
            'awry_score_bucket{probe="scraped",le="0.0"}': 1,
            'awry_score_bucket{probe="scraped",le="4.0"}': 4,
            # Two of five in (0, 0.25]: the third one is at their end.
            'histogram_quantile(0.6, awry_score_bucket{probe="scraped"})': 0.25,
            'awry_probe_info{probe="scraped",version="3",model="smol",threshold="0.61"}': 1,
            'awry_build_info{version="0.1.0-scraped"}': 1,
            "awry_database_up": 1,
            "awry_outbox_pending": 2,
            'awry_alerts_live{state="open",severity="warning"}': 1,
            'awry_alerts_live{state="open",severity="critical"}': 0,
            "process_start_time_seconds > bool 0": 1,
        }.items():
            assert prometheus.shows(query, value)
        told = prometheus.get("/api/v1/metadata")["data"]
        assert told["awry_stage_seconds"] == [
            {"type": "histogram", "unit": "seconds", "help": "Time that a batch spent in each stage"}
        ]


def test_a_server_that_went_away_is_down(tmp_path: Path) -> None:
    with serving("127.0.0.1:0", live=lambda: None, ready=lambda: None) as server:
        address = server.address
    with scraping(server, tmp_path) as prometheus:
        assert prometheus.shows("up", 0)
        with serving(address, live=lambda: None, ready=lambda: None):
            assert prometheus.shows("up", 1)
        assert prometheus.shows("up", 0)


@pytest.mark.usefixtures("busy")
def test_promtool_has_nothing_to_say(engine: Engine) -> None:
    promtool = needs_program("promtool", INSTALL)
    with metrics.watching(engine):
        exposition = generate_latest(REGISTRY)
    done = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_promtool_would_say_something() -> None:
    promtool = needs_program("promtool", INSTALL)
    bad = b"# HELP awry_messages Messages\n# TYPE awry_messages counter\nawry_messages 1\n"
    done = subprocess.run([promtool, "check", "metrics"], input=bad, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"awry_messages" in done.stdout + done.stderr
