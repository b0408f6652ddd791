"""Bytes of a log, cut into lines; and the identity of a log.

Contract: a line is complete once its newline is there. Memory is bounded: of a line over the limit only the size is
kept. Blank lines are skipped. Offsets are bytes from the log's beginning.

The identity of a log is a hash of its first complete line that is not blank (of its first 64 KiB): a file keeps it
while it grows and when it is moved, copied or compressed; another file of the same name has another.
"""

from __future__ import annotations

import hashlib

_IDENTITY_BYTES = 1 << 16


# Offset, payload (None where the line was over the limit), size. A plain tuple: there is one a message.
Line = tuple[int, bytes | None, int]


def identity_of(first_line: bytes) -> str:
    """32 hexadecimal digits."""
    return hashlib.sha256(first_line[:_IDENTITY_BYTES]).hexdigest()[:32]


class LineSplitter:
    """Takes a log's bytes in order, gives its lines."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._kept = max(max_bytes, _IDENTITY_BYTES)  # of the first line, for the identity
        self.offset = 0
        """Where the unfinished line begins."""
        self.unfinished = 0
        """Bytes of the unfinished line so far."""
        self.identity: str | None = None

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that end in this chunk."""
        lines: list[Line] = []
        start = 0
        if not self.unfinished and chunk[:1].isspace() and not chunk.strip():  # a flood of blank lines
            start = chunk.rfind(b"\n") + 1
            self.offset += start
        while (end := chunk.find(b"\n", start)) >= 0:
            size = end - start
            if self.unfinished:
                self._keep(chunk[start:end])
                self._end_line(lines, bytes(self._line), self.unfinished, 1)
            elif self.identity is not None and size <= self._max_bytes:  # nearly every line: no call
                content = chunk[start:end]
                if content.strip():
                    lines.append((self.offset, content, size))
                self.offset += size + 1
            else:
                self._end_line(lines, chunk[start:end], size, 1)
            start = end + 1
        if start < len(chunk):
            self._keep(chunk[start:])
        return lines

    def end(self) -> list[Line]:
        """The last line, which has no newline."""
        lines: list[Line] = []
        if self.unfinished:
            self._end_line(lines, bytes(self._line), self.unfinished, 0)
        return lines

    def _keep(self, part: bytes) -> None:
        self.unfinished += len(part)
        room = self._kept - len(self._line)
        if self.unfinished <= self._kept:
            self._line += part
        elif self.identity is None:
            self._line += part[:room]
        else:
            self._line.clear()

    def _end_line(self, lines: list[Line], content: bytes, size: int, newline: int) -> None:
        over = size > self._max_bytes
        if over or content.strip():
            if self.identity is None:
                self.identity = identity_of(content)
                self._kept = self._max_bytes
            lines.append((self.offset, None if over else content, size))
        self.offset += size + newline
        if self.unfinished:
            self._line.clear()
            self.unfinished = 0
