"""Some records of topics, to look at: joins no group and commits nothing.

Contract: from `latest` it gives the last `limit` records that are there, from `earliest` or a time the first ones since
then; in the order of their timestamps, at most `limit`. It does not wait for records that are not there yet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from monitor.errors import SourceError
from monitor.stream.kafka.client import Cluster, never_create_topics
from monitor.stream.kafka.headers import accept_any_header_name
from monitor.stream.kafka.start_offset import StartFrom, start_offsets, timestamp_of
from monitor.stream.record import Record
from storage.coordinates import Coordinates

_SECONDS = 30.0


def sample(cluster: Cluster, topics: Sequence[str], start: StartFrom, limit: int, max_bytes: int) -> list[Record]:
    """The records. Raises ClusterError, and SourceError where the brokers do not answer in time."""
    cluster.check_topics(topics, "source")
    accept_any_header_name()
    with cluster.explained():
        consumer = KafkaConsumer(
            **cluster.options(),
            group_id=None,
            metrics_enabled=False,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
        )
    never_create_topics(consumer)
    with closing(consumer), cluster.explained():
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        consumer.assign(partitions)
        found = _read(consumer, partitions, start, limit)
    found.sort(key=lambda each: (each.timestamp, each.topic, each.partition, each.offset))
    return [_record(each, max_bytes) for each in (found[-limit:] if start == "latest" else found[:limit])]


def _read(consumer: Any, partitions: list[TopicPartition], start: StartFrom, limit: int) -> list[Any]:
    """Up to `limit` records of each partition: the last ones, or the first."""
    last = start == "latest"
    ends = consumer.end_offsets(partitions)
    firsts = consumer.beginning_offsets(partitions)
    begins = (
        # Offsets may be of markers or compacted away: a few more are looked at.
        {each: max(firsts[each], ends[each] - 2 * limit) for each in partitions}
        if last
        else start_offsets(consumer, partitions, start)
    )
    kept: dict[TopicPartition, deque[Any]] = {each: deque(maxlen=limit) for each in partitions}
    open_ = {each for each in partitions if begins[each] < ends[each]}
    for each in open_:
        consumer.seek(each, begins[each])
    deadline = time.monotonic() + _SECONDS
    while open_:
        if time.monotonic() > deadline:
            raise SourceError(f"source: no answer within {_SECONDS:g} s")
        for partition, records in consumer.poll(500, max_records=500).items():
            for record in records:
                if record.offset < ends[partition] and (last or len(kept[partition]) < limit):
                    kept[partition].append(record)
        for each in list(open_):
            if consumer.position(each) >= ends[each] or (not last and len(kept[each]) >= limit):
                open_.discard(each)
                consumer.pause(each)
    return [record for records in kept.values() for record in records]


def _record(raw: Any, max_bytes: int) -> Record:
    value = raw.value if raw.value is not None else b""
    return Record(
        Coordinates(raw.topic, raw.partition, raw.offset),
        value if len(value) <= max_bytes else None,
        len(value),
        timestamp_of(raw.timestamp),
        tuple(raw.headers or ()),
        tombstone=raw.value is None,
    )
