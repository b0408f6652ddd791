"""A member of a Kafka consumer group as a source; coordinates are (topic, partition, offset), the log the topic's id.

Contract: a thread of its own polls, so that the group never waits for the model: while enough records wait, partitions
are paused and polling goes on. Auto-commit is off; `commit` marks records as stored, and the thread commits their
offsets soon after, and before a partition is revoked or the source is closed. When partitions are revoked, waiting
records of them are dropped, and batches in progress get `revoke_seconds` to be stored and committed; after that they
are abandoned: not committed, so that the partition's next consumer reads them again. A worker that stores no batch for
`stall_seconds` leaves the group.

Records are parsed as they are fetched, where it is told how (`read`), and taken in turn by tenant. While some
partitions have more than their share of what may wait, the others are read first.

Where a group has no offsets on a topic, `start_from` decides for all of its partitions, and the start offsets are
committed at once, so that it is decided once; without it the source raises. Partitions that are added later are read
from their beginning. Records that retention deleted before they were read are counted.

A topic that is deleted and made again is another log, which is read from its beginning: its id changes, and committed
offsets carry the id that they count in.

kafka-python's rebalance listeners run on its I/O loop, which also sends heartbeats: they only wait by that loop's own
sleep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from kafka import AsyncConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    CommitFailedError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    RetriableError,
)

from monitor.errors import SourceError
from monitor.stream.kafka.client import Cluster, never_create_topics
from monitor.stream.kafka.headers import accept_any_header_name
from monitor.stream.kafka.inflight import InFlight, Partition
from monitor.stream.kafka.lag import Lag
from monitor.stream.kafka.offset_reset import OffsetReset
from monitor.stream.kafka.start_offset import StartFrom, timestamp_of
from monitor.stream.kafka.topic_ids import TopicIds
from monitor.stream.record import Record
from monitor.telemetry import logs, metrics
from monitor.telemetry.waiting import Waiting
from storage.coordinates import Coordinates

_POLL_SECONDS = 0.2
_COMMIT_SECONDS = 0.5
_COMMIT_TIMEOUT_SECONDS = 30.0
_CLOSE_SECONDS = 10.0
_SLEEP_SECONDS = 0.02
_RETRY_SECONDS = 1.0
# How soon an added partition, or a topic that was made again, is seen. A fetch from a topic that is gone asks at once.
_METADATA_SECONDS = 60


class KafkaSource:
    """Reads `topics` as a member of `group`. Raises ClusterError and SourceError."""

    lag_unit = "messages"

    def __init__(
        self,
        cluster: Cluster,
        topics: Sequence[str],
        group: str,
        *,
        start_from: StartFrom | None = None,
        until_end: bool = False,
        max_bytes: int = 4_194_304,
        prefetch_messages: int = 2048,
        prefetch_bytes: int = 67_108_864,
        fill_seconds: float = 0.0,
        read: Callable[[Record], Record] = lambda record: record,
        priority_tenants: Collection[str] = (),
        revoke_seconds: float = 20.0,
        stall_seconds: float = 900.0,
        session_seconds: float = 45.0,
        max_poll_seconds: float = 300.0,
    ) -> None:
        self.name = ",".join(topics)
        self._cluster = cluster
        self._topics = list(topics)
        self._max_bytes = max_bytes
        self._read_messages = read
        self._revoke_seconds = revoke_seconds
        self._stall_seconds = stall_seconds
        self._in_flight = InFlight(prefetch_messages, prefetch_bytes, fill_seconds, priority=priority_tenants)
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._commit_due = 0.0
        self._commit_timeout = 0.0
        self._committing = False
        self._progress = time.monotonic()
        accept_any_header_name()
        cluster.check_topics(self._topics, "source")
        with cluster.explained():
            self._consumer = KafkaConsumer(
                **cluster.options(),
                group_id=group,
                metrics_enabled=False,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                isolation_level="read_committed",
                max_poll_records=prefetch_messages,
                fetch_max_bytes=16_777_216,
                max_poll_interval_ms=int(max_poll_seconds * 1000),
                metadata_max_age_ms=_METADATA_SECONDS * 1000,
                session_timeout_ms=int(session_seconds * 1000),
                heartbeat_interval_ms=int(min(3.0, session_seconds / 3) * 1000),
            )
        never_create_topics(self._consumer)
        self._lag = Lag(self._consumer, self._in_flight, until_end=until_end)
        self._logs = TopicIds(self._consumer)
        self._reset = OffsetReset(self._consumer, self._in_flight, self._logs, group, start_from, self._commit_now)
        self._consumer.subscribe(topics=self._topics, listener=_Listener(self))
        self._thread = threading.Thread(target=self._run, name="awry-kafka", daemon=True)
        self._thread.start()

    # The worker's thread.

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        if self._error is not None:
            raise self._error
        records = self._in_flight.take(limit, wait_seconds)
        self._progress = time.monotonic()
        return records

    def commit(self, records: Sequence[Record]) -> None:
        abandoned = self._in_flight.mark_stored(records)
        self._progress = time.monotonic()
        if abandoned:
            metrics.ABANDONED_MESSAGES.inc(abandoned)

    @property
    def finished(self) -> bool:
        return self._error is None and self._lag.at_end and self._in_flight.idle

    @property
    def oldest(self) -> datetime | None:
        return self._in_flight.oldest

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        return self._in_flight.waiting

    @property
    def trouble(self) -> str | None:
        if self._error is not None:
            return str(self._error)
        return None if self._consumer.assignment() else "no partition is assigned to this worker yet"

    @property
    def lag(self) -> int | None:
        """Messages between the stored offsets and the end of the assigned partitions, a few seconds old."""
        return self._lag.total

    def close(self) -> None:
        """Commit the stored offsets and leave the group."""
        self._closing.set()
        self._in_flight.end()
        self._thread.join(_CLOSE_SECONDS + _POLL_SECONDS + self._revoke_seconds)

    # The polling thread.

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    self._check_stall()
                    self._reset.to_recreated()
                    self._commit_stored()
                    self._read()
                    self._lag.update()
                # A broker that does not answer is waited for, and so is a rebalance, after which offsets are looked up.
                except (RetriableError, CommitFailedError, RebalanceInProgressError) as error:
                    logs.logger().warning("kafka does not answer", reason=type(error).__name__)
                    self._closing.wait(_RETRY_SECONDS)
        except Exception as error:
            self._error = self._explain(error)
            logs.logger().error("kafka source stopped", reason=type(error).__name__)
        finally:
            self._in_flight.end()
            self._leave()

    def _read(self) -> None:
        assigned = self._consumer.assignment()
        if self._in_flight.room() == 0:
            self._consumer.pause(*assigned)
            # A partition that was assigned just now is not paused, and may give a record.
            self._put(self._poll(0.0, 1))
            self._in_flight.wait_for_room(_POLL_SECONDS)
            return
        much = {tp for tp in assigned if (tp.topic, tp.partition) in self._in_flight.over_their_share()}
        if much and much != assigned:
            self._consumer.pause(*much)
            self._consumer.resume(*(self._consumer.paused() & (assigned - much)))
            self._put(self._poll(0.0, self._in_flight.room()))
        room = self._in_flight.room()
        if room:
            self._consumer.resume(*(self._consumer.paused() & self._consumer.assignment()))
            with metrics.stage("poll"):
                polled = self._poll(_POLL_SECONDS, room)
            self._put(polled)

    def _put(self, polled: dict[TopicPartition, list[Any]]) -> None:
        for consumer_records in polled.values():
            self._in_flight.put([self._read_messages(self._record(each)) for each in consumer_records])

    def _poll(self, seconds: float, limit: int) -> dict[TopicPartition, list[Any]]:
        if self._consumer._coordinator.rejoining:
            # kafka-python 3.0 forgets a join for new metadata that outlasts one poll: no partitions, no heartbeat.
            self._consumer._coordinator.request_rejoin()
        fetcher = self._consumer._fetcher
        if not fetcher._next_partition_records:
            # It looks at what it has put aside of a paused partition only where this is None, and leaves it empty.
            fetcher._next_partition_records = None
        try:
            polled: dict[TopicPartition, list[Any]] = self._consumer.poll(int(seconds * 1000), max_records=limit)
            return polled
        except NoOffsetForPartitionError:
            self._reset.to_start()
        except OffsetOutOfRangeError:
            self._reset.into_range()
        except LogTruncationError as error:
            self._reset.to_divergence(error.divergent_offsets)
        return {}

    def _record(self, consumer_record: Any) -> Record:
        value = consumer_record.value if consumer_record.value is not None else b""
        topic = consumer_record.topic
        return Record(
            Coordinates(topic, consumer_record.partition, consumer_record.offset),
            value if len(value) <= self._max_bytes else None,
            len(value),
            timestamp_of(consumer_record.timestamp),
            tuple(consumer_record.headers or ()),
            log=self._logs.id_of(topic),
            tombstone=consumer_record.value is None,
        )

    def _commit_stored(self) -> None:
        now = time.monotonic()
        if now < self._commit_due or (self._committing and now < self._commit_timeout):
            return
        offsets = self._in_flight.to_commit()
        if not offsets:
            return
        self._commit_due, self._commit_timeout = now + _COMMIT_SECONDS, now + _COMMIT_TIMEOUT_SECONDS
        self._committing = True

        def done(_offsets: Any, result: Any) -> None:
            self._committing = False
            if isinstance(result, Exception):
                # The group rebalanced, or the coordinator is away: the offsets are committed later, or read again.
                metrics.COMMIT_FAILURES.inc()
                logs.logger().warning("offset commit failed", reason=type(result).__name__)
            else:
                self._in_flight.mark_committed(offsets)

        with metrics.stage("commit"):
            self._consumer.commit_async(self._logs.offsets(offsets), callback=done)

    def _commit_now(self, offsets: dict[Partition, int]) -> None:
        if offsets:
            self._consumer.commit(self._logs.offsets(offsets), timeout_ms=int(_CLOSE_SECONDS * 1000))
            self._in_flight.mark_committed(offsets)

    def _check_stall(self) -> None:
        if self._in_flight.idle:
            self._progress = time.monotonic()
        elif time.monotonic() - self._progress > self._stall_seconds:
            raise SourceError(
                f"stall_seconds: no batch was finished for {self._stall_seconds:g} s; the partitions are given up"
            )

    def _leave(self) -> None:
        try:
            self._commit_now(self._in_flight.to_commit())
        except KafkaError as error:
            metrics.COMMIT_FAILURES.inc()
            logs.logger().warning("last offset commit failed", reason=type(error).__name__)
        self._closing.set()
        self._consumer.close(autocommit=False, timeout_ms=int(_CLOSE_SECONDS * 1000))
        metrics.PARTITIONS_ASSIGNED.set(0)

    def _explain(self, error: Exception) -> Exception:
        if not isinstance(error, KafkaError):
            return error
        try:
            with self._cluster.explained():
                raise error
        except Exception as explained:
            return explained

    # The rebalance listener, on kafka-python's I/O loop.

    def _assigned(self, partitions: Iterable[TopicPartition]) -> None:
        added = [(tp.topic, tp.partition) for tp in partitions]
        self._in_flight.assign(added)
        metrics.PARTITIONS_ASSIGNED.inc(len(added))
        metrics.REBALANCES.labels("assigned").inc()

    async def _revoked(self, revoked: Collection[TopicPartition]) -> None:
        partitions = {(tp.topic, tp.partition) for tp in revoked}
        self._in_flight.drop_waiting(partitions)
        deadline = time.monotonic() + self._revoke_seconds
        while self._in_flight.in_progress(partitions) and time.monotonic() < deadline and not self._closing.is_set():
            await self._consumer._net.sleep(_SLEEP_SECONDS)
        offsets = self._in_flight.to_commit(partitions)
        if offsets:
            try:
                await self._consumer.commit_async(self._logs.offsets(offsets))
            except KafkaError as error:
                metrics.COMMIT_FAILURES.inc()
                logs.logger().warning("offset commit before revocation failed", reason=type(error).__name__)
        self._unassign(partitions, "revoked")

    def _unassign(self, partitions: Collection[Partition], event: str) -> None:
        self._in_flight.unassign(partitions)
        for partition in partitions:
            self._lag.remove(partition)
        metrics.PARTITIONS_ASSIGNED.dec(len(partitions))
        metrics.REBALANCES.labels(event).inc()


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Passes rebalances on to the source."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._source._assigned(assigned)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:
            await self._source._revoked(revoked)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._source._unassign({(tp.topic, tp.partition) for tp in lost}, "lost")
