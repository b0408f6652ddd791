"""Reads the spool's folder (`spool`) as a source; coordinates are ('ingest', writer, offset).

Contract: each writer's segments are read in order; a segment is deleted once its records are stored (`commit`) and its
writer has begun another one. A record that was not committed comes again, with the same coordinates: the offset is
SEQUENCE * 2**32 + the byte offset in the segment. `log` is the folder's own identity.

Half a line at the end of a complete segment was never acknowledged: it is dropped, counted (`dropped_lines`) and told
in the logs. A whole line that cannot be read becomes a record as it stands. One worker reads a spool. Memory is
bounded: of a message over the size limit only the size is kept, and no more than `prefetch_messages` are read ahead,
which are taken in turn by tenant (`monitor.stream.fair`) where it is told how records are read.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path

from monitor.errors import SourceError
from monitor.stream.fair import FairQueue
from monitor.stream.jsonl_lines import Line, LineSplitter
from monitor.stream.record import Record, waiting_by_tenant
from monitor.stream.spool_folder import Segment, lock, prepare, segment_of, segments
from monitor.stream.spool_line import ERASED_LINE, decode_line
from monitor.telemetry import logs
from monitor.telemetry.waiting import Waiting
from storage.coordinates import Coordinates

_CHUNK = 1 << 16
_NAP_SECONDS = 0.1
_AHEAD_BYTES = 67_108_864
_HEADER_BYTES = 1 << 18


class _Reading:
    """A segment that is read. `waiting`: its records that are not committed."""

    def __init__(self, path: Path, max_line: int) -> None:
        self.path = path
        self.file = io.FileIO(path, "r")
        self.lines = LineSplitter(max_line)
        self.waiting = 0
        self.complete = False


class SpoolSource:
    """Reads `folder`; with `follow` it never ends. `max_bytes` is the limit of one message. `look_only`: beside the
    worker that reads it; nothing is deleted, and what that one deletes meanwhile is passed over."""

    lag_unit = "bytes"

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 4_194_304,
        name: str | None = None,
        follow: bool = True,
        look_only: bool = False,
        read: Callable[[Record], Record] = lambda record: record,
        priority_tenants: Collection[str] = (),
        prefetch_messages: int = 2048,
    ) -> None:
        self.name = name or "ingest"
        self.dropped_lines = 0
        self._folder = folder
        self._max_bytes = max_bytes
        # As base64 within a line, and its headers.
        self._max_line = max_bytes * 4 // 3 + _HEADER_BYTES
        self._follow = follow
        self._look_only = look_only
        self._ended = False
        self._closed = False
        self._read_messages = read
        self._prefetch_messages = prefetch_messages
        self._ready: FairQueue[Record] = FairQueue(priority_tenants)
        self._reading: dict[Segment, _Reading] = {}
        self._done: dict[int, int] = {}  # the sequence of each writer that was read to its end
        self._there: dict[Segment, int] = {}
        self._next_look = 0.0
        self._received: dict[Coordinates, datetime] = {}
        self._guard = threading.Lock()  # `commit`, `lag` and `oldest` are called from other threads
        self._log: str | None = None
        self._lock: int | None = None
        try:
            if look_only:
                segments(folder)  # whether it can be read
                return
            self._log = prepare(folder)
            held = lock(folder / "reader.lock")
        except OSError as error:
            raise SourceError(f"source: cannot read {folder} ({error.strerror})") from error
        if held is None:
            raise SourceError(f"source: another worker reads the spool {folder}; one spool has one reader")
        self._lock = held

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        until = time.monotonic() + wait_seconds
        ahead = max(limit, self._prefetch_messages)
        while len(self._ready) < ahead and self._ready.bytes < _AHEAD_BYTES and not self._ended:
            read = self._read()
            left = until - time.monotonic()
            if left <= 0:
                break
            if not read and not self._ended:
                if len(self._ready):
                    break
                time.sleep(min(_NAP_SECONDS, left))
        with self._guard:
            return [self._ready.take() for _ in range(min(limit, len(self._ready)))]

    def commit(self, records: Sequence[Record]) -> None:
        with self._guard:
            for record in records:
                self._received.pop(record.at, None)
                reading = self._reading.get(segment_of(record.at.partition, record.at.offset))
                if reading is not None:
                    reading.waiting -= 1
            for segment, reading in list(self._reading.items()):
                self._delete_if_stored(segment, reading)

    @property
    def finished(self) -> bool:
        return self._ended and not len(self._ready)

    @property
    def oldest(self) -> datetime | None:
        with self._guard:
            return min(self._received.values(), default=None)

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        with self._guard:
            return waiting_by_tenant(self._ready)

    @property
    def trouble(self) -> str | None:
        return None

    @property
    def lag(self) -> int | None:
        with self._guard:
            ready = self._ready.bytes
            try:
                there = segments(self._folder)
            except OSError:
                return None
            read = {
                s: size if r.complete else r.lines.offset
                for s, r in self._reading.items()
                for size in (there.get(s, 0),)
            }
            return ready + sum(max(0, size - read.get(s, 0)) for s, size in there.items())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for reading in self._reading.values():
            reading.file.close()
        if self._lock is not None:
            os.close(self._lock)

    def _read(self) -> bool:
        """Read a chunk of one segment of each writer; False when nothing is there now."""
        read = False
        if time.monotonic() >= self._next_look:
            self._look()
        there = self._there
        for writer in sorted({s.writer for s in there}):
            mine = [s for s in there if s.writer == writer and s.sequence > self._done.get(writer, 0)]
            if not mine:
                continue
            reading = self._reading.get(mine[0]) or self._open(mine[0])
            if reading is None:
                continue
            chunk = reading.file.read(_CHUNK) or b""
            if chunk:
                self._add(mine[0], reading, reading.lines.feed(chunk))
                read = True
            elif len(mine) > 1:  # the next one was there before this one's end was read: nothing follows
                self._complete(mine[0], reading)
                read = True
        if not read and not self._follow:
            self._look()
            self._ended = self._there.keys() == there.keys()
        return read

    def _look(self) -> None:
        self._there = segments(self._folder)
        self._next_look = time.monotonic() + _NAP_SECONDS

    def _open(self, segment: Segment) -> _Reading | None:
        try:
            reading = _Reading(self._folder / segment.file_name, self._max_line)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"source: cannot read {self._folder / segment.file_name} ({error.strerror})") from error
        with self._guard:
            self._reading[segment] = reading
        return reading

    def _add(self, segment: Segment, reading: _Reading, lines: Sequence[Line]) -> None:
        records = [self._read_messages(self._record(segment, line)) for line in lines]
        with self._guard:
            reading.waiting += len(records)
            self._received |= {r.at: r.recorded for r in records if r.recorded is not None}
            for record, (_, _, size) in zip(records, lines, strict=True):
                self._ready.put(record, record.tenant, size + 1)

    def _record(self, segment: Segment, line: Line) -> Record:
        offset, content, size = line
        at = Coordinates(self.name, segment.writer, segment.offset(offset))
        if content is None:
            return Record(at, None, size, log=self._log)
        if content.rstrip(b" ") == ERASED_LINE:
            return Record(at, None, 0, log=self._log, tombstone=True)
        try:
            payload, headers, received = decode_line(content)
        except (ValueError, RecursionError):
            return Record(at, content if size <= self._max_bytes else None, size, log=self._log)
        kept = payload if len(payload) <= self._max_bytes else None
        return Record(at, kept, len(payload), received, headers, log=self._log)

    def _complete(self, segment: Segment, reading: _Reading) -> None:
        self._done[segment.writer] = segment.sequence
        if reading.lines.unfinished:
            self.dropped_lines += 1
            logs.logger().warning(
                "source: half a line at the end of a segment, which was never acknowledged",
                path=str(reading.path),
                bytes=reading.lines.unfinished,
            )
        with self._guard:
            reading.complete = True
            self._delete_if_stored(segment, reading)

    def _delete_if_stored(self, segment: Segment, reading: _Reading) -> None:
        if not reading.complete or (reading.waiting > 0 and not self._look_only):
            return
        del self._reading[segment]
        reading.file.close()
        if self._look_only:
            return
        try:
            reading.path.unlink(missing_ok=True)
        except OSError as error:
            logs.logger().error("source: a segment cannot be deleted", path=str(reading.path), reason=error.strerror)
