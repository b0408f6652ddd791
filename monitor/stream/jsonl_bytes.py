"""The bytes of one open file as they were before it was compressed: plain, gzip or zstd, told by the first bytes.

Contract: memory is bounded whatever is in the file: what is unpacked comes in pieces. What was readable before a
corrupt place is given first, then CorruptError is raised. Before and after each read of a regular file, its beginning
and what comes before the read are compared with what was read there; RewrittenError tells that the file is no longer
the one that was read so far, and nothing of the new content is given.
"""

from __future__ import annotations

import io
import os
import select
import stat
import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

CHUNK = 1 << 16
_MAGIC_GZIP = b"\x1f\x8b"
_MAGIC_ZSTD = b"\x28\xb5\x2f\xfd"
_MAGIC_SKIPPED = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f: a zstd frame without content
_WINDOW = 1 << 27  # what the zstd program allows by default
# A block of zstd may take four bytes and unpack to 128 KiB: a slice unpacks to 8 MiB at the most.
_ZSTD_SLICE = 1 << 8
_HEAD = 1 << 12
_TAIL = 1 << 8


class CorruptError(Exception):
    """The rest of a compressed file cannot be unpacked."""


class RewrittenError(Exception):
    """The file was cut or written anew where it had been read already."""


class _Decoder(Protocol):
    name: str

    def pieces(self, raw: bytes) -> Iterator[bytes]: ...

    @property
    def whole(self) -> bool:
        """Whether the compressed stream may end here."""


class _Plain:
    name = "plain"
    whole = True

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        yield raw


class _Gzip:
    name = "gzip"

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None

    @property
    def whole(self) -> bool:
        return self._member is None

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        while True:
            if self._member is None:
                raw = raw.lstrip(b"\0")  # padding between members
                if not raw:
                    return
                self._member = zlib.decompressobj(wbits=31)
            before = self._member.copy()
            try:
                out = self._member.decompress(raw, CHUNK)
            except zlib.error as error:
                yield from _readable(before, raw)
                raise CorruptError("corrupt gzip data") from error
            if out:
                yield out
            if self._member.eof:
                raw, self._member = self._member.unused_data, None
            else:
                raw = self._member.unconsumed_tail
                if not raw and len(out) < CHUNK:
                    return


def _readable(member: zlib._Decompress, raw: bytes) -> Iterator[bytes]:
    """What can be unpacked before the corrupt byte."""
    for at in range(len(raw)):
        try:
            out = member.decompress(raw[at : at + 1])
        except zlib.error:
            return
        if out:
            yield out


class _Zstd:
    name = "zstd"

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None

    @property
    def whole(self) -> bool:
        return self._frame is None

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        for start in range(0, len(raw), _ZSTD_SLICE):
            part = raw[start : start + _ZSTD_SLICE]
            while part:
                frame = self._frame = self._frame or self._decompressor.decompressobj()
                try:
                    out = frame.decompress(part)
                except zstandard.ZstdError as error:
                    raise CorruptError("corrupt zstd data, or a window over 128 MiB") from error
                for at in range(0, len(out), CHUNK):
                    yield out[at : at + CHUNK]
                part = b""
                if frame.eof:
                    part, self._frame = frame.unused_data, None


def _decoder_for(first: bytes, *, more: bool) -> _Decoder | None:
    """By the first bytes; None where they are too few to tell and more may come."""
    if first.startswith(_MAGIC_GZIP):
        return _Gzip()
    skipped = bool(first) and 0x50 <= first[0] <= 0x5F
    if first.startswith(_MAGIC_ZSTD) or (skipped and first[1:].startswith(_MAGIC_SKIPPED)):
        return _Zstd()
    begins = any(magic.startswith(first) for magic in (_MAGIC_GZIP, _MAGIC_ZSTD))
    if more and (begins or (skipped and _MAGIC_SKIPPED.startswith(first[1:]))):
        return None
    return _Plain()


