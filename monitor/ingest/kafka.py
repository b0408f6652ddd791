"""Records into a topic: one idempotent producer (acks=all) that all requests share.

Contract: `done` of a request is called when the brokers have acknowledged all of its records, or when one of them was
given up after `ack_seconds`. A record over the topic's `max.message.bytes` (read at the start, and after the broker
refused one for its size) is replaced by a note of its size, so that one of them neither stops the others of its request
nor passes unseen.

A producer that fails for RENEW_SECONDS, or that neither acknowledges nor gives up in time, is replaced: what it held is
given up, and until there is another one requests are refused at once.

Nothing is bounded here: the client's buffer has no limit, so that callers bound what they submit.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from monitor.errors import ClusterError
from monitor.ingest.record import OutRecord
from monitor.ingest.refused import SinkError
from monitor.ingest.sinks import Done
from monitor.ingest.topic_limit import fits, max_message_bytes
from monitor.stream.kafka.client import Cluster, never_create_topics
from monitor.telemetry import logs, metrics

# A failure is shown by `trouble` for so long; then a request may try again.
_TROUBLE_SECONDS = 15.0
_CONNECT_SECONDS = 2.0
# Failing for so long, the producer is replaced.
RENEW_SECONDS = 20.0
_METADATA_SECONDS = 15.0
_WATCH_SECONDS = 0.5
# What is neither acknowledged nor given up so long after its time is stuck.
_GRACE_SECONDS = 1.0
_CLOSE_SECONDS = 5
_LOG_SECONDS = 10.0
# Records over this share of the topic's limit are measured.
_SUSPECT_SHARE = 0.5
# Of one record, for headers and framing.
_OVERHEAD = 1024 * 1024

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


def connect_producer(cluster: Cluster, topic: str, *, ack_seconds: float, max_bytes: int) -> KafkaProducer:
    """A producer that knows the topic and gives a record up after `ack_seconds`. Raises ClusterError."""
    with cluster.explained():
        producer = KafkaProducer(
            **cluster.options(),
            metrics_enabled=False,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            linger_ms=2,
            batch_size=131_072,
            # The limit of a topic is on what is compressed.
            compression_type="lz4",
            max_request_size=max_bytes + _OVERHEAD,
            request_timeout_ms=int(ack_seconds * 500),
            delivery_timeout_ms=int(ack_seconds * 1000),
            # `send` runs in the event loop, so it may not wait: without metadata it fails.
            max_block_ms=0,
        )
        never_create_topics(producer)
        until = time.monotonic() + _METADATA_SECONDS
        while True:
            with suppress(KafkaTimeoutError):
                if producer.partitions_for(topic):
                    return producer
            if time.monotonic() > until:
                producer.close(timeout=0)
                raise ClusterError(f"ingest_topic: {cluster.bootstrap} has no topic {topic}; create it first")
            time.sleep(0.02)


def _end(producer: KafkaProducer, seconds: float) -> None:
    """Give up what is not acknowledged within `seconds`."""
    try:
        producer.close(timeout=seconds)
    except KafkaError:
        # Its `close` has stopped nothing then, and its thread would go on.
        producer._sender.force_close()


class _Pending:
    """The records of one request that are not acknowledged. Callbacks come from the producer's thread."""

    def __init__(self, number: int, done: Done) -> None:
        self.began = time.monotonic()
        self._left = number
        self._done = done
        self._error: SinkError | None = None
        self._lock = threading.Lock()

    def count(self, error: SinkError | None, number: int = 1) -> bool:
        """So many are acknowledged, or given up; True when those were the last."""
        with self._lock:
            if self._left <= 0:
                return False
            self._left -= number
            self._error = error or self._error
            finished = self._left <= 0
        if finished:
            self._done(self._error)
        return finished

    def fail(self, error: SinkError) -> None:
        """Nothing more is waited for."""
        self.count(error, sys.maxsize)


