"""The body of a request: read within a time and a size, and decompressed within the same size.

Contract: `read_body` gives the decoded bytes, or raises RefusedError: 413 over `max_bytes` (as sent, or decoded), 408
when it takes longer than `seconds`, 415 for an encoding that is not one of ENCODINGS, 400 for data that does not
decode. The lease holds the bytes as they come. What decompression makes is bounded before it is made.
"""

from __future__ import annotations

import asyncio
import zlib

import zstandard
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from monitor.ingest.inflight import Lease
from monitor.ingest.refused import RefusedError

ENCODINGS = ("identity", "gzip", "deflate", "zstd")

# Clients read why they were refused if the rest of what they send is not longer.
DRAIN_BYTES = 1024 * 1024
# More than this is decompressed in a thread: requests beside it go on.
_THREAD_BYTES = 64 * 1024
_GZIP_BITS = zlib.MAX_WBITS + 16
# The largest window that a zstd decoder should accept (RFC 8878, 3.1.1.1.2).
_ZSTD_WINDOW = 8 * 1024 * 1024
# Four bytes may be a block of 128 KiB.
_ZSTD_STEP = 256


async def read_body(request: Request, lease: Lease, *, max_bytes: int, seconds: float) -> bytes:
    """The decoded body, whose size the lease holds. Raises ClientDisconnect when the client goes away."""
    encoding = (request.headers.get("content-encoding") or "identity").strip().lower()
    if encoding not in ENCODINGS:
        raise RefusedError(415, f"Content-Encoding: use one of {', '.join(ENCODINGS)}", drain=DRAIN_BYTES)
    length = _content_length(request)
    if length is not None:
        if length > max_bytes:
            raise _too_large(max_bytes)
        try:
            lease.resize(length)
        except RefusedError as refused:
            refused.drain = length
            raise
    try:
        async with asyncio.timeout(seconds):
            raw = await _read(request, lease, length or 0, max_bytes)
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {seconds:g} s") from None
    if encoding == "identity":
        return raw
    if len(raw) > _THREAD_BYTES:
        body = await run_in_threadpool(decompress, raw, encoding, max_bytes)
    else:
        body = decompress(raw, encoding, max_bytes)
    lease.resize(len(body))
    return body


def decompress(raw: bytes, encoding: str, max_bytes: int) -> bytes:
    """Raises RefusedError."""
    try:
        body = _unzstd(raw, max_bytes) if encoding == "zstd" else _inflate(raw, encoding, max_bytes)
    except (zlib.error, zstandard.ZstdError, EOFError):
        raise RefusedError(400, f"the body is not what Content-Encoding: {encoding} says") from None
    if len(body) > max_bytes:
        raise _too_large(max_bytes, unread=0)
    return body


async def _read(request: Request, lease: Lease, held: int, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if size > held:
            held = size
            lease.resize(held)
        parts.append(part)
    return b"".join(parts)


def _inflate(raw: bytes, encoding: str, max_bytes: int) -> bytes:
    """gzip, of one member or several; deflate with zlib's header, as it should be, or without."""
    bits = _GZIP_BITS if encoding == "gzip" else zlib.MAX_WBITS if _has_zlib_header(raw) else -zlib.MAX_WBITS
    parts: list[bytes] = []
    size = 0
    while True:
        decoder = zlib.decompressobj(bits)
        part = decoder.decompress(raw, max_bytes + 1 - size)
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            break
        if not decoder.eof:
            raise EOFError
        raw = decoder.unused_data
        if encoding != "gzip" or not raw.strip(b"\x00"):
            break
    return b"".join(parts)


def _has_zlib_header(raw: bytes) -> bool:
    return len(raw) >= 2 and raw[0] & 0x0F == 8 and (raw[0] * 256 + raw[1]) % 31 == 0


def _unzstd(raw: bytes, max_bytes: int) -> bytes:
    """One frame or several."""
    frames = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    decoder = frames.decompressobj()
    parts: list[bytes] = []
    size = 0
    rest = memoryview(raw)
    while rest:
        # The decoder has no limit of its own: so little goes in that not much can come out.
        step = rest[:_ZSTD_STEP]
        part = decoder.decompress(step)
        parts.append(part)
        size += len(part)
        rest = rest[len(step) - (len(decoder.unused_data) if decoder.eof else 0) :]
        if size > max_bytes:
            return b"".join(parts)
        if decoder.eof and rest:
            decoder = frames.decompressobj()
    if not decoder.eof:
        raise EOFError
    return b"".join(parts)


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) if len(text) < 19 else 10**18


def _too_large(max_bytes: int, unread: int = DRAIN_BYTES) -> RefusedError:
    return RefusedError(413, f"the body is larger than {max_bytes} bytes", drain=unread)


async def drain(request: Request, max_bytes: int, seconds: float = 2.0) -> None:
    """Throw away the rest of a body, so that its client reads the response."""
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while size <= max_bytes:
                message = await request.receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
