"""OpenTelemetry's GenAI spans and log events, as OTLP in protobuf or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.stream.formats.draft import Draft, UnreadableError

NAME = "otlp"


def is_protobuf(payload: bytes, headers: Sequence[tuple[str, bytes | None]]) -> bool:
    """Whether a payload is OTLP in protobuf: JSON begins with a brace, a bracket or white space."""
    del payload, headers
    return False


def decode(payload: bytes, named: str, headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any]:
    """The request as OTLP JSON has it. Raises UnreadableError."""
    raise UnreadableError("payload: not OTLP")


def recognises(value: Any) -> bool:
    """Whether there are spans or log records by resource."""
    return isinstance(value, dict) and ("resourceSpans" in value or "resourceLogs" in value)


def read(value: Any) -> list[Draft]:
    """A draft for each span or event that holds messages."""
    return []