class KafkaSink:
    """Writes to one topic. `connect` makes a producer; it is called again where one does not recover."""

    def __init__(
        self, connect: Callable[[], KafkaProducer], cluster: Cluster, topic: str, *, ack_seconds: float
    ) -> None:
        self.name = f"Kafka topic {topic}"
        self._connect = connect
        self._producer: KafkaProducer | None = connect()
        self._cluster = cluster
        self._topic = topic
        self._limit = max_message_bytes(cluster, topic)
        self._overdue_seconds = ack_seconds + _GRACE_SECONDS
        self._pending: set[_Pending] = set()
        self._lock = threading.Lock()
        # Since when nothing was acknowledged, though records came; and the last failure.
        self._failing_since: float | None = None
        self._failed_at = float("-inf")
        self._why = ""
        self._logged_at = float("-inf")
        self._suspect = False
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._watching, name="kafka-watch", daemon=True)
        self._watch.start()

    def submit(self, records: Sequence[OutRecord], done: Done) -> None:
        pending = _Pending(len(records), done)
        producer = self._producer
        if producer is None:
            pending.fail(SinkError("Kafka does not answer"))
            return
        with self._lock:
            self._pending.add(pending)
        acknowledged, given_up = partial(self._acknowledged, pending), partial(self._given_up, pending)
        for sent, record in enumerate(records):
            try:
                self._send(producer, record).add_callback(acknowledged).add_errback(given_up)
            except Exception as error:  # also ValueError, for a topic that is gone: somebody waits
                self._count(pending, self._failure(error), len(records) - sent)
                return

    def _send(self, producer: KafkaProducer, record: OutRecord) -> Any:
        headers = list(record.headers)
        if len(record.value) > _SUSPECT_SHARE * self._limit:
            header_bytes = sum(len(name) + len(value) for name, value in headers)
            if not fits(record.value, header_bytes, self._limit):
                metrics.INGEST_OVERSIZE.inc()
                record = record.size_note()
                headers = list(record.headers)
        return producer.send(self._topic, record.value, headers=headers)

    def _acknowledged(self, pending: _Pending, _: object) -> None:
        self._failing_since, self._failed_at = None, float("-inf")
        metrics.INGEST_MESSAGES.inc()
        self._count(pending, None)

    def _given_up(self, pending: _Pending, error: Exception) -> None:
        self._count(pending, self._failure(error))

    def _count(self, pending: _Pending, error: SinkError | None, number: int = 1) -> None:
        if pending.count(error, number):
            with self._lock:
                self._pending.discard(pending)

    def _failure(self, error: Exception) -> SinkError:
        self._note_failure(type(error).__name__)
        # After a record that was refused for its size kafka-python's producer takes nothing more.
        if isinstance(error, _TOO_LARGE):
            self._suspect = True
        away = isinstance(error, KafkaTimeoutError)
        return SinkError("Kafka did not acknowledge in time" if away else f"Kafka: {type(error).__name__}")

    def _note_failure(self, why: str) -> None:
        now = time.monotonic()
        self._failed_at, self._why = now, why
        self._failing_since = self._failing_since or now
        if now - self._logged_at > _LOG_SECONDS:
            self._logged_at = now
            logs.logger().warning("Kafka took no records", topic=self._topic, error=why)

    def _watching(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            now = time.monotonic()
            with self._lock:
                stuck = any(now - one.began > self._overdue_seconds for one in self._pending)
            failing = self._failing_since is not None and now - self._failing_since > RENEW_SECONDS
            if stuck or failing or self._suspect:
                self._renew()

    def _renew(self) -> None:
        """Another producer: kafka-python's may neither acknowledge nor give up after its broker was away."""
        old, self._producer = self._producer, None
        with self._lock:
            pending, self._pending = self._pending, set()
        self._note_failure("no answer")
        for one in pending:
            one.fail(SinkError("Kafka did not acknowledge in time"))
        if old is not None:
            threading.Thread(target=_end, args=(old, 0), name="kafka-end", daemon=True).start()
        while not self._closed.is_set():
            try:
                producer = self._connect()
            except (ClusterError, KafkaError) as error:
                self._note_failure(type(error).__name__)
                self._closed.wait(_WATCH_SECONDS)
                continue
            self._limit = max_message_bytes(self._cluster, self._topic)
            self._suspect, self._failing_since = False, None
            self._producer = producer
            logs.logger().warning("a new Kafka producer was made", topic=self._topic)
            return

    @property
    def trouble(self) -> str | None:
        if self._producer is None or time.monotonic() - self._failed_at < _TROUBLE_SECONDS:
            return f"Kafka took no records ({self._why})"
        return None if self._listens() else "no Kafka broker takes connections"

    def _listens(self) -> bool:
        for address in self._cluster.bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
            except (OSError, ValueError):
                continue
            return True
        return False

    def close(self) -> None:
        self._closed.set()
        producer = self._producer
        if producer is not None:
            _end(producer, _CLOSE_SECONDS)
