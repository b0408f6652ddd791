"""What is in a spool's folder: segments WRITER-SEQUENCE.jsonl, locks, and the identity of the spool in `id`."""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_SEGMENT = re.compile(r"^(\d{1,4})-(\d{10})\.jsonl$")
# An offset in coordinates is SEQUENCE * 2**32 + the byte offset in the segment: no segment gives one again.
_OFFSET_BITS = 32
MAX_SEGMENT_BYTES = 1 << 30


class Segment(NamedTuple):
    writer: int
    sequence: int

    @property
    def file_name(self) -> str:
        return f"{self.writer}-{self.sequence:010d}.jsonl"

    def offset(self, byte: int) -> int:
        return (self.sequence << _OFFSET_BITS) | byte


def segment_of(writer: int, offset: int) -> Segment:
    """The segment of coordinates."""
    return Segment(writer, offset >> _OFFSET_BITS)


def segments(folder: Path) -> dict[Segment, int]:
    """The segments that are there, in order, and their sizes."""
    found = {}
    for entry in os.scandir(folder):
        match = _SEGMENT.match(entry.name)
        if match:
            try:
                found[Segment(int(match[1]), int(match[2]))] = entry.stat().st_size
            except FileNotFoundError:  # deleted by the reader meanwhile
                continue
    return dict(sorted(found.items()))


def prepare(folder: Path) -> str:
    """Make the folder, for its owner alone; the identity of the spool: of another folder in its place, another."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "id"
    if not path.exists():
        written = folder / f".id-{uuid.uuid4().hex}"
        written.write_text(uuid.uuid4().hex, encoding="ascii")
        sync(written)
        with suppress(FileExistsError):
            os.link(written, path)  # whoever is first
        written.unlink()
        sync(folder)
    return path.read_text(encoding="ascii").strip()


def lock(path: Path) -> int | None:
    """A lock that ends with the process; None where another has it."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def sync(path: Path) -> None:
    """A file, or the names in a folder, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
