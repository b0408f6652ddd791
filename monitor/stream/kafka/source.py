"""A Kafka consumer group as a source; coordinates are (topic, partition, offset), times are the records' own.

Contract: a thread of its own polls, so that the group never waits for the model: while enough records wait, partitions
are paused and polling goes on. There is no auto-commit; `commit` notes what is stored, and the thread commits it soon
after, and before a partition is given up or the source is closed. When partitions are taken away, what waits of them is
forgotten, and what the worker has in hand gets `revoke_seconds` to be stored and committed; after that it is abandoned:
not committed, so that the next owner reads it again. A worker that stores nothing for `stall_seconds` gives its
partitions up.

Where a group has no offsets, `start_from` decides, and the beginning is committed at once, so that it is decided once;
without it the source refuses. Records that retention deleted before they were read are counted, never passed over in
silence.

kafka-python's listeners run on its I/O loop, which also sends heartbeats: they only wait by that loop's own sleep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from kafka import AsyncConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RetriableError,
)
from kafka.structs import OffsetAndMetadata

from monitor.errors import SourceError
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.headers import read_any_name
from monitor.stream.kafka.inflight import Ledger, Partition
from monitor.stream.kafka.offset_reset import Positions
from monitor.stream.kafka.start_offset import StartFrom, time_of
from monitor.stream.record import Record
from monitor.telemetry import logs, metrics
from storage.coordinates import Coordinates

_POLL_SECONDS = 0.2
_COMMIT_SECONDS = 0.5
_ANSWER_SECONDS = 30.0
_ENDS_SECONDS = 5.0
_CLOSE_SECONDS = 10.0
_NAP_SECONDS = 0.02
_RETRY_SECONDS = 1.0


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
        revoke_seconds: float = 20.0,
        stall_seconds: float = 900.0,
        session_seconds: float = 45.0,
        max_poll_seconds: float = 300.0,
    ) -> None:
        self.name = ",".join(topics)
        self._cluster = cluster
        self._topics = list(topics)
        self._until_end = until_end
        self._max_bytes = max_bytes
        self._revoke_seconds = revoke_seconds
        self._stall_seconds = stall_seconds
        self._ledger = Ledger(prefetch_messages, prefetch_bytes)
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._at_end = False
        self._ends: dict[TopicPartition, int] = {}
        self._ends_due = 0.0
        self._bases: dict[TopicPartition, int] = {}
        self._commit_due = 0.0
        self._commit_answer_due = 0.0
        self._committing = False
        self._progress = time.monotonic()
        read_any_name()
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
                session_timeout_ms=int(session_seconds * 1000),
                heartbeat_interval_ms=int(min(3.0, session_seconds / 3) * 1000),
            )
        self._positions = Positions(self._consumer, self._ledger, group, start_from, self._commit_now)
        self._consumer.subscribe(topics=self._topics, listener=_Listener(self))
        self._thread = threading.Thread(target=self._run, name="awry-kafka", daemon=True)
        self._thread.start()

    # What the worker calls.

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        if self._error is not None:
            raise self._error
        records = self._ledger.take(limit, wait_seconds)
        self._progress = time.monotonic()
        return records

    def commit(self, records: Sequence[Record]) -> None:
        abandoned = self._ledger.store(records)
        self._progress = time.monotonic()
        if abandoned:
            metrics.ABANDONED_MESSAGES.inc(abandoned)

    @property
    def finished(self) -> bool:
        return self._error is None and self._at_end and self._ledger.idle

    @property
    def oldest(self) -> datetime | None:
        return self._ledger.oldest

    @property
    def trouble(self) -> str | None:
        if self._error is not None:
            return str(self._error)
        return None if self._consumer.assignment() else "no partition is assigned to this worker yet"

    @property
    def lag(self) -> int | None:
        """Messages between what is committed and the end of the assigned partitions, a few seconds old."""
        return sum(self._lags().values()) if self._ends else None

    def close(self) -> None:
        """Commit what is stored and leave the group."""
        self._closing.set()
        self._ledger.end()
        self._thread.join(_CLOSE_SECONDS + _POLL_SECONDS + self._revoke_seconds)

    # The polling thread.

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    self._check_stall()
                    self._commit_stored()
                    self._read()
                    self._watch_ends()
                except RetriableError as error:  # a broker that is away comes back; the worker waits for it
                    logs.logger().warning("kafka does not answer", reason=type(error).__name__)
                    self._closing.wait(_RETRY_SECONDS)
        except Exception as error:
            self._error = self._explain(error)
            logs.logger().error("kafka source stopped", reason=type(error).__name__)
        finally:
            self._ledger.end()
            self._leave()

    def _read(self) -> None:
        room = self._ledger.room()
        assigned = self._consumer.assignment()
        if room == 0:
            self._consumer.pause(*assigned)
            # A partition that was assigned just now is not paused, and may give one.
            found = self._poll(0.0, 1)
        else:
            self._consumer.resume(*(self._consumer.paused() & assigned))
            with metrics.stage("poll"):
                found = self._poll(_POLL_SECONDS, room)
        for batch in found.values():
            self._ledger.put(self._record(one) for one in batch)
        if room == 0:
            self._ledger.wait_for_room(_POLL_SECONDS)

    def _poll(self, seconds: float, limit: int) -> dict[TopicPartition, list[Any]]:
        if self._consumer._coordinator.rejoining:
            # kafka-python 3.0 forgets a join for new metadata that outlasts one poll: no partitions, no heartbeat.
            self._consumer._coordinator.request_rejoin()
        try:
            found: dict[TopicPartition, list[Any]] = self._consumer.poll(int(seconds * 1000), max_records=limit)
            return found
        except NoOffsetForPartitionError:
            self._positions.begin()
        except OffsetOutOfRangeError:
            self._positions.into_range()
        except LogTruncationError as error:
            self._positions.back(error.divergent_offsets)
        return {}

    def _record(self, one: Any) -> Record:
        value = one.value if one.value is not None else b""
        return Record(
            Coordinates(one.topic, one.partition, one.offset),
            value if len(value) <= self._max_bytes else None,
            len(value),
            time_of(one.timestamp),
            tuple(one.headers or ()),
        )

    def _commit_stored(self) -> None:
        now = time.monotonic()
        if now < self._commit_due or (self._committing and now < self._commit_answer_due):
            return
        offsets = self._ledger.to_commit()
        if not offsets:
            return
        self._commit_due, self._commit_answer_due = now + _COMMIT_SECONDS, now + _ANSWER_SECONDS
        self._committing = True

        def done(_offsets: Any, result: Any) -> None:
            self._committing = False
            if isinstance(result, Exception):
                # The group moved on, or the coordinator is away: what is stored is offered again, or read again.
                metrics.COMMIT_FAILURES.inc()
                logs.logger().warning("offset commit failed", reason=type(result).__name__)
            else:
                self._ledger.committed(offsets)

        with metrics.stage("commit"):
            self._consumer.commit_async(_kafka(offsets), callback=done)

    def _commit_now(self, offsets: dict[Partition, int]) -> None:
        if offsets:
            self._consumer.commit(_kafka(offsets), timeout_ms=int(_CLOSE_SECONDS * 1000))
            self._ledger.committed(offsets)

    def _watch_ends(self) -> None:
        """How far the partitions reach, every few seconds: for the lag, and for a source that stops at the end."""
        now = time.monotonic()
        assigned = self._consumer.assignment()
        known = self._ends.keys() >= assigned
        if assigned and (now >= self._ends_due or not known):
            self._ends_due = now + _ENDS_SECONDS
            try:
                # A source that stops at the end stops at the one that it saw first.
                wanted = [tp for tp in assigned if not (self._until_end and tp in self._ends)]
                self._ends |= self._consumer.end_offsets(wanted, timeout_ms=2000) if wanted else {}
                for tp in assigned - self._bases.keys():
                    self._bases[tp] = self._consumer.committed(tp, timeout_ms=2000) or 0
            except KafkaError:
                return
            for tp in assigned:
                # The marks of transactions, and what they aborted, have offsets too: they are no lag.
                self._ledger.pass_over((tp.topic, tp.partition), self._reached(tp))
            for tp, lag in self._lags().items():
                metrics.CONSUMER_LAG.labels(tp.topic, str(tp.partition)).set(lag)
        if self._until_end and assigned and self._ledger.empty:
            self._at_end = all(self._reached(tp) >= self._ends.get(tp, 1 << 62) for tp in assigned)

    def _reached(self, tp: TopicPartition) -> int:
        """The offset that is read next; 0 where that is not known yet."""
        try:
            return self._consumer.position(tp, timeout_ms=2000) or 0
        except KafkaError:  # the next poll meets it too, and knows what to do
            return 0

    def _lags(self) -> dict[TopicPartition, int]:
        lags = {}
        for tp in self._consumer.assignment():
            at = self._ledger.position((tp.topic, tp.partition)) or self._bases.get(tp)
            if at is not None and tp in self._ends:
                lags[tp] = max(0, self._ends[tp] - at)
        return lags

    def _check_stall(self) -> None:
        if self._ledger.idle:
            self._progress = time.monotonic()
        elif time.monotonic() - self._progress > self._stall_seconds:
            raise SourceError(
                f"stall_seconds: no batch was finished for {self._stall_seconds:g} s; the partitions are given up"
            )

    def _leave(self) -> None:
        try:
            self._commit_now(self._ledger.to_commit())
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
        self._ledger.assign(added)
        metrics.PARTITIONS_ASSIGNED.inc(len(added))
        metrics.REBALANCES.labels("assigned").inc()

    async def _revoked(self, partitions: Collection[TopicPartition]) -> None:
        places = {(tp.topic, tp.partition) for tp in partitions}
        self._ledger.forget(places)
        until = time.monotonic() + self._revoke_seconds
        while self._ledger.in_hand(places) and time.monotonic() < until and not self._closing.is_set():
            await self._consumer._net.sleep(_NAP_SECONDS)
        offsets = self._ledger.to_commit(places)
        if offsets:
            try:
                await self._consumer.commit_async(_kafka(offsets))
            except KafkaError as error:
                metrics.COMMIT_FAILURES.inc()
                logs.logger().warning("offset commit before revocation failed", reason=type(error).__name__)
        self._release(places, "revoked")

    def _release(self, places: Collection[Partition], event: str) -> None:
        self._ledger.release(places)
        for topic, partition in places:
            self._ends.pop(TopicPartition(topic, partition), None)
            self._bases.pop(TopicPartition(topic, partition), None)
            with suppress(KeyError):  # no lag was known yet
                metrics.CONSUMER_LAG.remove(topic, str(partition))
        metrics.PARTITIONS_ASSIGNED.dec(len(places))
        metrics.REBALANCES.labels(event).inc()


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Hands the group's decisions to the source."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._source._assigned(assigned)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:
            await self._source._revoked(revoked)

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self._source._release({(tp.topic, tp.partition) for tp in lost}, "lost")


def _kafka(offsets: dict[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
