"""Where a consumer group begins in partitions that it has no offset for: earliest, latest, or the first record since a
time. A time after the last record is the end."""

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


def time_of(milliseconds: int | None) -> datetime | None:
    """A record's timestamp; None where datetime cannot hold it: a producer may write any number."""
    if milliseconds is None or not 0 <= milliseconds < 253_402_300_800_000:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def nowhere_to_begin(group: str, topic: str) -> SourceError:
    """What a group without offsets is told."""
    return SourceError(
        f"start_from: group {group} has no offsets on topic {topic}; say where to begin: "
        "--from earliest, --from latest or --from a time (2026-01-31T00:00Z)"
    )


def choose_starts(
    consumer: KafkaConsumer, partitions: Sequence[TopicPartition], begin: StartFrom
) -> dict[TopicPartition, int]:
    """The offset to begin at in each of `partitions`."""
    ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
    if begin == "latest":
        return ends
    if begin == "earliest":
        return dict(consumer.beginning_offsets(partitions))
    # Below zero are Kafka's own marks for the beginning and the end.
    millis = max(0, int(begin.timestamp() * 1000))
    found = consumer.offsets_for_times(dict.fromkeys(partitions, millis))
    return {tp: found[tp].offset if found.get(tp) else ends[tp] for tp in partitions}


def topic_has_offsets(consumer: KafkaConsumer, topic: str) -> bool:
    """Whether the group has read any partition of the topic."""
    partitions = consumer.partitions_for_topic(topic) or set()
    return any(consumer.committed(TopicPartition(topic, p)) is not None for p in partitions)
