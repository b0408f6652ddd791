"""Where a consumer group reads on when its own offsets do not say: it has none, they are gone, or the log was cut.

Contract: nothing is passed over in silence. A beginning is committed at once, so that it is decided once; what
retention deleted unread is counted (`awry_fail_open_total`, reason lost); where the log was cut, what was read of the
old records counts no more. Called by the thread that polls, within kafka-python's own rules.
"""

from __future__ import annotations

from collections.abc import Callable

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from monitor.stream.kafka.inflight import Ledger, Partition
from monitor.stream.kafka.start_offset import StartFrom, choose_starts, nowhere_to_begin, topic_has_offsets
from monitor.telemetry import logs, metrics


class Positions:
    """Moves `consumer`, keeps `ledger` in step, and commits by `commit`. Raises SourceError."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        ledger: Ledger,
        group: str,
        start_from: StartFrom | None,
        commit: Callable[[dict[Partition, int]], None],
    ) -> None:
        self._consumer = consumer
        self._ledger = ledger
        self._group = group
        self._start_from = start_from
        self._commit = commit

    def begin(self) -> None:
        """Set where to begin in partitions that the group has no offset for, and commit it."""
        missing = [tp for tp in self._consumer.assignment() if self._consumer.committed(tp) is None]
        begin = self._start_from
        if begin is None:
            for topic in sorted({tp.topic for tp in missing}):
                if not topic_has_offsets(self._consumer, topic):
                    raise nowhere_to_begin(self._group, topic)
            begin = "earliest"  # partitions that were added to a topic which the group knows: nothing of them was read
        starts = choose_starts(self._consumer, missing, begin)
        for tp, offset in starts.items():
            self._consumer.seek(tp, offset)
            logs.logger().info("beginning", topic=tp.topic, partition=tp.partition, offset=offset)
        self._commit({(tp.topic, tp.partition): offset for tp, offset in starts.items()})

    def into_range(self) -> None:
        """Go on at the oldest record that there is, and count what was deleted unread."""
        assigned = list(self._consumer.assignment())
        first, last = self._consumer.beginning_offsets(assigned), self._consumer.end_offsets(assigned)
        for tp in assigned:
            at = self._consumer.position(tp)
            if at is None or first[tp] <= at <= last[tp]:
                continue
            lost = max(0, first[tp] - at)
            metrics.FAIL_OPEN_MESSAGES.labels("lost").inc(lost)
            logs.logger().error(
                "offsets out of range",
                topic=tp.topic,
                partition=tp.partition,
                position=at,
                first=first[tp],
                end=last[tp],
                lost=lost,
            )
            if at < first[tp]:
                self._consumer.seek(tp, first[tp])
            else:
                self._start_over(tp, first[tp])

    def back(self, diverged: dict[TopicPartition, OffsetAndMetadata | None]) -> None:
        """The log was cut before what was read of it: go on there, or at the oldest record where that is not known."""
        first = self._consumer.beginning_offsets(list(diverged))
        for tp in self._consumer.assignment() & diverged.keys():
            cut = diverged[tp]
            offset = first[tp] if cut is None else max(first[tp], cut.offset)
            logs.logger().error(
                "the log was cut",
                topic=tp.topic,
                partition=tp.partition,
                position=self._consumer.position(tp),
                cut=offset,
            )
            self._start_over(tp, offset)

    def _start_over(self, tp: TopicPartition, offset: int) -> None:
        """Go back: other records are at these offsets now, so that what was read of the old ones counts no more."""
        place = (tp.topic, tp.partition)
        self._ledger.release([place])
        self._ledger.assign([place])
        self._consumer.seek(tp, offset)
        self._commit({place: offset})
