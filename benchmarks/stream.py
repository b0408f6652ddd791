"""What the service costs: Kafka -> worker -> PostgreSQL with a free scorer, and with a real model.

How to run: `make bench-stream`, or `python -m benchmarks.stream [--out docs/bench-stream.json] [--quick]`, on a machine
that does nothing else. The embedded Kafka and PostgreSQL run on the same cores. Figures:

- bare: messages/s of a kafka-python loop that polls 500 and commits, over the same topic; the measure (aim 0.6 of it)
- free, overlapped or not: a worker whose scorer costs nothing, one probe, rows in the tables, offsets committed
- waiting, overlapped or not: the same with a scorer that waits 30 ms a batch of 64 off the CPU, as for an accelerator
- memory: the worker's own resident memory after 10,000 and after all messages (aim: within 5 %)
- outside: with SmolLM2-135M on the same stream, the share of the worker's time that is not the forward pass (aim 5 %)

Bare and free runs alternate over the rounds; medians are printed. Messages are about 160 bytes of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from sqlalchemy import Engine, text

from monitor.service.batch_rows import Outcome, ProbeScore
from monitor.service.policy import Policy
from monitor.service.worker import Worker
from monitor.settings import default_state_dir
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.wire import WireMessage
from monitor.telemetry import logs
from monitor.telemetry.metrics import STAGE_SECONDS
from storage.database import connect, upgrade
from storage.embedded import embedded_url
from storage.known import ScoredBy

PARTITIONS = 4
BATCH = 512
PROBE: Any = SimpleNamespace(name="free", digest="", card=SimpleNamespace(name="free", version=1, threshold=0.5))


class FreeScorer:
    """Every message 0.25, at no cost but `wait` seconds off the CPU."""

    tokens = 0
    seconds = 0.0

    def __init__(self, wait: float = 0.0) -> None:
        self._wait = wait

    def prepare(self, messages: Sequence[WireMessage]) -> list[WireMessage]:
        return list(messages)

    def score(self, messages: Sequence[WireMessage]) -> list[Outcome]:
        if self._wait:
            time.sleep(self._wait)
        return [Outcome("scored", (ProbeScore(PROBE, 0.25),), tokens=12) for _ in messages]


@dataclass(frozen=True)
class Size:
    """How much is run."""

    messages: int = 20_000
    rounds: int = 3
    memory_messages: int = 200_000
    memory_first: int = 10_000
    model_messages: int = 200


QUICK = Size(messages=600, rounds=1, memory_messages=1200, memory_first=600, model_messages=0)


def produce(cluster: Cluster, topic: str, number: int) -> None:
    """`number` messages over all partitions."""
    producer = KafkaProducer(**cluster.options(), linger_ms=20, batch_size=131_072, metrics_enabled=False)
    for n in range(number):
        message = {"id": f"{topic}-{n}", "tenant": f"tenant-{n % 5}", "prompt": f"message {n} " + "and so on " * 8}
        producer.send(topic, json.dumps(message).encode(), partition=n % PARTITIONS)
    producer.flush()
    producer.close()


def bare(cluster: Cluster, topic: str, number: int) -> float:
    """Messages/s of polling and committing alone, from the first record to the last commit."""
    consumer = KafkaConsumer(
        topic,
        **cluster.options(),
        group_id=f"bare-{time.time_ns()}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metrics_enabled=False,
    )
    began, seen = 0.0, 0
    with closing(consumer):
        while seen < number:
            found = consumer.poll(500, max_records=500)
            began = began or time.perf_counter()
            seen += sum(len(batch) for batch in found.values())
            consumer.commit()
        return number / (time.perf_counter() - began)


def worked(
    cluster: Cluster,
    topic: str,
    engine: Engine,
    *,
    overlap: bool,
    batch: int = BATCH,
    wait: float = 0.0,
    on_batch: Any = lambda *_: None,
    cpu: list[float] | None = None,
) -> float:
    """Messages/s of a worker with a free scorer, from its first poll to its last commit. `cpu` gets the CPU
    microseconds a message of this process, PostgreSQL's and Kafka's not counted."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE messages, scores, head_scores, answers"))
    source = KafkaSource(
        cluster, [topic], f"free-{time.time_ns()}", start_from="earliest", until_end=True, prefetch_messages=4 * BATCH
    )
    policy = Policy(("free",), "free", batch_messages=batch, overlap=overlap)
    before = time.process_time()
    with closing(source):
        tally = Worker(source, FreeScorer(wait), engine, policy, on_batch=on_batch).run()
    if cpu is not None:
        cpu.append((time.process_time() - before) / tally.messages * 1e6)
    assert tally.by_status == {"scored": tally.messages}
    return tally.messages / tally.seconds


def memory(cluster: Cluster, engine: Engine, size: Size) -> dict[str, float]:
    """Resident memory in MiB of this process while one worker reads all messages."""
    topic = "memory"
    cluster.create_topics([topic], PARTITIONS)
    produce(cluster, topic, size.memory_messages)
    marks: dict[int, float] = {}

    def on_batch(tally: Any, *_: object) -> None:
        for mark in (size.memory_first, size.memory_messages):
            if tally.messages >= mark and mark not in marks:
                gc.collect()
                marks[mark] = resident_mib()

    rate = worked(cluster, topic, engine, overlap=True, on_batch=on_batch)
    first, last = marks[size.memory_first], marks[size.memory_messages]
    return {"first_mib": first, "last_mib": last, "growth": last / first - 1, "messages_per_s": rate}


def resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def with_model(cluster: Cluster, engine: Engine, number: int) -> dict[str, float]:
    """SmolLM2 with the shipped harmful-request probe: seconds in all, in the forward pass, and the share outside it."""
    from monitor.service.scoring import BatchScorer
    from probes.card import load_probe
    from probes.model.builtin import SMOLLM2
    from probes.model.load import load_chat_model
    from probes.organisms.messages import everyday

    topic = "model"
    cluster.create_topics([topic], PARTITIONS)
    producer = KafkaProducer(**cluster.options())
    for n, prompt in enumerate(everyday("demo")[:number]):
        producer.send(topic, json.dumps({"id": f"m{n}", "prompt": prompt}).encode(), partition=n % PARTITIONS)
    producer.flush()
    producer.close()
    probe = load_probe("harmful-request")
    chat = load_chat_model(SMOLLM2, default_state_dir())
    scorer = BatchScorer(chat, [probe], token_budget=2048, max_tokens=2048, skip_over_long=False)
    source = KafkaSource(cluster, [topic], "model", start_from="earliest", until_end=True)
    scored_by = (ScoredBy(probe.name, probe.digest),)
    policy = Policy((probe.name,), "model", scored_by=scored_by)
    before = _forward_seconds()
    with closing(source):
        worker = Worker(source, scorer, engine, policy)
        # Joining the group is not part of reading from it.
        while source.oldest is None:
            time.sleep(0.01)
        tally = worker.run()
    forward = _forward_seconds() - before
    return {
        "messages": tally.messages,
        "seconds": tally.seconds,
        "forward_seconds": forward,
        "outside": 1 - forward / tally.seconds,
        "tokens_per_s": tally.tokens / forward,
    }


def _forward_seconds() -> float:
    samples = next(iter(STAGE_SECONDS.collect())).samples
    return sum(s.value for s in samples if s.name.endswith("_sum") and s.labels["stage"] == "forward")


@contextmanager
def servers() -> Iterator[tuple[Cluster, Engine]]:
    """An embedded Kafka and PostgreSQL of the run's own."""
    with tempfile.TemporaryDirectory(prefix="awry-bench-") as folder:
        Path(folder).chmod(0o755)
        engine = connect(embedded_url(Path(folder)))
        upgrade(engine)
        with running(Broker(Path(folder) / "kafka", jar_folder=default_state_dir() / "kafka" / "jars")) as broker:
            yield Cluster(broker.address), engine
        engine.dispose()


def measure(size: Size) -> dict[str, Any]:
    """All figures."""
    with servers() as (cluster, engine):
        cluster.create_topics(["free"], PARTITIONS)
        produce(cluster, "free", size.messages)
        found: dict[str, list[float]] = {}
        cpu: list[float] = []
        for _ in range(size.rounds):
            found.setdefault("bare", []).append(bare(cluster, "free", size.messages))
            for turn, overlap in (("", True), ("_in_turn", False)):
                for name, batch, wait in (("free", BATCH, 0.0), ("waiting", 64, 0.03)):
                    rate = worked(
                        cluster,
                        "free",
                        engine,
                        overlap=overlap,
                        batch=batch,
                        wait=wait,
                        cpu=cpu if overlap and not wait else None,
                    )
                    found.setdefault(name + turn, []).append(rate)
        rates = {name: median(values) for name, values in found.items()}
        return {
            "messages_per_s": rates,
            "rounds": found,
            "of_bare": rates["free"] / rates["bare"],
            "cpu_microseconds": median(cpu),
            "overlap_gain": {name: rates[name] / rates[f"{name}_in_turn"] for name in ("free", "waiting")},
            "memory": memory(cluster, engine, size),
            "model": with_model(cluster, engine, size.model_messages) if size.model_messages else None,
            "messages": size.messages,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        }


def markdown(found: dict[str, Any]) -> str:
    """The table that README holds."""
    rates, grown, model = found["messages_per_s"], found["memory"], found["model"]
    rows = [
        ("bare kafka-python loop: poll and commit", f"{rates['bare']:,.0f} messages/s", ""),
        (
            "worker, free scorer, Kafka to PostgreSQL",
            f"{rates['free']:,.0f} messages/s",
            f"{found['cpu_microseconds']:.0f} us of CPU a message; {found['of_bare']:.2f} of bare",
        ),
        (
            "the same without overlapping the write",
            f"{rates['free_in_turn']:,.0f} messages/s",
            f"overlap gains {found['overlap_gain']['free'] - 1:+.0%}",
        ),
        (
            "a scorer that waits 30 ms a batch of 64 off the CPU, overlapped / not",
            f"{rates['waiting']:,.0f} / {rates['waiting_in_turn']:,.0f} messages/s",
            f"overlap gains {found['overlap_gain']['waiting'] - 1:+.0%}",
        ),
        (
            "memory after the first / the last message of the long run",
            f"{grown['first_mib']:.0f} / {grown['last_mib']:.0f} MiB",
            f"{grown['growth']:+.1%} (aim 5 %)",
        ),
    ]
    if model is not None:
        rows.append(
            (
                f"time outside the forward pass, SmolLM2, {model['messages']:.0f} messages",
                f"{model['outside']:.1%}",
                "aim 5 %",
            )
        )
    lines = ["| what | figure | against |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its figures mean nothing")
    given = parser.parse_args()
    logs.configure()
    found = measure(QUICK if given.quick else Size())
    print(markdown(found))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
