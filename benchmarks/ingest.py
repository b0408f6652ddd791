"""What `awry ingest` takes: messages a second into the embedded Kafka (acks=all), and its memory over many of them.

How to run: `python -m benchmarks.ingest [--out FILE.json] [--quick]`, on a machine that does nothing else. The receiver
is the command in a process of its own; the broker, PostgreSQL and the clients are on the same cores. Figures:

- one message a request: messages/s of CONNECTIONS clients that wait for each answer, and the median and 99th percentile
  of a request's time
- 100 messages a request: the same, as NDJSON (aim: at least 2,000 messages/s)
- memory: the receiver's resident memory after 20,000 and after all 200,000 messages (aim: within 5 %)

Messages are OpenAI-style requests of about 600 bytes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from alerts.lifecycle.audit import Actor
from benchmarks.scratch import scratch_database
from monitor.settings import default_state_dir
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from monitor.web.auth import tokens

CONNECTIONS = 8
TOPIC = "ingest"
_TEXT = "how do I keep a kitchen garden through a dry summer without watering it every day? " * 6


@dataclass(frozen=True)
class Size:
    """How many messages are sent."""

    alone: int = 6_000
    together: int = 60_000
    memory: int = 200_000
    memory_first: int = 20_000


QUICK = Size(alone=200, together=2_000, memory=4_000, memory_first=2_000)


def message(n: int) -> bytes:
    turns = [{"role": "system", "content": "You help."}, {"role": "user", "content": f"{n}: {_TEXT}"}]
    return json.dumps({"model": "m", "messages": turns, "user": f"user-{n % 50}"}).encode()


class Receiver:
    """The command, started; `rss_mib` is its resident memory now."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, secret: str) -> None:
        self._process = process
        self.port = port
        self.headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/x-ndjson"}

    @property
    def rss_mib(self) -> float:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def receiver() -> Iterator[Receiver]:
    """`awry ingest` on an embedded Kafka and PostgreSQL of the run's own."""
    with scratch_database() as (engine, folder):
        with engine.begin() as connection:
            secret = tokens.create(connection, "bench", "ingest", timedelta(days=1), Actor("bench", "cli", "here"))
        jars = default_state_dir() / "kafka" / "jars"
        with running(Broker(folder / "kafka", jar_folder=jars, partitions=4)) as broker:
            Cluster(broker.address).create_topics([TOPIC], 4)
            log = Path(tempfile.mkstemp(prefix="awry-bench-ingest-")[1])
            environment = os.environ | {
                "AWRY_DATABASE_URL": engine.url.render_as_string(hide_password=False),
                "AWRY_STATE_DIR": str(folder),
                "AWRY_KAFKA_BOOTSTRAP": broker.address,
                "AWRY_INGEST_TOPIC": TOPIC,
                "AWRY_INGEST_LISTEN": "127.0.0.1:0",
            }
            command = [str(Path(sys.executable).with_name("awry")), "ingest"]
            with log.open("wb") as out:
                process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
            try:
                yield Receiver(process, _port(log, process), secret)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
                log.unlink()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text().splitlines():
            if "takes messages on " in line:
                return int(line.partition("http://127.0.0.1:")[2].partition(",")[0])
        time.sleep(0.05)
    raise RuntimeError(f"awry ingest did not start: {log.read_text()}")


def send(to: Receiver, number: int, a_request: int) -> dict[str, float]:
    """Send `number` messages over CONNECTIONS connections, each of which waits for its answers."""
    body = b"\n".join(message(n) for n in range(a_request))
    requests = number // a_request // CONNECTIONS
    seconds: list[float] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", to.port, timeout=60)
        for _ in range(requests):
            began = time.perf_counter()
            connection.request("POST", "/v1/ingest", body, to.headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
            seconds.append(time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    cpu, began = to.cpu_seconds, time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent, took = requests * CONNECTIONS * a_request, time.perf_counter() - began
    assert len(seconds) == requests * CONNECTIONS
    seconds.sort()
    return {
        "messages": sent,
        "messages_per_s": sent / took,
        "cpu_us_a_message": (to.cpu_seconds - cpu) / sent * 1e6,
        "median_ms": median(seconds) * 1000,
        "p99_ms": seconds[int(len(seconds) * 0.99)] * 1000,
    }


def measure(size: Size) -> dict[str, Any]:
    """All figures."""
    with receiver() as to:
        send(to, size.alone // 4, 1)
        alone = send(to, size.alone, 1)
        together = send(to, size.together, 100)
    with receiver() as to:
        send(to, size.memory_first, 100)
        first = to.rss_mib
        send(to, size.memory - size.memory_first, 100)
        last = to.rss_mib
    return {
        "alone": alone,
        "together": together,
        "memory": {"first_mib": first, "last_mib": last, "growth": last / first - 1, "messages": size.memory},
        "message_bytes": len(message(0)),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load "
        f"{os.getloadavg()[0]:.1f}",
    }


def markdown(found: dict[str, Any]) -> str:
    """The table."""
    alone, together, memory = found["alone"], found["together"], found["memory"]

    def row(what: str, one: dict[str, float], aim: str) -> str:
        return (
            f"| {what} | {one['messages_per_s']:,.0f} messages/s, request {one['median_ms']:.0f} ms (p99 "
            f"{one['p99_ms']:.0f}), {one['cpu_us_a_message']:.0f} us CPU a message | {aim} |"
        )

    return "\n".join(
        (
            "| what | figure | aim |",
            "|---|---|---|",
            row(f"one message a request, {CONNECTIONS} connections", alone, ""),
            row(f"100 messages a request (NDJSON), {CONNECTIONS} connections", together, "2,000 messages/s"),
            f"| memory after the first / the last of {memory['messages']:,} messages | {memory['first_mib']:.0f} / "
            f"{memory['last_mib']:.0f} MiB ({memory['growth']:+.1%}) | within 5 % |",
            "",
            f"Messages of {found['message_bytes']} bytes; broker (acks=all), PostgreSQL and clients on the same cores: "
            f"{found['machine']}.",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its figures mean nothing")
    given = parser.parse_args()
    found = measure(QUICK if given.quick else Size())
    print(markdown(found))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
