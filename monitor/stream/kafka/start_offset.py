"""Start offsets of a consumer group in partitions that it has no offset for: earliest, latest, or by time.

Contract: a time gives the first record since then; one after the last record gives the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from kafka import KafkaConsumer, TopicPartition

from monitor.errors import SourceError

StartFrom = Literal["earliest", "latest"] | datetime


def parse_start(text: str) -> StartFrom:
    """`earliest`, `latest` or an ISO 8601 time; one without a zone is UTC."""
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise SourceError(
            f"start_from: {text} is neither earliest nor latest nor a time like 2026-01-31T00:00Z"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def timestamp_of(milliseconds: int | None) -> datetime | None:
    """A record's timestamp; None where datetime cannot hold it: a producer may write any number."""
    if milliseconds is None or not 0 <= milliseconds < 253_402_300_800_000:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def no_start_offset(group: str, topic: str) -> SourceError:
    """The error of a group without offsets where no start was given."""
    return SourceError(
        f"start_from: group {group} has no offsets on topic {topic}; choose where to start: "
        "--from earliest, --from latest or --from a time (2026-01-31T00:00Z)"
    )


def start_offsets(
    consumer: KafkaConsumer, partitions: Sequence[TopicPartition], start_from: StartFrom
) -> dict[TopicPartition, int]:
    """The offset to start at in each of `partitions`."""
    ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
    if start_from == "latest":
        return ends
    if start_from == "earliest":
        return dict(consumer.beginning_offsets(partitions))
    # Kafka takes negative timestamps for the beginning and the end.
    millis = max(0, int(start_from.timestamp() * 1000))
    by_time = consumer.offsets_for_times(dict.fromkeys(partitions, millis))
    return {tp: by_time[tp].offset if by_time.get(tp) else ends[tp] for tp in partitions}


def group_has_offsets(consumer: KafkaConsumer, topic: str) -> bool:
    """Whether the consumer's group has committed an offset of any partition of the topic."""
    partitions = consumer.partitions_for_topic(topic) or set()
    return any(consumer.committed(TopicPartition(topic, p)) is not None for p in partitions)
