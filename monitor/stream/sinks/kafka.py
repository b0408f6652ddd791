"""Topics: an idempotent producer (acks=all), one for all sinks of a process.

Contract: `write` returns when the brokers have acknowledged every line, waiting out a broker that is away for up to
two minutes; after that, or when a line is refused, it raises OutputError, which stops the worker before it commits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from kafka import KafkaProducer
from kafka.errors import KafkaError

from monitor.errors import OutputError
from monitor.stream.kafka.client import Cluster, never_create_topics
from monitor.stream.sinks import Line

_DELIVERY_SECONDS = 120


def connect_producer(cluster: Cluster, delivery_seconds: int = _DELIVERY_SECONDS) -> KafkaProducer:
    """A producer that several sinks share. Raises ClusterError."""
    with cluster.explained():
        producer = KafkaProducer(
            **cluster.options(),
            metrics_enabled=False,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            delivery_timeout_ms=delivery_seconds * 1000,
            max_block_ms=delivery_seconds * 1000,
            linger_ms=5,
        )
    never_create_topics(producer)
    return producer


class TopicSink:
    """Writes to one topic. `setting` is named in errors. The producer is its owner's to close."""

    def __init__(self, producer: KafkaProducer, topic: str, setting: str) -> None:
        self._producer = producer
        self._topic = topic
        self._setting = setting

    def write(self, lines: Sequence[Line]) -> None:
        if not lines:
            return
        try:
            futures = [
                self._producer.send(
                    self._topic,
                    json.dumps(line.value, separators=(",", ":")).encode(),
                    key=line.key.encode("utf-8", "replace") if line.key is not None else None,
                    headers=[("content-type", b"application/json"), *line.headers],
                )
                for line in lines
            ]
            self._producer.flush(timeout=_DELIVERY_SECONDS + 10)
            for future in futures:
                future.get(timeout=1)
        except KafkaError as error:
            raise OutputError(f"{self._setting}: topic {self._topic} took no lines ({type(error).__name__})") from None

    def close(self) -> None:
        return None
