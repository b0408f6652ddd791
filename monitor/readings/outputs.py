"""Where a publisher's records go: a topic, or a file that they are appended to.

Contract: `open_output` checks at the start that the output can be used, and raises PublisherError. `write(records)`
gives how many of them, from the first, are taken for good: acknowledged by all in-sync replicas, or in the file. It
raises OutputAwayError where none is and a later try may do, TooLargeError where the first one never will. What was
written and not acknowledged is written again: readers go by instance and sequence. A file is this process's alone while
it writes, so that no line is torn; a line that a full disk has cut is completed when there is room.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from awry.errors import AwryError

if TYPE_CHECKING:
    from kafka import KafkaProducer

    from monitor.stream.kafka.client import Cluster

_PREFIX = "kafka:"
# An engine may write its settings to its log, and a password does not belong there.
_PASSWORD_FILE = "sasl_password_file"  # noqa: S105 - a name
# How long a record may be under way; kafka-python wants more than the 30 s of a request.
_DELIVERY_SECONDS = 40
_HEADERS = [("content-type", b"application/json")]

Records = Sequence[tuple[bytes, str]]


class PublisherError(AwryError):
    """An output of readings that cannot be used; the message names the field and the fix."""


class OutputAwayError(AwryError):
    """An output that takes nothing at the moment."""


class TooLargeError(AwryError):
    """A record that the topic does not take for its size."""


class Output(Protocol):
    """Takes records, each with its key."""

    def write(self, records: Records) -> int:
        """See the module."""

    def close(self) -> None:
        """Release it."""


def open_output(out: str, kafka: Mapping[str, Any], *, fsync_seconds: float, wait_for_broker: bool) -> Output:
    """The output that `out` names."""
    if not isinstance(out, str) or not out:
        raise PublisherError("out: missing; name kafka:TOPIC or a file")
    if out.startswith(_PREFIX):
        return _Topic(out.removeprefix(_PREFIX).strip(), kafka, wait=wait_for_broker)
    if kafka:
        raise PublisherError(f"kafka: set, and out is a file ({out}); name kafka:TOPIC, or leave kafka away")
    return _File(Path(out), fsync_seconds)


class _File:
    """Appends lines, and forces them to the disk every so many seconds."""

    def __init__(self, path: Path, fsync_seconds: float) -> None:
        self._path = path
        self._fsync_seconds = fsync_seconds
        self._rest = b""
        self._forced = time.monotonic()
        # Of os.path, which raises for no name.
        if os.path.isdir(path):  # noqa: PTH112
            raise PublisherError(f"out: {path} is a folder; name a file")
        if not os.path.isdir(path.absolute().parent):  # noqa: PTH112
            raise PublisherError(
                f"out: there is no folder {path.absolute().parent}; create it, writable for the engine"
            )
        try:
            # Readable for its owner alone: tenants and users are in it.
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PublisherError(f"out: cannot write {path} ({error.strerror}); name a file that can be") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise PublisherError(f"out: another process writes to {path}; give each engine a file of its own") from None
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            # Cut when an engine was killed: it must not swallow the next line.
            self._rest = b"\n"

    def write(self, records: Records) -> int:
        for number, (record, _) in enumerate(records):
            try:
                self._append(record + b"\n")
            except OutputAwayError:
                if number:
                    return number
                raise
        if time.monotonic() - self._forced >= self._fsync_seconds:
            self._force()
        return len(records)

    def close(self) -> None:
        with suppress(OutputAwayError):
            self._append(b"")
            self._force()
        os.close(self._file)

    def _append(self, line: bytes) -> None:
        """The rest of the line before, then this one, which is taken as soon as any of it is in the file."""
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._file, self._rest) :]
            self._rest = line[os.write(self._file, line) :]
        except OSError as error:
            raise OutputAwayError(f"cannot write {self._path} ({error.strerror})") from None

    def _force(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            raise OutputAwayError(f"cannot write {self._path} ({error.strerror})") from None
        self._forced = time.monotonic()


class _Topic:
    """Produces to one topic, with a producer that is made anew after a failure."""

    def __init__(self, topic: str, kafka: Mapping[str, Any], *, wait: bool) -> None:
        if not topic:
            raise PublisherError("out: kafka: needs the name of a topic: kafka:TOPIC")
        self._topic = topic
        self._cluster = _cluster(kafka)
        self._producer: KafkaProducer | None = None
        from monitor.errors import ClusterAwayError, ClusterError

        try:
            self._cluster.check_topics([topic], "out")
        except ClusterError as error:
            if not (wait and isinstance(error, ClusterAwayError)):
                raise PublisherError(str(error)) from None

    def write(self, records: Records) -> int:
        from kafka.errors import KafkaError, MessageSizeTooLargeError

        from monitor.errors import ClusterError
        from monitor.stream.sinks.kafka import connect_producer

        taken = 0
        try:
            if self._producer is None:
                self._producer = connect_producer(self._cluster, _DELIVERY_SECONDS)
            sent = []
            for record, key in records:
                try:
                    sent.append(
                        self._producer.send(self._topic, record, key=key.encode("utf-8", "replace"), headers=_HEADERS)
                    )
                except MessageSizeTooLargeError:
                    if not sent:
                        raise
                    break
            self._producer.flush(timeout=_DELIVERY_SECONDS + 10)
            for each in sent:
                each.get(timeout=1)
                taken += 1
        except MessageSizeTooLargeError:
            # Brokers refuse what was sent together, and the producer nothing more afterwards.
            self.close()
            if not taken and len(records) > 1:
                return self.write(records[:1])
            if not taken:
                raise TooLargeError(f"topic {self._topic}: a record is over its limit") from None
        except ClusterError as error:
            raise OutputAwayError(str(error)) from None
        except (KafkaError, OSError) as error:
            # Whatever state it is in: another one starts without.
            self.close()
            if not taken:
                raise OutputAwayError(f"topic {self._topic} takes no records ({type(error).__name__})") from None
        return taken

    def close(self) -> None:
        if self._producer is not None:
            from kafka.errors import KafkaError

            with suppress(KafkaError, OSError):
                self._producer.close(timeout=0)
            self._producer = None


def _cluster(kafka: Mapping[str, Any]) -> Cluster:
    try:
        from monitor.stream.kafka.client import Cluster
    except ImportError:
        raise PublisherError(
            "out: kafka: needs kafka-python in the engine's environment: pip install kafka-python"
        ) from None
    if not isinstance(kafka, Mapping) or not isinstance(kafka.get("bootstrap"), str) or not kafka["bootstrap"]:
        raise PublisherError("kafka: bootstrap is missing; name the brokers as HOST:PORT[,HOST:PORT]")
    known = {*Cluster.__dataclass_fields__, _PASSWORD_FILE}
    if unknown := sorted(str(name) for name in kafka.keys() - known):
        raise PublisherError(f"kafka: {', '.join(unknown)} not known; there are {', '.join(sorted(known))}")
    given: dict[str, Any] = {name: Path(value) if name.endswith("_file") else value for name, value in kafka.items()}
    if (file := given.pop(_PASSWORD_FILE, None)) is not None:
        if "sasl_password" in given:
            raise PublisherError(f"kafka: sasl_password and {_PASSWORD_FILE} are both set; leave the password out")
        try:
            given["sasl_password"] = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise PublisherError(f"kafka: {_PASSWORD_FILE} cannot be read; name a file with the password") from None
    return Cluster(**given)
