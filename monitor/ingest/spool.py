"""Records into the spool, where there is no Kafka: one thread appends what all requests wait for, and syncs it once.

Contract: `done` of a request is called when its lines are on disk. A full spool refuses the request; after another
error of the disk `trouble` says so until something could be written again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from monitor.ingest.record import OutRecord
from monitor.ingest.refused import SinkError, SinkFullError
from monitor.ingest.sinks import Done
from monitor.stream.spool import SpoolError, SpoolFullError, SpoolWriter, encode_line
from monitor.telemetry import logs, metrics

# Requests that share a sync, at most.
_MAX_TOGETHER = 256
# A reader deletes no segment that is being written: it ends so long after its first line.
_ROLL_SECONDS = 60.0
# A failure is shown by `trouble` for so long; then a request may try again.
_TROUBLE_SECONDS = 15.0

_Waiting = tuple[list[bytes], Done]


class SpoolSink:
    """Writes to the spool of one folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.name = f"the spool {folder}"
        self._writer = SpoolWriter(folder, max_bytes=max_bytes)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._failed_at = float("-inf")
        self._why = ""
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def submit(self, records: Sequence[OutRecord], done: Done) -> None:
        now = datetime.now(UTC)
        self._waiting.put(([encode_line(record.value, record.headers, now) for record in records], done))

    @property
    def trouble(self) -> str | None:
        return self._why if time.monotonic() - self._failed_at < _TROUBLE_SECONDS else None

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        self._writer.close()

    def _run(self) -> None:
        roll_at = time.monotonic() + _ROLL_SECONDS
        while True:
            if time.monotonic() > roll_at:
                self._roll()
                roll_at = time.monotonic() + _ROLL_SECONDS
            try:
                first = self._waiting.get(timeout=_ROLL_SECONDS)
            except queue.Empty:
                continue
            if first is None:
                return
            together = [first]
            last = False
            while len(together) < _MAX_TOGETHER and not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    last = True
                    break
                together.append(more)
            self._append(together)
            if last:
                return

    def _roll(self) -> None:
        with suppress(SpoolError):  # the next append says so
            self._writer.roll()

    def _append(self, together: Sequence[_Waiting]) -> None:
        try:
            self._writer.append([line for lines, _ in together for line in lines])
        except SpoolFullError:
            # A smaller request may still have room.
            if len(together) > 1:
                for one in together:
                    self._append([one])
                return
            self._fail(together, SinkFullError("the spool is full; start awry run, or raise spool_max_bytes"))
        except SpoolError:
            self._fail(together, SinkError("the spool cannot be written"))
        else:
            self._failed_at = float("-inf")
            metrics.INGEST_MESSAGES.inc(sum(len(lines) for lines, _ in together))
            for _, done in together:
                done(None)

    def _fail(self, together: Sequence[_Waiting], error: SinkError) -> None:
        if time.monotonic() - self._failed_at > _TROUBLE_SECONDS:
            logs.logger().warning("the spool took no records", error=str(error))
        self._failed_at, self._why = time.monotonic(), str(error)
        for _, done in together:
            done(error)
