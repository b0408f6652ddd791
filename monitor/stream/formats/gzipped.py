"""Payloads that a sender packed with gzip before they became a record (Kafka's own compression is the client's)."""

from __future__ import annotations

import gzip
import io
import zlib

from monitor.stream.formats.draft import UnreadableError

MAGIC = b"\x1f\x8b"
# As much as a record of the greatest size becomes at a ratio that text has.
MAX_BYTES = 32 * 1024 * 1024


def unpacked(payload: bytes) -> bytes:
    """The payload as it was, of one or more members. Raises UnreadableError."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(payload)) as packed:
            plain = packed.read(MAX_BYTES + 1)
    except (zlib.error, OSError, EOFError):
        raise UnreadableError("payload: broken gzip") from None
    if len(plain) > MAX_BYTES:
        raise UnreadableError(f"payload: gzip of over {MAX_BYTES} bytes")
    return plain
