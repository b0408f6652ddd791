"""One record of a topic by its coordinates, for an investigator who has only its hash in the tables."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from monitor.errors import SourceError
from monitor.stream.kafka.client import Cluster, never_create_topics
from monitor.stream.kafka.headers import accept_any_header_name
from storage.coordinates import Coordinates

_SECONDS = 15.0


def fetch_record(cluster: Cluster, at: Coordinates) -> Any:
    """kafka-python's record at these coordinates. Joins no group and commits nothing. Raises SourceError."""
    accept_any_header_name()
    partition = TopicPartition(at.source, at.partition)
    with cluster.explained():
        consumer = KafkaConsumer(
            **cluster.options(),
            group_id=None,
            metrics_enabled=False,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
        )
    never_create_topics(consumer)
    with closing(consumer), cluster.explained():
        if at.partition not in (consumer.partitions_for_topic(at.source) or set()):
            raise SourceError(f"coordinates: there is no topic {at.source} with a partition {at.partition}")
        consumer.assign([partition])
        first = consumer.beginning_offsets([partition])[partition]
        end = consumer.end_offsets([partition])[partition]
        if not first <= at.offset < end:
            raise SourceError(
                f"coordinates: {at} is not in the topic any more (it holds {first} to {end - 1})"
                if at.offset < first
                else f"coordinates: {at} is not in the topic yet (it ends at {end - 1})"
            )
        consumer.seek(partition, at.offset)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            for record in consumer.poll(500, max_records=1).get(partition, []):
                if record.offset == at.offset:
                    return record
                raise SourceError(f"coordinates: {at} was removed by compaction, or holds no message")
        raise SourceError(f"coordinates: no answer for {at} within {_SECONDS:g} s")
