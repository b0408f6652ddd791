"""Offset reset: where a group reads on without a usable offset: none, out of range, truncated, or of another log.

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
from monitor.stream.kafka.topic_ids import TopicIds
from monitor.telemetry import logs, metrics


class OffsetReset:
    """Seeks `consumer`, keeps `in_flight` consistent, and commits by `commit`. Raises SourceError."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        in_flight: InFlight,
        topic_ids: TopicIds,
        group: str,
        start_from: StartFrom | None,
        commit: Callable[[dict[Partition, int]], None],
    ) -> None:
        self._consumer = consumer
        self._in_flight = in_flight
        self._topic_ids = topic_ids
        self._group = group
        self._start_from = start_from
        self._commit = commit
        # Partitions whose committed offset was compared with the topic's id, since they were assigned.
        self._checked: set[TopicPartition] = set()

    def to_start(self) -> None:
        """Seek to the start offset of partitions that the group has no offset for, and commit it.

        Where the group has none on the whole topic, `start_from` decides for all its partitions at once, those of other
        members too. What is without an offset later was added since: it is read from its beginning, so that a message
        that came before the group saw the partition is not missed.
        """
        for topic in sorted({tp.topic for tp in self._missing()}):
            # In this order: once the group has offsets on a topic, those of all partitions of that time are there.
            decided = group_has_offsets(self._consumer, topic)
            missing = [tp for tp in self._missing() if tp.topic == topic]
            if decided:
                self._begin(start_offsets(self._consumer, missing, "earliest"))
                continue
            if self._start_from is None:
                raise no_start_offset(self._group, topic)
            whole = {TopicPartition(topic, p) for p in self._consumer.partitions_for_topic(topic) or ()}
            starts = start_offsets(self._consumer, sorted(whole | set(missing)), self._start_from)
            # Another member may have been faster: what it has decided, and stored since, stays.
            self._begin({tp: offset for tp, offset in starts.items() if self._consumer.committed(tp) is None})

    def to_recreated(self) -> None:
        """Read topics from their beginning that were deleted and made again, while they were read or before."""
        changed, assigned = self._topic_ids.changed(), self._consumer.assignment()
        gone = {tp for tp in assigned if tp.topic in changed}
        for tp in assigned - self._checked - gone:
            committed = self._consumer.committed(tp, metadata=True)
            if committed is not None and self._topic_ids.of_another_log(tp.topic, committed):
                gone.add(tp)
        beginning = self._consumer.beginning_offsets(sorted(gone)) if gone else {}
        # Whatever the broker does not answer above is asked again: a change counts as seen once its partitions are
        # rewound, and where the commit fails, the offset that stays carries the old id.
        self._topic_ids.follow(changed)
        for tp, first in beginning.items():
            logs.logger().error("the topic was made again", topic=tp.topic, partition=tp.partition, beginning=first)
            self._seek_back(tp, first)
        self._checked = set(assigned)
        metrics.RECREATED_LOGS.inc(len({tp.topic for tp in gone}))
        self._commit({(tp.topic, tp.partition): first for tp, first in beginning.items()})

    def _missing(self) -> list[TopicPartition]:
        return [tp for tp in self._consumer.assignment() if self._consumer.committed(tp) is None]

    def _begin(self, starts: dict[TopicPartition, int]) -> None:
        # Committed first: where that fails, the next poll asks for a start again, of all of them.
        self._commit({(tp.topic, tp.partition): offset for tp, offset in starts.items()})
        for tp in self._consumer.assignment() & starts.keys():
            self._consumer.seek(tp, starts[tp])
            logs.logger().info("beginning", topic=tp.topic, partition=tp.partition, offset=starts[tp])

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
        self._seek_back(tp, offset)
        self._commit({(tp.topic, tp.partition): offset})

    def _seek_back(self, tp: TopicPartition, offset: int) -> None:
        partition = (tp.topic, tp.partition)
        self._in_flight.unassign([partition])
        self._in_flight.assign([partition])
        self._consumer.seek(tp, offset)
