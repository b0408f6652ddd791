"""Offset reset: where a consumer group reads on without a usable offset: it has none, or out of range, or truncated.

Contract: no record is skipped silently. A start offset is committed at once, so that it is decided once; records that
retention deleted before they were read are counted (`awry_fail_open_total`, reason lost); where the log was truncated,
the in-flight records of before are abandoned. Called by the polling thread, within kafka-python's own rules.
"""

from __future__ import annotations

from collections.abc import Callable

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from monitor.stream.kafka.inflight import InFlight, Partition
from monitor.stream.kafka.start_offset import StartFrom, group_has_offsets, no_start_offset, start_offsets
from monitor.telemetry import logs, metrics


class OffsetReset:
    """Seeks `consumer`, keeps `in_flight` consistent, and commits by `commit`. Raises SourceError."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        in_flight: InFlight,
        group: str,
        start_from: StartFrom | None,
        commit: Callable[[dict[Partition, int]], None],
    ) -> None:
        self._consumer = consumer
        self._in_flight = in_flight
        self._group = group
        self._start_from = start_from
        self._commit = commit

    def to_start(self) -> None:
        """Seek to the start offset of partitions that the group has no offset for, and commit it."""
        missing = [tp for tp in self._consumer.assignment() if self._consumer.committed(tp) is None]
        start_from = self._start_from
        if start_from is None:
            for topic in sorted({tp.topic for tp in missing}):
                if not group_has_offsets(self._consumer, topic):
                    raise no_start_offset(self._group, topic)
            start_from = "earliest"  # partitions that were added to a topic which the group has read
        starts = start_offsets(self._consumer, missing, start_from)
        for tp, offset in starts.items():
            self._consumer.seek(tp, offset)
            logs.logger().info("beginning", topic=tp.topic, partition=tp.partition, offset=offset)
        self._commit({(tp.topic, tp.partition): offset for tp, offset in starts.items()})

    def into_range(self) -> None:
        """Seek to the first offset of the log where the position is out of range, and count the lost records."""
        assigned = list(self._consumer.assignment())
        first, last = self._consumer.beginning_offsets(assigned), self._consumer.end_offsets(assigned)
        for tp in assigned:
            position = self._consumer.position(tp)
            if position is None or first[tp] <= position <= last[tp]:
                continue
            lost = max(0, first[tp] - position)
            metrics.FAIL_OPEN_MESSAGES.labels("lost").inc(lost)
            logs.logger().error(
                "offsets out of range",
                topic=tp.topic,
                partition=tp.partition,
                position=position,
                first=first[tp],
                end=last[tp],
                lost=lost,
            )
            if position < first[tp]:
                self._consumer.seek(tp, first[tp])
            else:
                self._rewind(tp, first[tp])

    def to_divergence(self, diverged: dict[TopicPartition, OffsetAndMetadata | None]) -> None:
        """The log was truncated below the position: seek there, or to its first offset where that is not known."""
        first = self._consumer.beginning_offsets(list(diverged))
        for tp in self._consumer.assignment() & diverged.keys():
            divergence = diverged[tp]
            offset = first[tp] if divergence is None else max(first[tp], divergence.offset)
            logs.logger().error(
                "the log was cut",
                topic=tp.topic,
                partition=tp.partition,
                position=self._consumer.position(tp),
                cut=offset,
            )
            self._rewind(tp, offset)

    def _rewind(self, tp: TopicPartition, offset: int) -> None:
        """Seek back: other records are at these offsets now, so that those in flight must not be committed."""
        partition = (tp.topic, tp.partition)
        self._in_flight.unassign([partition])
        self._in_flight.assign([partition])
        self._consumer.seek(tp, offset)
        self._commit({partition: offset})
