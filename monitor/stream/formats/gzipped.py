"""Payloads that a sender packed with gzip before they became a record (Kafka's own compression is the client's)."""

from __future__ import annotations

import zlib

from monitor.stream.formats.draft import UnreadableError

MAGIC = b"\x1f\x8b"
# As much as a record of the greatest size becomes at a ratio that text has.
MAX_BYTES = 32 * 1024 * 1024
_GZIP = 31


def unpacked(payload: bytes) -> bytes:
    """The payload as it was. Raises UnreadableError."""
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(payload, MAX_BYTES)
        # More than one member is allowed.
        while stream.eof and stream.unused_data and len(plain) < MAX_BYTES:
            rest, stream = stream.unused_data, zlib.decompressobj(_GZIP)
            plain += stream.decompress(rest, MAX_BYTES - len(plain))
    except zlib.error:
        raise UnreadableError("payload: broken gzip") from None
    if stream.unconsumed_tail or not stream.eof:
        too_large = stream.unconsumed_tail or len(plain) >= MAX_BYTES
        raise UnreadableError(f"payload: gzip of over {MAX_BYTES} bytes" if too_large else "payload: broken gzip")
    return plain
