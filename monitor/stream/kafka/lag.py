"""How far a consumer is behind the ends of its partitions, and whether it has reached them.

Contract: `update` is called by the polling thread and asks the broker for the end offsets every few seconds; between
two answers the lag is as old as the last one. Markers of transactions and aborted records have offsets too, and are no
lag.
"""

from __future__ import annotations

import time
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from monitor.stream.kafka.inflight import InFlight, Partition
from monitor.telemetry import metrics

_EVERY_SECONDS = 5.0
_TIMEOUT_MS = 2000


class Lag:
    """The lag of `consumer`. With `until_end`, the ends are those that it saw first, and `at_end` tells when it is
    there."""

    def __init__(self, consumer: KafkaConsumer, in_flight: InFlight, *, until_end: bool) -> None:
        self._consumer = consumer
        self._in_flight = in_flight
        self._until_end = until_end
        self._end_offsets: dict[TopicPartition, int] = {}
        self._group_offsets: dict[TopicPartition, int] = {}
        self._due = 0.0
        self.at_end = False

    @property
    def total(self) -> int | None:
        """Messages between the stored offsets and the ends of the assigned partitions; None before the first answer."""
        return sum(self._by_partition().values()) if self._end_offsets else None

    def update(self) -> None:
        """Ask for end offsets where it is time, set the metric, and see whether the end is reached."""
        now = time.monotonic()
        assigned = self._consumer.assignment()
        known = self._end_offsets.keys() >= assigned
        if assigned and (now >= self._due or not known):
            self._due = now + _EVERY_SECONDS
            try:
                wanted = [tp for tp in assigned if not (self._until_end and tp in self._end_offsets)]
                self._end_offsets |= self._consumer.end_offsets(wanted, timeout_ms=_TIMEOUT_MS) if wanted else {}
                for tp in assigned - self._group_offsets.keys():
                    self._group_offsets[tp] = self._consumer.committed(tp, timeout_ms=_TIMEOUT_MS) or 0
            except KafkaError:
                return
            for tp in assigned:
                self._in_flight.skip_to((tp.topic, tp.partition), self._position(tp))
            for tp, lag in self._by_partition().items():
                metrics.CONSUMER_LAG.labels(tp.topic, str(tp.partition)).set(lag)
        if self._until_end and assigned and self._in_flight.empty:
            self.at_end = all(self._position(tp) >= self._end_offsets.get(tp, 1 << 62) for tp in assigned)

    def remove(self, partition: Partition) -> None:
        """A partition that is no longer assigned."""
        topic, number = partition
        self._end_offsets.pop(TopicPartition(topic, number), None)
        self._group_offsets.pop(TopicPartition(topic, number), None)
        with suppress(KeyError):  # no lag was known yet
            metrics.CONSUMER_LAG.remove(topic, str(number))

    def _position(self, tp: TopicPartition) -> int:
        """The offset that is polled next; 0 where that is not known yet."""
        try:
            return self._consumer.position(tp, timeout_ms=_TIMEOUT_MS) or 0
        except KafkaError:  # the next poll raises it too, and handles it
            return 0

    def _by_partition(self) -> dict[TopicPartition, int]:
        lags = {}
        for tp in self._consumer.assignment():
            offset = self._in_flight.next_unstored((tp.topic, tp.partition)) or self._group_offsets.get(tp)
            if offset is not None and tp in self._end_offsets:
                lags[tp] = max(0, self._end_offsets[tp] - offset)
        return lags
