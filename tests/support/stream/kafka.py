"""What tests of the stream share: topics, messages in and out, a group's offsets, sources read to a count.

Everything here speaks to the broker through plain clients of its own, never through the source under test.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError
from prometheus_client import Counter

from monitor.stream.kafka.client import Cluster
from monitor.stream.record import Record, Source

T = TypeVar("T")
Headers = Sequence[tuple[str, bytes | None]]


def wait_for(condition: Callable[[], T], seconds: float = 30.0) -> T:
    """What `condition` gives once that is true; fails when it is not within `seconds`."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"did not become true within {seconds:g} s"
        time.sleep(0.02)
    return found


def unique(name: str = "t") -> str:
    """A name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def new_topic(cluster: Cluster, partitions: int = 3, **configs: str) -> str:
    """A fresh topic; `configs` are Kafka's own, with _ for each dot. Records of any time stay in it."""
    name = unique("topic")
    given = {"retention_ms": "-1"} | configs
    options = {"num_partitions": partitions, "configs": {k.replace("_", "."): v for k, v in given.items()}}
    with closing(KafkaAdminClient(**cluster.options())) as admin:
        admin.create_topics({name: options}, wait_for_metadata=True)
    return name


def produce(
    cluster: Cluster,
    topic: str,
    values: Iterable[bytes | None],
    *,
    key: bytes | None = None,
    partition: int | None = None,
    headers: Headers = (),
    timestamp_ms: int | None = None,
) -> list[tuple[int, int]]:
    """Write `values` in order and wait until the broker has them. Their (partition, offset)."""
    with closing(KafkaProducer(**cluster.options(), acks="all", linger_ms=5, metrics_enabled=False)) as producer:
        sent = [
            producer.send(topic, v, key=key, partition=partition, headers=list(headers), timestamp_ms=timestamp_ms)
            for v in values
        ]
        producer.flush(30)
        return [(m.partition, m.offset) for m in (one.get(1) for one in sent)]


def consume(cluster: Cluster, topic: str, count: int, seconds: float = 30.0) -> list[Any]:
    """The first `count` records of a topic, as kafka-python gives them, in order within a partition."""
    consumer = KafkaConsumer(
        topic, **cluster.options(), group_id=None, auto_offset_reset="earliest", metrics_enabled=False
    )
    found: list[Any] = []
    until = time.monotonic() + seconds
    with closing(consumer):
        while len(found) < count:
            assert time.monotonic() < until, f"{len(found)} of {count} records in {topic} within {seconds:g} s"
            for batch in consumer.poll(200).values():
                found += batch
    return found


def committed(cluster: Cluster, group: str) -> dict[tuple[str, int], int]:
    """The group's offsets by (topic, partition), asked for by an admin client."""

    def asked() -> list[Any]:
        try:
            return [admin.list_group_offsets({group: None})[group]]
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            return []  # a broker that is new, or back

    with closing(KafkaAdminClient(**cluster.options())) as admin:
        (found,) = wait_for(asked)
    return {(tp.topic, tp.partition): one.offset for tp, one in found.items() if one.offset >= 0}


def delete_before(cluster: Cluster, topic: str, offset: int, partition: int = 0) -> None:
    """Remove all records before `offset`, as retention does."""
    with closing(KafkaAdminClient(**cluster.options())) as admin:
        admin.delete_records({TopicPartition(topic, partition): offset})


def add_partitions(cluster: Cluster, topic: str, total: int) -> None:
    with closing(KafkaAdminClient(**cluster.options())) as admin:
        admin.create_partitions({topic: total})


def recreate(cluster: Cluster, topic: str, partitions: int = 3) -> None:
    """Delete a topic and make it again under its name."""
    with closing(KafkaAdminClient(**cluster.options())) as admin:
        admin.delete_topics([topic])
        wait_for(lambda: topic not in admin.list_topics())
        admin.create_topics({topic: {"num_partitions": partitions, "configs": {"retention.ms": "-1"}}})
        wait_for(lambda: topic in admin.list_topics())


def read(source: Source, count: int, *, limit: int = 100, seconds: float = 30.0, commit: bool = True) -> list[Record]:
    """Poll until `count` records are there; no more are asked for. Each batch is committed unless told otherwise."""
    found: list[Record] = []
    until = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} records within {seconds:g} s"
        batch = source.poll(min(limit, count - len(found)), 0.1)
        if batch and commit:
            source.commit(batch)
        found += batch
    return found


def grown(counter: Counter) -> Callable[[], float]:
    """How much a counter of awry's own has grown since this call."""
    before = counter._value.get()
    return lambda: counter._value.get() - before
