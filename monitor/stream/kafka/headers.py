"""Header names that are not UTF-8: Kafka and other clients accept them, so no record may stop awry with one.

kafka-python 3.0 rejects the whole batch of such a record (CorruptRecordError), for every consumer and for ever. After
`accept_any_header_name()` it reads the name with a ? for each byte that is not ASCII; keys, values and checksums stay
as they are.
"""

from __future__ import annotations

from typing import Any

from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

_read = DefaultRecordBatch._read_msg


def accept_any_header_name() -> None:
    """From now on, for all consumers of this process."""
    DefaultRecordBatch._read_msg = _read_leniently


def _read_leniently(batch: Any) -> Any:
    try:
        return _read(batch)
    except UnicodeDecodeError:
        batch._buffer = _with_ascii_names(bytearray(batch._buffer), batch._pos)
        return _read(batch)


def _with_ascii_names(buffer: bytearray, pos: int) -> bytearray:
    """The batch with the header names of the record at `pos` in ASCII, each as long as it was."""
    for _ in ("length", "attributes", "time", "offset"):
        _, pos = decode_varint(buffer, pos)
    for _ in ("key", "value"):
        size, pos = decode_varint(buffer, pos)
        pos += max(size, 0)
    headers, pos = decode_varint(buffer, pos)
    for _ in range(headers):
        size, pos = decode_varint(buffer, pos)
        buffer[pos : pos + size] = bytes(byte if byte < 128 else ord("?") for byte in buffer[pos : pos + size])
        pos += size
        size, pos = decode_varint(buffer, pos)
        pos += max(size, 0)
    return buffer
