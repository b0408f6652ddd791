"""JSON lines from a file or standard input; coordinates are (name, 0, byte offset of the line).

Contract: a line is a record once its newline is there; the last line of a file that is not followed counts without
one. With `follow`, the file is read as it grows; one that shrinks is an error, since its offsets would lie. Memory is
bounded: of a line over the size limit only the size is kept. Blank lines are skipped.

`commit` has nothing to do: a second run over the same file finds its rows in the tables.
"""

from __future__ import annotations

import io
import os
import select
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from monitor.errors import SourceError
from monitor.stream.record import Record
from storage.coordinates import Coordinates

_CHUNK = 1 << 16
_NAP_SECONDS = 0.1


class JsonLines:
    """Reads `path`, or standard input when it is `-`."""

    lag_unit = "bytes"

    def __init__(self, path: str, *, name: str | None = None, follow: bool = False, max_bytes: int = 4_194_304) -> None:
        self._stdin = path == "-"
        self.name = name or ("stdin" if self._stdin else Path(path).name)
        self._path = path
        self._follow = follow and not self._stdin
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._line_size = 0
        self._offset = 0
        self._ready: list[Record] = []
        self._ended = False
        try:
            self._file: io.FileIO = (
                io.FileIO(sys.stdin.fileno(), closefd=False) if self._stdin else io.FileIO(path, "r")
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not readable"
            raise SourceError(f"source: cannot read {path} ({reason})") from error

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        until = time.monotonic() + wait_seconds
        while len(self._ready) < limit and not self._ended:
            left = until - time.monotonic()
            if not self._readable(left):
                break
            chunk = self._file.read(_CHUNK)
            if chunk:
                self._split(chunk)
            elif self._follow:
                self._check_not_shrunk()
                if left <= 0:
                    break
                time.sleep(min(_NAP_SECONDS, max(left, 0)))
            else:
                self._ended = True
                self._end_line()
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        return taken

    def commit(self, _records: Sequence[Record]) -> None:
        return None

    @property
    def finished(self) -> bool:
        return self._ended and not self._ready

    @property
    def oldest(self) -> datetime | None:
        return None  # lines have no time of their own

    @property
    def trouble(self) -> str | None:
        return None

    @property
    def lag(self) -> int | None:
        if self._stdin:
            return None
        waiting = self._ready[0].at.offset if self._ready else self._offset
        return max(0, os.fstat(self._file.fileno()).st_size - waiting)

    def close(self) -> None:
        self._file.close()

    def _readable(self, seconds: float) -> bool:
        if not self._stdin:
            return True
        return bool(select.select([self._file], [], [], max(0.0, seconds))[0])

    def _check_not_shrunk(self) -> None:
        if os.fstat(self._file.fileno()).st_size < self._offset + self._line_size:
            raise SourceError(f"source: {self._path} became shorter while it was followed; start again on the new file")

    def _split(self, chunk: bytes) -> None:
        start = 0
        while True:
            end = chunk.find(b"\n", start)
            part = chunk[start:] if end < 0 else chunk[start:end]
            self._line_size += len(part)
            if self._line_size <= self._max_bytes:
                self._line += part
            else:
                self._line.clear()
            if end < 0:
                return
            self._end_line(newline=1)
            start = end + 1

    def _end_line(self, newline: int = 0) -> None:
        size = self._line_size
        over = size > self._max_bytes
        payload = None if over else bytes(self._line)
        if over or (payload and payload.strip()):
            self._ready.append(Record(Coordinates(self.name, 0, self._offset), payload, size))
        self._offset += size + newline
        self._line.clear()
        self._line_size = 0
