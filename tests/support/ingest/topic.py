"""All of a topic, up to its end now."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from monitor.stream.kafka.client import Cluster


def everything(cluster: Cluster, topic: str) -> list[Any]:
    """Every record, as kafka-python gives them."""
    with closing(KafkaConsumer(**cluster.options(), enable_auto_commit=False, metrics_enabled=False)) as consumer:
        partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found: list[Any] = []
        while any(consumer.position(one) < end for one, end in ends.items()):
            for batch in consumer.poll(500).values():
                found += batch
    return found
