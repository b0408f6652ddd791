"""A worker as a process: the service's own source, sinks, worker and tables around a scorer that needs no model.

Run with one argument, a JSON object: what `Setup` holds. SIGTERM drains.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import closing
from dataclasses import asdict, dataclass

from monitor.service.policy import Policy
from monitor.service.worker import Worker
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.kafka.start_offset import parse_start
from monitor.stream.parse import ParseOptions, Parser, read_messages
from monitor.stream.sinks import Outputs
from monitor.stream.sinks.kafka import TopicSink, connect_producer
from monitor.telemetry import logs
from storage.database import connect
from tests.support.stream.stub_scorer import NAME, SlowReadings, StubScorer

# Longer than any record of a test is late.
GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Setup:
    """What one worker process is told."""

    bootstrap: str
    database_url: str
    topic: str
    group: str
    verdicts: str
    dead_letters: str
    delay: float = 0.0
    batch_messages: int = 20
    start_from: str | None = "earliest"
    revoke_seconds: float = 5.0
    session_seconds: float = 6.0
    max_poll_seconds: float = 300.0
    dead_letter_limit: float = 1.0
    readings: bool = False

    def argument(self) -> str:
        return json.dumps(asdict(self))


def main(setup: Setup) -> None:
    logs.configure()
    cluster = Cluster(setup.bootstrap)
    engine = connect(setup.database_url)
    producer = connect_producer(cluster)
    parsing = ParseOptions(readings=setup.readings)
    parser = Parser(parsing)
    source = KafkaSource(
        cluster,
        [setup.topic],
        setup.group,
        start_from=parse_start(setup.start_from) if setup.start_from else None,
        revoke_seconds=setup.revoke_seconds,
        session_seconds=setup.session_seconds,
        max_poll_seconds=setup.max_poll_seconds,
        prefetch_messages=200,
        read=lambda record: read_messages(record, parser),
        priority_tenants=("bank",),
    )
    policy = Policy(
        (NAME,),
        "model",
        destinations=("console",),
        batch_messages=setup.batch_messages,
        dead_letter_limit=setup.dead_letter_limit,
        parsing=parsing,
        readings_grace_seconds=GRACE_SECONDS if setup.readings else None,
    )
    outputs = Outputs(
        verdicts=TopicSink(producer, setup.verdicts, "verdicts_out"),
        dead_letters=TopicSink(producer, setup.dead_letters, "dead_letters_out"),
    )
    with closing(source):
        scorer = SlowReadings(setup.delay) if setup.readings else StubScorer(setup.delay)
        worker = Worker(source, scorer, engine, policy, outputs=outputs)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        tally = worker.run()
    producer.close(timeout=10)
    print(json.dumps({"finished": tally.messages, "known": tally.known}), flush=True)


if __name__ == "__main__":
    main(Setup(**json.loads(sys.argv[1])))
