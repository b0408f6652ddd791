"""What goes to the stream: a value, as it came, and headers that say what came with it."""

from __future__ import annotations

from dataclasses import dataclass

# Read by `monitor.stream.parse`.
FORMAT_HEADER = "awry_format"
RECEIVED_HEADER = "awry_received_at"
# In place of a record that the topic does not take: its size in bytes.
OVERSIZE_HEADER = "awry_oversize"

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class OutRecord:
    """One message, or one OTLP request."""

    value: bytes
    headers: Headers

    def size_note(self) -> OutRecord:
        """What stands in its place where it is too large for the topic: the worker makes an `invalid` row of it."""
        note = b'{"awry_oversize":%d}' % len(self.value)
        return OutRecord(note, (*self.headers, (OVERSIZE_HEADER, b"%d" % len(self.value))))
