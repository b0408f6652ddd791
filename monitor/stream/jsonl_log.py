"""One file of JSON lines that is being read: its bytes, its lines, its records."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence

from monitor.stream.jsonl_bytes import ByteReader, CorruptError
from monitor.stream.jsonl_lines import Line, LineSplitter
from monitor.stream.record import Record
from storage.coordinates import Coordinates


class OpenLog:
    """Reads `file` from its beginning; records have the source name `name`."""

    def __init__(self, path: str, name: str, file: io.FileIO, max_bytes: int) -> None:
        self.path = path
        self.name = name
        self.reader = ByteReader(file)
        self._lines = LineSplitter(max_bytes)
        self._skip = 0
        self.unpacked = 0
        """Bytes that were read, unpacked."""
        self.records = 0
        self.broken: str | None = None
        """Why the rest cannot be read."""
        self.orphan_since: float | None = None
        """Since when no path leads to the file, or it did not grow after that."""
        self.visit_until: int | None = None
        """Where the present visit to this file ends."""
        self.read_at = time.monotonic()
        self.waits_for_rest = False
        """A compressed stream that is not complete has been told of."""

    @property
    def identity(self) -> str | None:
        return self._lines.identity

    @property
    def unfinished(self) -> int:
        """Bytes of the last line, whose newline is not there yet."""
        return self._lines.unfinished

    def read(self, ready: list[Record]) -> bool:
        """Add the records of the next piece; False at the end of what is there."""
        try:
            piece = self.reader.read()
        except CorruptError as error:
            self.broken = str(error)
            return False
        if not piece:
            return False
        if self._skip:
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = piece[skipped:]
        self.unpacked += len(piece)
        self.read_at = time.monotonic()
        self._add(self._lines.feed(piece), ready)
        return True

    def end(self, ready: list[Record]) -> None:
        """No more will come. The last line counts without a newline, but not where the file is cut off."""
        try:
            for piece in self.reader.end():
                self.unpacked += len(piece)
                self._add(self._lines.feed(piece), ready)
        except CorruptError as error:
            self.broken = str(error)
            return
        self._add(self._lines.end(), ready)

    def go_on_in(self, copy: ByteReader, *, packed: bool) -> None:
        """The rest is in a copy: of a packed one, what was read already is passed over."""
        if packed:
            self._skip = self.unpacked
        else:
            copy.follows(self.reader)
        self.reader = copy
        self.visit_until = None

    @property
    def lag(self) -> int:
        """Bytes of the file, packed as they are, that are not in records yet."""
        if self.broken is not None:
            return 0
        try:
            return self.reader.unread + self._lines.unfinished
        except (OSError, ValueError):  # closed meanwhile by the thread that reads
            return 0

    def _add(self, lines: Sequence[Line], ready: list[Record]) -> None:
        name, log = self.name, self._lines.identity
        ready += [Record(Coordinates(name, 0, offset), payload, size, log=log) for offset, payload, size in lines]
        self.records += len(lines)