class ByteReader:
    """Reads `file`, which it owns."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        about = os.fstat(file.fileno())
        self.key = (about.st_dev, about.st_ino)
        self.regular = stat.S_ISREG(about.st_mode)
        self.raw = 0
        """Bytes of the file that were read, packed as they are."""
        self.at_end = False
        self._seen_size = 0
        self._head = b""
        self._tail = b""
        self._first = b""
        self._decoder: _Decoder | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._unpacking = 0

    @property
    def packing(self) -> str | None:
        """plain, gzip or zstd; None where it is not known yet."""
        return self._decoder.name if self._decoder is not None else None

    def read(self) -> bytes:
        """The next piece; empty where nothing is there now (`at_end`: and no more comes, unless the file grows)."""
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                return piece
            self._unpacking = 0
            if not self.regular and not select.select([self._file], [], [], 0)[0]:
                return b""
            raw = self._read_raw()
            self.at_end = not raw
            if not raw:
                return b""
            self._decode(raw, more=True)
            self._unpacking = len(raw)

    def end(self) -> Iterator[bytes]:
        """No more will come: what was held back; CorruptError where the compressed stream does not end here."""
        if self._first:
            self._decode(b"", more=False)
            yield from self._pieces
        if self._decoder is not None and not self._decoder.whole:
            raise CorruptError(f"the {self._decoder.name} data ends before its end: cut off, or still being written")

    @property
    def whole(self) -> bool:
        """Whether the file may end where it was read to."""
        return self._decoder is None or self._decoder.whole

    @property
    def unread(self) -> int:
        """Bytes of the file, packed as they are, of which something was not read yet."""
        size = os.fstat(self._file.fileno()).st_size if self.regular else self.raw
        # What is plain comes in one piece, which is taken at once.
        return max(0, size - self.raw) + (self._unpacking if self.packing != "plain" else 0)

    @property
    def unread_when_last_seen(self) -> int:
        """The same before the file was rewritten, as far as it was seen."""
        return max(0, self._seen_size - self.raw)

    def is_in(self, other: ByteReader) -> bool:
        """Whether `other`, of which nothing was read, holds what was read of this one: it is a plain copy."""
        return other.regular and self._matches(other._file.fileno())

    def follows(self, other: ByteReader) -> None:
        """Go on in this file, a copy of `other`, after what was read of that one; its decoder goes on too."""
        self._file.seek(other.raw)
        self.raw, self._head, self._tail = other.raw, other._head, other._tail
        self._first, self._decoder = other._first, other._decoder

    def fileno(self) -> int:
        return self._file.fileno()

    def release(self) -> io.FileIO:
        """The file, at its beginning, for another reader."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        self._file.close()

    def _read_raw(self) -> bytes:
        if not self.regular:
            raw = self._file.read(CHUNK) or b""
            self.raw += len(raw)
            return raw
        self._check()
        raw = self._file.read(CHUNK) or b""
        if raw:
            self._check()
            self.raw += len(raw)
            if len(self._head) < _HEAD:
                self._head += raw[: _HEAD - len(self._head)]
            self._tail = raw[-_TAIL:] if len(raw) >= _TAIL else (self._tail + raw)[-_TAIL:]
        return raw

    def _check(self) -> None:
        if not self._matches(self._file.fileno()):
            raise RewrittenError
        self._seen_size = os.fstat(self._file.fileno()).st_size

    def _matches(self, number: int) -> bool:
        """Whether a file holds what was read: as much of it, the same beginning, the same last bytes."""
        tail = self.raw - len(self._tail)
        return (
            os.pread(number, len(self._head), 0) == self._head
            and os.pread(number, len(self._tail), tail) == self._tail
            and os.fstat(number).st_size >= self.raw
        )

    def _decode(self, raw: bytes, *, more: bool) -> None:
        if self._decoder is None:
            self._first += raw
            self._decoder = _decoder_for(self._first, more=more)
            if self._decoder is None:
                return
            raw, self._first = self._first, b""
        self._pieces = self._decoder.pieces(raw)
