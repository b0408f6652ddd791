"""How long after a record's acknowledgement its row is committed, and a webhook has been told of its alert.

How to run: `python -m benchmarks.latency [--out docs/bench-latency.json] [--messages 60]`, on a machine that does
nothing else. Everything is real and on the same cores: the embedded Kafka and PostgreSQL, `awry run` with
SmolLM2-135M-Instruct and a shipped adapter's probe, `awry send`, a webhook receiver on loopback. The probe's threshold
is lowered so that every message alerts, each of a tenant of its own; 2.5 messages/s come at random moments.

- committed: from the broker's acknowledgement until a query finds the row (asked every 2 ms)
- delivered: until the request of an ungrouped webhook (`group_by = []`) is in
- grouped: until the one with the default grouping is in, of the first message
- forward: the worker's own time in the forward pass for each of these messages, by its metrics

Medians and 95th percentiles, in milliseconds. Aims: forward + 50 ms at most to the row, forward + 150 ms to the
webhook.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from sqlalchemy import Engine, text

from benchmarks.report import machine
from benchmarks.stream import servers
from benchmarks.support.destinations import SECRET
from benchmarks.support.receiver import serving
from monitor.settings import default_state_dir
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import free_port
from probes.card import Probe, load_probe, save_probe

ROOT = Path(__file__).parent.parent
AWRY = (sys.executable, "-c", "from monitor.cli.app import main; main()")
TOPIC, ADAPTER, PROBE = "latency", "insecure_code", "insecure-code-spillover"
PER_SECOND, WARM_UP = 2.5, 5
_FOUND = text('SELECT 1 FROM messages WHERE source = :topic AND partition = 0 AND "offset" = :offset')


class Told:
    """When requests came in, by their path and the tenant of their alert."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], float] = {}

    def handler(self) -> type[BaseHTTPRequestHandler]:
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                now, data = time.monotonic(), body["data"]
                for alert in data.get("alerts", [data]):
                    told.at.setdefault((self.path, str(alert["tenant"])), now)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return None

        return Handler


@contextmanager
def process(command: str, env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        running = subprocess.Popen((*AWRY, command), env=env, stdout=file, stderr=file, cwd=ROOT)
        try:
            yield
        except BaseException:
            print(log.read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            running.terminate()
            running.wait(60)


def until(found: Callable[[], bool], seconds: float = 300.0) -> float:
    """When it was found."""
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.002)
    return time.monotonic()


def forward(address: str) -> tuple[float, float]:
    """Seconds in forward passes, and how many there were."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    values = {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.startswith("awry_stage_seconds_")}
    return values['awry_stage_seconds_sum{stage="forward"}'], values['awry_stage_seconds_count{stage="forward"}']


def configuration(folder: Path, url: str) -> Path:
    """awry.toml with the probe whose threshold everything is above, and the two destinations."""
    probe = load_probe(PROBE)
    card = probe.card.model_copy(update={"calibration": replace(probe.card.calibration, threshold=-1e6)})
    saved = save_probe(Probe(card, probe.directions, probe.mitigators), folder / "probe")
    path = folder / "awry.toml"
    path.write_text(
        f'probes = ["{saved}"]\nadapter = "{ADAPTER}"\n'
        + "".join(
            f'[[destinations]]\nname = "{name}"\nkind = "webhook"\nurl = "{url}/{name}"\nsecret = "{SECRET}"\n'
            f"allow_private = true\n{more}"
            for name, more in (("each", "group_by = []\n"), ("grouped", ""))
        )
    )
    return path


def send_all(cluster: Cluster, engine: Engine, address: str, told: Told, messages: int) -> dict[str, list[float]]:
    """Milliseconds by what was waited for."""
    producer = KafkaProducer(**cluster.options(), metrics_enabled=False)
    draw = random.Random(1)
    acknowledged: list[float] = []
    found: dict[str, list[float]] = {"committed": [], "delivered": [], "grouped": []}
    before, passes = 0.0, 0.0
    for n in range(messages + WARM_UP):
        if n == WARM_UP:
            before, passes = forward(address)
        message = {"id": f"m{n}", "tenant": f"t{n}", "prompt": f"How do I bake bread number {n} in a small oven?"}
        sent = producer.send(TOPIC, json.dumps(message).encode(), partition=0).get(30)
        acknowledged.append(time.monotonic())
        where = {"topic": TOPIC, "offset": sent.offset}

        def there(where: dict[str, Any] = where) -> bool:
            with engine.connect() as connection:
                return connection.execute(_FOUND, where).first() is not None

        committed = until(there) - acknowledged[n]
        delivered = until(lambda tenant=f"t{n}": ("/each", tenant) in told.at)  # type: ignore[misc]
        if n >= WARM_UP:
            found["committed"].append(1000 * committed)
            found["delivered"].append(1000 * (told.at["/each", f"t{n}"] - acknowledged[n]))
        rest = acknowledged[n] + draw.uniform(0.5, 1.5) / PER_SECOND - delivered
        time.sleep(max(0.0, rest))
    seconds, number = forward(address)
    found["grouped"].append(1000 * (told.at["/grouped", "t0"] - acknowledged[0]))
    found["forward"] = [1000 * (seconds - before) / (number - passes)]
    producer.close()
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": round(statistics.median(ordered), 1), "p95": round(p95, 1), "least": round(ordered[0], 1)}


def measure(messages: int) -> dict[str, Any]:
    told = Told()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="awry-bench-")))
        folder.chmod(0o755)
        cluster, engine = stack.enter_context(servers())
        admin = KafkaAdminClient(**cluster.options())
        admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
        admin.close()
        url = stack.enter_context(serving(told.handler()))
        state = folder / "state"
        state.mkdir()
        (state / "models").symlink_to(default_state_dir() / "models")
        address = f"127.0.0.1:{free_port()}"
        env = {key: value for key, value in os.environ.items() if not key.startswith("AWRY_")} | {
            "AWRY_CONFIG": str(configuration(folder, url)),
            "AWRY_STATE_DIR": str(state),
            "AWRY_DATABASE_URL": engine.url.render_as_string(hide_password=False),
            "AWRY_KAFKA_BOOTSTRAP": str(cluster.options()["bootstrap_servers"]),
            "AWRY_SOURCE": f"kafka:{TOPIC}",
            "AWRY_START_FROM": "earliest",
            "AWRY_DEAD_LETTERS_OUT": "none",
        }
        stack.enter_context(process("run", env | {"AWRY_LISTEN": address}, folder / "run.log"))
        stack.enter_context(process("send", env, folder / "send.log"))
        until(lambda: _ready(address))
        found = send_all(cluster, engine, address, told, messages)
    (mean,) = found.pop("forward")
    report: dict[str, Any] = {"messages": messages, "per_second": PER_SECOND, "forward_ms": round(mean, 1)}
    report |= {f"{name}_ms": summary(values) for name, values in found.items()}
    for name in ("committed", "delivered"):
        report[f"{name}_beyond_forward_ms"] = round(report[f"{name}_ms"]["median"] - mean, 1)
    return report


def _ready(address: str) -> bool:
    time.sleep(0.2)
    try:
        with urllib.request.urlopen(f"http://{address}/readyz") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--messages", type=int, default=60)
    arguments = parser.parse_args()
    report = measure(arguments.messages) | {"machine": machine()}
    written = json.dumps(report, indent=1)
    print(written)
    if arguments.out is not None:
        arguments.out.write_text(written + "\n")


if __name__ == "__main__":
    main()
