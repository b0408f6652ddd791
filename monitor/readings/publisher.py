"""Publishes readings from inside a serving engine, and never slows it: a bounded queue and a thread of its own.

Contract: `put(make)` returns at once; `make()` is called in the publisher's thread and gives a reading as an object
without what the publisher knows (engine, instance, sequence, dropped), or None for nothing. The thread numbers the
records of this `instance` from 0 and writes them to a topic (`kafka:TOPIC`) or appends them to a file. A broker or a
disk that is away is waited out in the thread: records are repeated until they are taken, in order, and what does not
fit into the queue meanwhile is dropped and counted. A dropped reading has no number; how many there were is in every
later record. A heartbeat goes out at the start and every `heartbeat_seconds`, and one with `closed` at `close`, so that
a reader tells silence, loss and a clean end apart. What was in the queue when the process was killed is lost.

Raises PublisherError at the start, where the output cannot be used; `wait_for_broker` goes on when no broker answers.
Nothing is raised later: see `snapshot`. Imports the standard library, and kafka-python for topics. The thread does
not survive a fork: make the publisher in the process that puts.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from monitor.readings.outputs import Output, OutputAwayError, PublisherError, TooLargeError, open_output
from monitor.readings.schema import HEARTBEAT, VERSION, VERSION_FIELD, ReadingError, encode

Make = Callable[[], Mapping[str, Any] | None]

# Records that are made and sent at a time.
_BATCH = 200
_RETRY_SECONDS = (0.1, 5.0)


@dataclass(frozen=True)
class PublisherOptions:
    """`out` is `kafka:TOPIC` or a file; `kafka` holds the names and values of awry's settings `kafka_*` without that
    prefix (`bootstrap`, `security_protocol`, `sasl_username`, ...). `queue_bytes` bounds the sizes given to `put`."""

    out: str
    engine: str
    model: str | None = None
    kafka: Mapping[str, Any] = field(default_factory=dict)
    queue_records: int = 10_000
    queue_bytes: int = 256 * 1024 * 1024
    heartbeat_seconds: float = 10.0
    fsync_seconds: float = 1.0
    wait_for_broker: bool = False

    def __post_init__(self) -> None:
        for name in ("queue_records", "queue_bytes", "heartbeat_seconds", "fsync_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise PublisherError(f"{name}: {value!r} is no number over 0")


@dataclass(frozen=True)
class Counters:
    """Since the start: records written (heartbeats included), readings dropped for want of room or since `make`
    failed (`failed` of them), records refused for their size, what waits, and why nothing is written at the moment."""

    published: int
    dropped: int
    failed: int
    refused: int
    queue: int
    trouble: str | None


class Publisher:
    """See the module."""

    def __init__(self, options: PublisherOptions) -> None:
        self.instance = uuid.uuid4().hex
        self._options = options
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Make, int]] = deque()
        self._bytes = 0
        self._published = self._dropped = self._failed = self._refused = self._sequence = 0
        self._trouble: str | None = None
        self._closing: float | None = None
        try:
            encode(self._numbered({"kind": HEARTBEAT}))
        except ReadingError as error:
            raise PublisherError(str(error)) from None
        self._output: Output = open_output(
            options.out, options.kafka, fsync_seconds=options.fsync_seconds, wait_for_broker=options.wait_for_broker
        )
        self._thread = threading.Thread(target=self._run, name="awry-readings", daemon=True)
        self._thread.start()

    def put(self, make: Make, size: int = 0) -> bool:
        """Take a reading on, of about `size` bytes until it is made; False where it was dropped."""
        with self._changed:
            full = len(self._waiting) >= self._options.queue_records or (
                self._waiting and self._bytes + size > self._options.queue_bytes
            )
            if full or self._closing is not None:
                self._dropped += 1
                return False
            self._waiting.append((make, size))
            self._bytes += size
            self._changed.notify()
            return True

    def snapshot(self) -> Counters:
        """The counters now."""
        with self._changed:
            return Counters(
                self._published, self._dropped, self._failed, self._refused, len(self._waiting), self._trouble
            )

    def close(self, timeout: float = 10.0) -> bool:
        """Write what waits and the last heartbeat; False where that took longer than `timeout` seconds."""
        with self._changed:
            if self._closing is None:
                self._closing = time.monotonic() + timeout
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self.snapshot().queue

    def _run(self) -> None:
        beat = time.monotonic()
        while True:
            taken = self._take(beat)
            records = [record for make in taken if (record := self._made(make)) is not None]
            with self._changed:
                last = self._closing is not None and not self._waiting
            if last or time.monotonic() >= beat:
                beat = time.monotonic() + self._options.heartbeat_seconds
                records.append(self._record({"kind": HEARTBEAT} | ({"closed": True} if last else {})))
            delivered = self._deliver(records)
            if last or not delivered:
                self._output.close()
                return

    def _take(self, beat: float) -> list[Make]:
        """What waits, once there is something, a heartbeat is due or the end has come."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting or self._closing is not None, max(0.0, beat - time.monotonic())
            )
            taken = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._bytes -= sum(size for _, size in taken)
            return [make for make, _ in taken]

    def _made(self, make: Make) -> tuple[bytes, str] | None:
        try:
            made = make()
            return self._record(made) if made is not None else None
        except Exception as error:  # one reading that cannot be made must not end all others
            with self._changed:
                self._failed += 1
                self._dropped += 1
                name = f"{error}" if isinstance(error, ReadingError) else type(error).__name__
                self._trouble = f"a reading could not be made: {name}"
            return None

    def _record(self, made: Mapping[str, Any]) -> tuple[bytes, str]:
        """The record and its key; it takes the next number where it is a reading."""
        value = self._numbered(made)
        record = encode(value)
        self._sequence += 1
        return record, str(value.get("tenant") or value.get("id") or self.instance)

    def _numbered(self, made: Mapping[str, Any]) -> dict[str, Any]:
        value = {"created": datetime.now(UTC).isoformat(), "model": self._options.model} | dict(made)
        value |= {VERSION_FIELD: VERSION, "engine": self._options.engine, "instance": self.instance}
        with self._changed:
            return value | {"sequence": self._sequence, "dropped": self._dropped}

    def _deliver(self, records: list[tuple[bytes, str]]) -> bool:
        """All of them, in order, however long it takes; False where the end came first."""
        wait, longest = _RETRY_SECONDS
        while records:
            try:
                taken = self._output.write(records)
            except TooLargeError:
                # Its number is a hole that the reader counts.
                taken = 1
                with self._changed:
                    self._refused += 1
                    self._published -= 1
            except OutputAwayError as error:
                with self._changed:
                    self._trouble = str(error)
                    closing = self._closing is not None
                    if self._closing is not None and time.monotonic() >= self._closing:
                        self._dropped += len(records) + len(self._waiting)
                        self._waiting.clear()
                        return False
                    # Until the end is told, at the latest.
                    self._changed.wait_for(lambda was=closing: self._closing is not None and not was, wait)  # type: ignore[misc]
                wait = min(wait * 2, longest)
                continue
            with self._changed:
                self._published += taken
                self._trouble = None
            wait = _RETRY_SECONDS[0]
            records = records[taken:]
        return True


__all__ = ["Counters", "Publisher", "PublisherError", "PublisherOptions"]
