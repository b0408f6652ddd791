"""JSON lines from files or standard input; coordinates are (name, 0, byte offset of the line), in unpacked bytes.

Contract: a line is a record once its newline is there; the last line of a file that is not followed counts without
one. `log` is a hash of the file's first line (`jsonl_lines`): another file of the same name is another log. Files that
are compressed (gzip, zstd) are told by their first bytes. Memory is bounded: of a line over the size limit only the
size is kept. Blank lines are skipped.

Several files, and patterns, are separated by commas and read one after the other (`jsonl_files`). With `follow`, files
are read as they grow, through rotation, and new ones that match are picked up (`jsonl_follow`). A `name` that is given
is the source name of all; they are still told apart by their logs.

What cannot be read whole (corrupt, cut off) is read as far as it can be; the error comes at the end of all files.

`commit` has nothing to do: a second run over the same file finds its rows in the tables.
"""

from __future__ import annotations

import io
import select
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from monitor.errors import SourceError
from monitor.stream import jsonl_files as files
from monitor.stream.jsonl_bytes import RewrittenError
from monitor.stream.jsonl_files import Found, Named
from monitor.stream.jsonl_follow import Followed
from monitor.stream.jsonl_log import OpenLog
from monitor.stream.record import Record
from monitor.telemetry import logs
from monitor.telemetry.waiting import Waiting

_NAP_SECONDS = 0.1


class _Reading(Protocol):
    done: bool
    lost_bytes: int

    def step(self, ready: list[Record]) -> bool: ...

    @property
    def lag(self) -> int: ...

    @property
    def trouble(self) -> str | None: ...

    def close(self) -> None: ...


class JsonLines:
    """Reads `path`: files and patterns, or standard input when it is `-`."""

    lag_unit = "bytes"

    def __init__(self, path: str, *, name: str | None = None, follow: bool = False, max_bytes: int = 4_194_304) -> None:
        self._ready: list[Record] = []
        self._stdin = path == "-"
        if self._stdin:
            self.name = name or "stdin"
            self._files: _Reading = _OneByOne([], self.name, max_bytes, first=_standard_input(self.name, max_bytes))
            return
        names = files.named(path)
        found = _checked(names, path, follow=follow)
        one = len(names) == 1 and not names[0].pattern
        self.name = name or (files.name_of(path) if one else path)
        self._files = Followed(names, name, max_bytes) if follow else _OneByOne(found, name, max_bytes)

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        until = time.monotonic() + wait_seconds
        reading = self._files
        while len(self._ready) < limit and not reading.done:
            read = reading.step(self._ready)
            left = until - time.monotonic()
            if reading.done or left <= 0:
                break
            if not read:
                if self._ready:
                    break
                self._wait(left)
        if not self._ready and reading.done and reading.trouble is not None:
            raise SourceError(reading.trouble)
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        return taken

    def commit(self, _records: Sequence[Record]) -> None:
        return None

    @property
    def finished(self) -> bool:
        return self._files.done and not self._ready and self._files.trouble is None

    @property
    def oldest(self) -> datetime | None:
        return None  # lines have no time of their own

    @property
    def trouble(self) -> str | None:
        return self._files.trouble

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        return {}  # lines are read in order

    @property
    def lag(self) -> int | None:
        if self._stdin:
            return None
        return self._files.lag + sum(record.size + 1 for record in self._ready)

    @property
    def lost_bytes(self) -> int:
        """Bytes that were seen in followed files and cut away before they were read."""
        return self._files.lost_bytes

    def close(self) -> None:
        self._files.close()

    def _wait(self, seconds: float) -> None:
        if self._stdin:
            select.select([sys.stdin.fileno()], [], [], seconds)
        else:
            time.sleep(min(_NAP_SECONDS, seconds))


class _OneByOne:
    """Files that are read to their ends in turn, `first` before them."""

    lost_bytes = 0

    def __init__(
        self, found: Sequence[Found], name: str | None, max_bytes: int, *, first: OpenLog | None = None
    ) -> None:
        self._waiting = list(found)
        self._name = name
        self._max_bytes = max_bytes
        self._broken: list[str] = []
        self._log = first or self._next()
        self.done = False

    def step(self, ready: list[Record]) -> bool:
        log = self._log
        if log is None:
            self.done = True
            return False
        try:
            if log.read(ready):
                return True
            if log.broken is None and not log.reader.at_end:
                return False
            if log.broken is None:
                log.end(ready)
        except RewrittenError:
            log.broken = "it was cut or written anew while it was read"
        if log.broken is not None:
            self._broken.append(f"{log.path} ({log.broken}; {log.records} lines were read)")
            logs.logger().error("source: a file cannot be read on", path=log.path, reason=log.broken)
        log.reader.close()
        self._log = self._next()
        self.done = self._log is None
        return True

    @property
    def lag(self) -> int:
        log = self._log
        return (log.lag if log is not None else 0) + sum(found.size for found in list(self._waiting))

    @property
    def trouble(self) -> str | None:
        return f"source: cannot read the whole of {', '.join(self._broken)}" if self._broken else None

    def close(self) -> None:
        if self._log is not None:
            self._log.reader.close()

    def _next(self) -> OpenLog | None:
        while self._waiting:
            found = self._waiting[0]
            log = OpenLog(found.path, self._name or found.name, files.open_file(found.path), self._max_bytes)
            if log.reader.key != found.key:
                log.reader.close()
                log = self._moved(found)
            self._waiting.pop(0)
            return log
        return None

    def _moved(self, found: Found) -> OpenLog:
        """A file that was renamed since it was found."""
        for _, other in files.siblings([found.path]):
            if other.key == found.key:
                return OpenLog(other.path, self._name or found.name, files.open_file(other.path), self._max_bytes)
        raise SourceError(f"source: {found.path} was moved or replaced before it was read; start again")


def _checked(names: Sequence[Named], source: str, *, follow: bool) -> list[Found]:
    """The files that are there; an error for a path without a file, or where there is none at all."""
    for named in names:
        # To open a pipe and close it again would end its writer.
        if not named.pattern and not Path(named.path).is_fifo():
            files.open_file(named.path).close()
    found = files.find(names)
    if not found and not follow:
        raise SourceError(f"source: no file matches {source}")
    return found


def _standard_input(name: str, max_bytes: int) -> OpenLog:
    try:
        return OpenLog("standard input", name, io.FileIO(sys.stdin.fileno(), closefd=False), max_bytes)
    except (OSError, ValueError) as error:
        raise SourceError("source: cannot read - (standard input is closed)") from error
