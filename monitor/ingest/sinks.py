"""Where records go: the protocol of Kafka and the spool, and how a request waits for either.

Contract: `submit` hands records over and returns at once; `done` is called exactly once, from any thread, with None
when all of them are safe (acknowledged by Kafka, or synced to disk), else with a SinkError. After an error some of them
may be in the stream: the client sends again, and repeats are the reader's to find. What was submitted is held by the
sink until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from monitor.ingest.record import OutRecord
from monitor.ingest.refused import SinkError

Done = Callable[[SinkError | None], None]


class Sink(Protocol):
    """One of `kafka.KafkaSink` and `spool.SpoolSink`."""

    # For people: 'Kafka topic llm.traffic', 'the spool /var/lib/awry/spool'.
    name: str

    def submit(self, records: Sequence[OutRecord], done: Done) -> None:
        """Take these records, at least one."""

    @property
    def trouble(self) -> str | None:
        """Why records are not taken at the moment; None when all is well."""

    def close(self) -> None:
        """Finish what was submitted, for a while."""
