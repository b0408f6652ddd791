"""Traffic, workers to be hurt, and an audit against an independent count of what was produced.

The count is kept by the producer side: for every acknowledged record its coordinates, whether it is a message, and
whether its score must be above the threshold. `audit` compares the tables and topics with it: what is lost, what is
there twice, what says something else.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from monitor.stream.kafka.client import Cluster
from tests.support import ROOT
from tests.support.rows import counts
from tests.support.stream.kafka import committed, wait_for
from tests.support.stream.stub_scorer import THRESHOLD, score_of
from tests.support.stream.worker_process import Setup

# One floods: records are stored in another order than the stream's.
TENANTS = ("shop", "school", "bank")
WEIGHTS = (8, 1, 1)
CANARY = "CANARYTEXT"
Place = tuple[int, int]


@dataclass(frozen=True)
class Sent:
    """What must become of one record."""

    message_id: str
    valid: bool
    tenant: str

    @property
    def flagged(self) -> bool:
        return self.valid and score_of(self.message_id) > THRESHOLD


@dataclass
class Audit:
    """What the tables say against the count; all zero is right."""

    sent: int
    lost: int = 0
    duplicate_rows: int = 0
    duplicate_scores: int = 0
    wrong_status: int = 0
    duplicate_alerts: int = 0
    miscounted_alerts: int = 0
    unsaid_verdicts: int = 0
    unsaid_dead_letters: int = 0

    @property
    def faults(self) -> dict[str, int]:
        """What is not as it must be."""
        return {k: v for k, v in vars(self).items() if k != "sent" and v}


@dataclass
class Scenario:
    """One topic, its traffic, its workers, its tables."""

    cluster: Cluster
    engine: Engine
    log_folder: Path
    partitions: int = 3
    name: str = field(default_factory=lambda: f"traffic-{uuid.uuid4().hex[:8]}")
    sent: dict[Place, Sent] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster.create_topics([self.name, self.verdicts, self.dead_letters], self.partitions)

    @property
    def verdicts(self) -> str:
        return f"{self.name}.verdicts"

    @property
    def dead_letters(self) -> str:
        return f"{self.name}.dead-letters"

    # Traffic.

    def produce(self, number: int, seed: int = 0) -> None:
        """Acknowledged by the broker when it returns; one in ten is no message."""
        draw = random.Random(seed)
        producer = KafkaProducer(**self.cluster.options(), acks="all")
        first, futures = len(self.sent), []
        for n in range(first, first + number):
            one = Sent(f"{self.name}-{n}", draw.random() > 0.1, draw.choices(TENANTS, WEIGHTS)[0])
            futures.append((one, producer.send(self.name, self.payload(one, n), key=str(n).encode())))
        producer.flush(timeout=60)
        for one, future in futures:
            data = future.get(timeout=60)
            self.sent[data.partition, data.offset] = one
        producer.close()

    def payload(self, one: Sent, n: int) -> bytes:
        """The record of one message."""
        prompt = f"{CANARY} number {n}"
        value = {"id": one.message_id, "tenant": one.tenant, "prompt" if one.valid else "nothing": prompt}
        return json.dumps(value).encode()

    # Workers.

    def setup(self, **changes: Any) -> Setup:
        given: dict[str, Any] = {
            "bootstrap": self.cluster.bootstrap,
            "database_url": self.engine.url.render_as_string(hide_password=False),
            "topic": self.name,
            "group": self.name,
            "verdicts": self.verdicts,
            "dead_letters": self.dead_letters,
        }
        return Setup(**{**given, **changes})

    def start_worker(self, **changes: Any) -> subprocess.Popen[bytes]:
        """A worker process; its log is named after its number."""
        log = (self.log_folder / f"worker-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stream.worker_process", self.setup(**changes).argument()],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        log.close()
        self.processes.append(process)
        return process

    def stop_workers(self) -> None:
        """Drain all that still run."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    @contextmanager
    def running(self) -> Iterator[Scenario]:
        """No process outlives the block."""
        try:
            yield self
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    # What the tables say.

    def stored(self) -> int:
        """Rows of this topic; -1 while the database is away."""
        try:
            with self.engine.connect() as connection:
                query = text("SELECT count(*) FROM messages WHERE source = :topic")
                return int(connection.execute(query, {"topic": self.name}).scalar_one())
        except DBAPIError:
            return -1

    def writing(self) -> bool:
        """Whether a worker has a transaction open that wrote something."""
        query = "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND backend_xid IS NOT NULL"
        with self.engine.connect() as connection:
            return connection.execute(text(query)).first() is not None

    def wait_stored(self, at_least: int, seconds: float = 90.0) -> None:
        """Until so many rows are there."""
        wait_for(lambda: self.stored() >= at_least, seconds)

    def committed(self, group: str | None = None) -> int:
        """Sum of the group's offsets, as a client that is not awry's source reads them."""
        return sum(committed(self.cluster, group or self.name).values())

    def wait_members(self, number: int) -> None:
        """Until the group is stable with so many members, as the coordinator tells it."""

        def there() -> bool:
            with closing(KafkaAdminClient(**self.cluster.options())) as admin:
                group = admin.describe_groups([self.name])[self.name]
            return group["group_state"] == "Stable" and len(group["members"]) == number

        wait_for(there, 60)

    def counts(self) -> dict[str, int]:
        """Rows of every table."""
        return counts(self.engine)

    def audit(self) -> Audit:
        """Compare the tables and topics with what was sent."""
        rows = self._rows('SELECT partition, "offset", status FROM messages WHERE source = :topic')
        query = """SELECT partition, "offset" FROM scores WHERE source = :topic"""
        scores = Counter((p, o) for p, o in self._rows(query))
        places = Counter((p, o) for p, o, _ in rows)
        found = Audit(len(self.sent))
        found.lost = len(self.sent.keys() - places.keys())
        found.duplicate_rows = sum(n - 1 for n in places.values()) + len(places.keys() - self.sent.keys())
        found.duplicate_scores = sum(n - 1 for n in scores.values())
        found.wrong_status = sum(
            (status == "scored") != self.sent[p, o].valid or ((p, o) in scores) != self.sent[p, o].valid
            for p, o, status in rows
            if (p, o) in self.sent
        )
        expected = Counter(s.tenant for s in self.sent.values() if s.flagged)
        alerts = self._rows("SELECT tenant, count FROM alerts")
        found.duplicate_alerts = len(alerts) - len({tenant for tenant, _ in alerts})
        found.miscounted_alerts = sum(expected[tenant] != count for tenant, count in alerts)
        found.miscounted_alerts += len(expected.keys() - {tenant for tenant, _ in alerts})
        said = {line["id"] for line in self.lines(self.verdicts)}
        found.unsaid_verdicts = len({s.message_id for s in self.sent.values()} - said)
        dead = {(line["partition"], line["offset"]) for line in self.lines(self.dead_letters)}
        found.unsaid_dead_letters = len({place for place, s in self.sent.items() if not s.valid} - dead)
        return found

    def _rows(self, query: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query), {"topic": self.name} if ":topic" in query else {}))

    def lines(self, topic: str) -> list[dict[str, Any]]:
        """Everything in a topic, read by a client without a group."""
        return [json.loads(record.value) for record in read_all(self.cluster, topic)]


def read_all(cluster: Cluster, topic: str) -> list[Any]:
    """All records of a topic up to its present end."""
    consumer = KafkaConsumer(**cluster.options(), group_id=None, auto_offset_reset="earliest")
    try:
        places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        found: list[Any] = []
        until = time.monotonic() + 60
        while any(consumer.position(place) < end for place, end in ends.items()):
            assert time.monotonic() < until, f"{topic} was not read within a minute"
            for records in consumer.poll(500).values():
                found += records
        return found
    finally:
        consumer.close(autocommit=False)
