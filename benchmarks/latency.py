"""How long a record takes to its committed row and to the delivered notification, at low traffic.

How to run: `python -m benchmarks.latency [--messages 100] [--rate 2.5] [--out docs/bench-latency.json]`, on a machine
that does nothing else. An embedded Apache Kafka, an embedded PostgreSQL, `awry run` with SmolLM2-135M and the probe
`harmful-request` (its threshold lowered, so that each message opens an alert of its own tenant) and `awry send` as
processes, a webhook receiver on loopback, once ungrouped and once grouped by rule and probe. Figures are milliseconds
from the acknowledgement of the record, the median and the 95th percentile:

- row: until another session sees the message's row (it looks every 4 ms)
- webhook: until the notification of the ungrouped destination has arrived
- forward: the worker's own time in the model for a message, from its metrics; to be taken off both
- grouped: the first notification of the grouped destination, and how many there were
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from benchmarks.grafana_queries import host
from benchmarks.scratch import scratch_database
from benchmarks.support.destinations import SECRET
from benchmarks.support.receiver import serving
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, free_port, running
from probes.card import Probe, load_probe, save_probe
from probes.organisms.messages import everyday

TOPIC = "latency"
AWRY = [sys.executable, "-c", "from monitor.cli.app import main; main()"]


@contextmanager
def arrivals() -> Iterator[tuple[str, list[tuple[float, str, dict[str, Any]]]]]:
    """A receiver that keeps when what came, by path."""
    got: list[tuple[float, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            got.append((time.monotonic(), self.path, json.loads(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return None

    with serving(Handler) as url:
        yield url, got


@contextmanager
def process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        started = subprocess.Popen([*AWRY, *arguments], env=environment, stdout=file, stderr=file)
        try:
            yield
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(60)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def watch(engine: Engine, seen: dict[str, float], stopped: threading.Event) -> None:
    """When each message's row is there, as another session sees it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not stopped.wait(0.004):
            for name in connection.execute(
                text("SELECT message_id FROM messages WHERE NOT message_id = ANY(:seen)"), {"seen": list(seen)}
            ).scalars():
                seen[name] = time.monotonic()


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            raise TimeoutError("nothing came; see the logs that this benchmark names")
        time.sleep(0.05)


def ready(listen: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{listen}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def stage_seconds(listen: str, stage: str) -> float:
    """Total of a stage so far."""
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=10) as response:
        found = text_string_to_metric_families(response.read().decode())
    return sum(
        sample.value
        for family in found
        for sample in family.samples
        if sample.name == "awry_stage_seconds_sum" and sample.labels.get("stage") == stage
    )


def measure(messages: int, rate: float, folder: Path) -> dict[str, Any]:
    from monitor.settings import default_state_dir

    probe = load_probe("harmful-request")
    lowered = replace(probe.card.calibration, threshold=-1e6)
    low = probe.card.model_copy(update={"name": "low", "calibration": lowered})
    card = save_probe(Probe(low, probe.directions, probe.mitigators), folder)
    texts = everyday("fit")[: messages + 5]
    with ExitStack() as stack:
        state = default_state_dir()
        broker = Broker(folder / "kafka", jar_folder=state / "kafka" / "jars")
        stack.enter_context(running(broker))
        Cluster(broker.address).create_topics([TOPIC, f"{TOPIC}.dead-letters"], 1)
        engine, _ = stack.enter_context(scratch_database(folder / "db"))
        url, got = stack.enter_context(arrivals())
        options = {"kind": "webhook", "secret": SECRET, "allow_private": True}
        destinations = [
            {"name": "each", "url": f"{url}/each", "group_by": [], **options},
            {"name": "grouped", "url": f"{url}/grouped", **options},
        ]
        listen = f"127.0.0.1:{free_port()}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWRY_")} | {
            "AWRY_STATE_DIR": str(state),
            "AWRY_DATABASE_URL": engine.url.render_as_string(hide_password=False).replace("+psycopg", ""),
            "AWRY_PROBES": json.dumps([str(card)]),
            "AWRY_SOURCE": f"kafka:{TOPIC}",
            "AWRY_KAFKA_BOOTSTRAP": broker.address,
            "AWRY_DESTINATIONS": json.dumps(destinations),
            "AWRY_LOGS": "json",
        }
        other = f"127.0.0.1:{free_port()}"
        for arguments, at in ((["run", "--from", "earliest"], listen), (["send"], other)):
            log = folder / f"{arguments[0]}.log"
            stack.enter_context(process(arguments, environment | {"AWRY_LISTEN": at}, log))
        producer = KafkaProducer(**Cluster(broker.address).options())
        stack.callback(producer.close)
        wait_for(lambda: ready(listen), 180)
        acknowledged: dict[str, float] = {}

        def produce(name: str, said: str) -> None:
            value = {"id": name, "prompt": said, "tenant": name}
            producer.send(TOPIC, json.dumps(value).encode()).get(timeout=30)
            acknowledged[name] = time.monotonic()

        seen: dict[str, float] = {}
        stopped = threading.Event()
        watching = threading.Thread(target=watch, args=(engine, seen, stopped), daemon=True)
        watching.start()
        for n, said in enumerate(texts[:5]):
            produce(f"warm-{n}", said)
        wait_for(lambda: sum(path == "/each" for _, path, _ in got) >= 5, 120)
        first_grouped = next(at for at, path, _ in got if path == "/grouped")
        forward, tokenised = stage_seconds(listen, "forward"), stage_seconds(listen, "tokenize")
        began = time.monotonic()
        for n, said in enumerate(texts[5 : messages + 5]):
            time.sleep(max(0.0, began + n / rate - time.monotonic()))
            produce(f"m-{n}", said)
        wait_for(lambda: sum(path == "/each" for _, path, _ in got) >= messages + 5, 120)
        forward = (stage_seconds(listen, "forward") - forward) / messages
        tokenised = (stage_seconds(listen, "tokenize") - tokenised) / messages
        stopped.set()
        watching.join()
    delivered = {body["data"]["tenant"]: at for at, path, body in got if path == "/each"}
    names = [name for name in acknowledged if name.startswith("m-")]
    rows = [1000 * (seen[name] - acknowledged[name]) for name in names]
    webhooks = [1000 * (delivered[name] - acknowledged[name]) for name in names]
    return {
        "messages": len(names),
        "rate": rate,
        "forward_ms": round(1000 * forward, 1),
        "tokenize_ms": round(1000 * tokenised, 1),
        "row_ms": summary(rows),
        "row_less_forward_ms": round(median(rows) - 1000 * forward, 1),
        "webhook_ms": summary(webhooks),
        "webhook_less_forward_ms": round(median(webhooks) - 1000 * forward, 1),
        "grouped": {
            "first_ms": round(1000 * (first_grouped - acknowledged["warm-0"]), 1),
            "notifications": sum(path == "/grouped" for _, path, _ in got),
        },
    }


def summary(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 1), "p95": round(quantiles(values, n=20)[-1], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--rate", type=float, default=2.5, help="messages a second")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="awry-latency-"))
    folder.chmod(0o755)
    print(f"logs in {folder}", flush=True)
    report = {"machine": host(), **measure(given.messages, given.rate, folder)}
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
