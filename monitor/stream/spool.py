"""The spool: a folder that `awry ingest` writes messages to and `awry run --source spool` reads, for when there is no
Kafka.

Segments are files WRITER-SEQUENCE.jsonl of lines as `spool_line` has them. Of each writer, the segment with the highest
sequence is being written; the others are complete. This module writes; `spool_source` reads.

Contract of SpoolWriter: when `append` returns, its lines are on the disk: killed at any point, nothing that was
acknowledged is lost. Lines that were not acknowledged may be there (a repeat), and half of one at the end of a segment,
which is no message: after a crash or a failed write a new segment is begun. Callers in many threads share one sync.

The folder has a limit: SpoolFullError until a reader has deleted what is stored. A second writer in the same folder has
a number of its own; each sees what the other wrote within a second, so that the limit may be passed by that much.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from monitor.errors import OutputError
from monitor.stream.spool_folder import MAX_SEGMENT_BYTES, Segment, lock, prepare, segments, sync
from monitor.stream.spool_line import decode_line, encode_line
from monitor.stream.spool_source import SpoolSource

__all__ = ["SpoolError", "SpoolFullError", "SpoolSource", "SpoolWriter", "decode_line", "encode_line"]

_WRITERS = 64
_SCAN_SECONDS = 1.0
_SCAN_FULL_SECONDS = 0.05


class SpoolError(OutputError):
    """The spool cannot be written."""


class SpoolFullError(SpoolError):
    """The spool is at its limit, or the disk is full."""


class _Group:
    """Lines of several callers that are synced at once."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.done = False
        self.error: SpoolError | None = None


class SpoolWriter:
    """Writes to `folder`, up to `max_bytes` in all, in segments of about `segment_bytes`. Any thread may append."""

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        # A reader deletes whole segments, and not the one in use: a limit needs several.
        self._segment_bytes = max(1, min(segment_bytes, max_bytes // 4, MAX_SEGMENT_BYTES))
        self._changed = threading.Condition()
        self._group = _Group()
        self._leading = False
        self._in_flight = 0
        self._closed = False
        self._file = -1
        try:
            prepare(folder)
            self.writer, self._lock = self._take_number()
            mine = [s for s in segments(folder) if s.writer == self.writer]
            self._segment = mine[-1] if mine else Segment(self.writer, 0)
            self._size = 0
            self._begin_segment()
            self._scan()
        except OSError as error:
            raise SpoolError(f"spool: cannot write {folder} ({error.strerror})") from error

    def append(self, lines: Sequence[bytes]) -> None:
        """Lines without newlines. They are on the disk when this returns; where it raises, they may be there."""
        data = b"".join(line + b"\n" for line in lines)
        if data.count(b"\n") != len(lines):
            raise ValueError("a line of the spool holds a newline")
        if not data:
            return
        with self._changed:
            self._check_room(len(data))
            group = self._group
            group.parts.append(data)
            self._used += len(data)
            while self._leading and not group.done:
                self._changed.wait()
            if not group.done:
                self._take_group()
        if not group.done:
            self._lead(group)
        if group.error is not None:
            raise group.error

    def roll(self) -> None:
        """End the segment in use, if it holds anything, so that a reader may delete it once it is stored."""
        with self._changed:
            while self._leading:
                self._changed.wait()
            self._roll()

    def close(self) -> None:
        """After the lines that wait; the last segment is complete then."""
        while True:
            with self._changed:
                while self._leading:
                    self._changed.wait()
                if self._closed:
                    return
                if not self._group.parts:
                    with suppress(SpoolError):  # else the next writer does it
                        self._roll()
                    self._closed = True
                    os.close(self._file)
                    os.close(self._lock)
                    return
                group = self._take_group()
            self._lead(group)

    def _take_group(self) -> _Group:
        """Become the one that writes; the next callers form another group."""
        group, self._group, self._leading = self._group, _Group(), True
        self._in_flight = sum(map(len, group.parts))
        return group

    def _lead(self, group: _Group) -> None:
        group.error = SpoolError("spool: the write was interrupted")
        try:
            self._write(b"".join(group.parts))
            group.error = None
        except SpoolError as error:
            group.error = error
        finally:
            with self._changed:
                group.done = True
                self._leading, self._in_flight = False, 0
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        try:
            if self._size >= self._segment_bytes:
                self._begin_segment()
            view = memoryview(data)
            while view:
                written = os.write(self._file, view)
                self._size += written
                view = view[written:]
            os.fdatasync(self._file)
        except OSError as error:
            # What is in the file now is not known: the next group goes into another.
            self._size = max(self._size, self._segment_bytes)
            raise self._failure(error) from error

    def _check_room(self, size: int) -> None:
        if self._closed:
            raise SpoolError("spool: it is closed")
        now = time.monotonic()
        age, full = now - self._scanned_at, self._used + size > self._max_bytes
        if age >= _SCAN_SECONDS or (full and age >= _SCAN_FULL_SECONDS):
            self._scan()
        if self._used + size > self._max_bytes:
            if not self._leading:
                self._roll()
            raise SpoolFullError(f"spool: {self._folder} holds {self._used} of at most {self._max_bytes} bytes")

    def _roll(self) -> None:
        if self._size and not self._closed:
            try:
                self._begin_segment()
            except OSError as error:
                raise self._failure(error) from error

    def _scan(self) -> None:
        waiting = sum(map(len, self._group.parts)) + self._in_flight
        self._used = sum(segments(self._folder).values()) + waiting
        self._scanned_at = time.monotonic()

    def _begin_segment(self) -> None:
        """The next one, even after an empty one: what a reader saw of a file may be gone after a power failure."""
        segment = self._segment._replace(sequence=self._segment.sequence + 1)
        path = self._folder / segment.file_name
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        sync(self._folder)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._segment, self._size = number, segment, 0

    def _take_number(self) -> tuple[int, int]:
        for number in range(_WRITERS):
            held = lock(self._folder / f"writer-{number}.lock")
            if held is not None:
                return number, held
        raise SpoolError(f"spool: {_WRITERS} processes write to {self._folder} already")

    def _failure(self, error: OSError) -> SpoolError:
        kind = SpoolFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SpoolError
        return kind(f"spool: cannot write {self._folder} ({error.strerror})")
