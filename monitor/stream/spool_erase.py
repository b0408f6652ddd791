"""Erases messages that wait in the spool: what `awry ingest` has taken, and no worker has stored and deleted yet.

Contract: `find(folder, wanted, options)` gives the messages of the spool that match, with what a tombstone of each has;
`blank(folder, found)` overwrites their lines where they stand, so that no offset changes: with ERASED_LINE, which the
reader takes for no message. A line that also holds somebody else's messages is left (`shared`): its tombstones keep the
person's from being stored, and a worker deletes the file when all of it is stored. Segments that a worker deletes
meanwhile are passed over.

A worker that reads a line in the moment in which it is overwritten may see half of each, which is invalid.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monitor.stream.parse import Parsed, ParseOptions, Parser
from monitor.stream.spool_folder import Segment, segments
from monitor.stream.spool_line import ERASED_LINE, decode_line


@dataclass(frozen=True)
class Waiting:
    """A message that waits: its line (segment, byte, length), the index within the record, the hash of the payload."""

    segment: Segment
    byte: int
    length: int
    sub: int
    payload_sha256: str
    received: datetime
    shared: bool

    def tombstone(self, source: str) -> dict[str, Any]:
        """The row of `erased_messages`, but for the erasure."""
        return {
            "source": source,
            "partition": self.segment.writer,
            "offset": self.segment.offset(self.byte),
            "sub": self.sub,
            "payload_sha256": self.payload_sha256,
            "day": self.received.date(),
            "ingested_at": self.received,
            "conflict": False,
        }


def find(folder: Path, wanted: Callable[[Parsed], bool], options: ParseOptions) -> list[Waiting]:
    """The messages that match, in order."""
    if not folder.is_dir():
        return []
    parser = Parser(options)
    found: list[Waiting] = []
    for segment in segments(folder):
        try:
            for byte, line in _lines(folder / segment.file_name):
                found += _matching(segment, byte, line, wanted, parser)
        except FileNotFoundError:  # stored, and deleted by the worker
            continue
    return found


def blank(folder: Path, found: Sequence[Waiting]) -> int:
    """Overwrite the lines that hold nobody else's messages; the number of lines that were."""
    lines = sorted({(each.segment, each.byte, each.length) for each in found if not each.shared})
    done = 0
    for segment, byte, length in lines:
        try:
            number = os.open(folder / segment.file_name, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            os.pwrite(number, ERASED_LINE.ljust(length), byte)
            os.fsync(number)
        finally:
            os.close(number)
        done += 1
    return done


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines without their newlines, each with where it begins."""
    at = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield at, line[:-1]
            at += len(line)


def _matching(
    segment: Segment, byte: int, line: bytes, wanted: Callable[[Parsed], bool], parser: Parser
) -> list[Waiting]:
    if line.rstrip(b" ") == ERASED_LINE:
        return []
    try:
        payload, headers, received = decode_line(line)
    except (ValueError, RecursionError):
        return []
    messages = parser(payload, headers)
    matching = [number for number, each in enumerate(messages) if wanted(each)]
    digest = hashlib.sha256(payload).hexdigest() if matching else ""
    shared = len(matching) < len(messages)
    at = received or datetime.now(UTC)
    return [Waiting(segment, byte, len(line), number, digest, at, shared) for number in matching]
