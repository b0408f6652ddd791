"""OTLP in protobuf: an ExportTraceServiceRequest or an ExportLogsServiceRequest as OTLP JSON has it.

Read by hand, not by the generated classes: those refuse a whole request for one string that is not UTF-8 (senders in Go
write such), and make an object of every empty record. Only fields that awry uses are looked at; others, of any version,
are passed over.

Contract: `looks_like` is cheap and is sure of what is JSON. `decode` raises UnreadableError for what is neither. The
two requests are told apart by the fields of their records: a payload does not say which it is. Bytes that are not
UTF-8 become U+FFFD. Work is linear in the payload's size, with at most MAX_RECORDS records and MAX_DEPTH levels.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from monitor.stream.formats.draft import UnreadableError
from monitor.stream.formats.otlp_entries import MAX_RECORDS, TOO_MANY

MAX_DEPTH = 100
TRACES, LOGS = "resourceSpans", "resourceLogs"
_BROKEN = "payload: neither JSON nor OTLP's traces or logs in protobuf"

# A tag is a field's number and its form: 2 for bytes with their size, 1 for 8 bytes, 5 for 4 bytes, 0 for a varint.
_FIRST, _SECOND = 0x0A, 0x12
_ATTRIBUTES_OF_RESOURCE = _FIRST
_SPAN_TRACE, _SPAN_ID, _SPAN_NAME, _SPAN_START, _SPAN_ATTRIBUTES, _SPAN_EVENT = 0x0A, 0x12, 0x2A, 0x39, 0x4A, 0x5A
_EVENT_NAME, _EVENT_ATTRIBUTES = 0x12, 0x1A
_LOG_TIME, _LOG_BODY, _LOG_ATTRIBUTES, _LOG_TRACE, _LOG_SPAN, _LOG_OBSERVED = 0x09, 0x2A, 0x32, 0x4A, 0x52, 0x59
_LOG_EVENT_NAME = 0x62
# Tags that only records of one kind have.
_OF_SPANS = frozenset((_SPAN_TRACE, _SPAN_ID, 0x22, 0x30, _SPAN_START, 0x41, 0x50, _SPAN_EVENT, 0x6A, 0x7A))
_OF_LOGS = frozenset((_LOG_TIME, 0x10, _LOG_ATTRIBUTES, 0x38, 0x45, _LOG_SPAN, _LOG_OBSERVED, _LOG_EVENT_NAME))

# Tag, its number or the first byte of its value, the end of its value.
_Field = tuple[int, int, int]


def looks_like(payload: bytes) -> bool:
    """Whether a payload is a row of messages under field 1. Its first byte is a line feed, as JSON may have too."""
    if payload[:1] != b"\n":
        return False
    if payload.lstrip()[:1] in (b"{", b"["):
        # Bytes that are no UTF-8 do not make it protobuf.
        try:
            json.loads(payload.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            pass
        else:
            return False
    try:
        return all(tag == _FIRST for tag, _, _ in _fields(payload, 0, len(payload)))
    except UnreadableError:
        return False


def decode(payload: bytes, kind: str | None = None) -> dict[str, Any]:
    """The request; `kind` (TRACES or LOGS) counts where the records do not say. Raises UnreadableError."""
    resources: list[tuple[dict[str, Any], list[tuple[int, int]]]] = []
    number = 0
    for at, end in _parts(payload, 0, len(payload), _FIRST):
        about: dict[str, Any] = {}
        records: list[tuple[int, int]] = []
        for tag, start, stop in _fields(payload, at, end):
            if tag == _FIRST:
                about = _attributes(payload, start, stop, _ATTRIBUTES_OF_RESOURCE, 0)
            elif tag == _SECOND:
                records += _parts(payload, start, stop, _SECOND, MAX_RECORDS - number - len(records))
        number += len(records)
        resources.append((about, records))
    if payload and not number:
        # White space before something else may look like resources without records.
        raise UnreadableError(_BROKEN)
    kind = _kind(payload, (record for _, records in resources for record in records)) or kind or TRACES
    scopes, leaves, read = ("scopeLogs", "logRecords", _log) if kind == LOGS else ("scopeSpans", "spans", _span)
    return {
        kind: [
            {"resource": {"attributes": about}, scopes: [{leaves: [read(payload, *record) for record in records]}]}
            for about, records in resources
        ]
    }


def _kind(payload: bytes, records: Iterator[tuple[int, int]]) -> str | None:
    for at, end in records:
        for tag, _, _ in _fields(payload, at, end):
            if (tag in _OF_SPANS) != (tag in _OF_LOGS):
                return TRACES if tag in _OF_SPANS else LOGS
    return None


def _fields(payload: bytes, at: int, end: int) -> Iterator[_Field]:
    """The fields of a message; of a varint its value, else where the value starts and ends."""
    while at < end:
        tag = payload[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(payload, at - 1, end)
        form = tag & 7
        if form == 2:
            size, start = (payload[at], at + 1) if at < end and payload[at] < 0x80 else _varint(payload, at, end)
            at = start + size
        elif form == 0:
            start, at = _varint(payload, at, end)
        elif form == 1 or form == 5:
            start, at = at, at + (8 if form == 1 else 4)
        else:
            raise UnreadableError(_BROKEN)
        if at > end:
            raise UnreadableError(_BROKEN)
        yield tag, start, at


def _varint(payload: bytes, at: int, end: int) -> tuple[int, int]:
    if at < end and payload[at] < 0x80:  # most are one byte
        return payload[at], at + 1
    value = shift = 0
    while at < end and shift < 70:
        byte = payload[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise UnreadableError(_BROKEN)


def _parts(payload: bytes, at: int, end: int, wanted: int, limit: int = MAX_RECORDS) -> list[tuple[int, int]]:
    """Where the messages under one tag are."""
    found: list[tuple[int, int]] = []
    for tag, start, stop in _fields(payload, at, end):
        if tag == wanted:
            if len(found) >= limit:
                raise UnreadableError(TOO_MANY)
            found.append((start, stop))
    return found


def _span(payload: bytes, at: int, end: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    span: dict[str, Any] = {"attributes": attributes, "events": events}
    for tag, start, stop in _fields(payload, at, end):
        if tag == _SPAN_ATTRIBUTES:
            _pair(payload, start, stop, attributes, 0)
        elif tag == _SPAN_EVENT:
            events.append(_event(payload, start, stop))
        elif tag == _SPAN_TRACE:
            span["traceId"] = payload[start:stop].hex()
        elif tag == _SPAN_ID:
            span["spanId"] = payload[start:stop].hex()
        elif tag == _SPAN_NAME:
            span["name"] = _text(payload, start, stop)
        elif tag == _SPAN_START:
            span["startTimeUnixNano"] = int.from_bytes(payload[start:stop], "little") or None
    return span


def _event(payload: bytes, at: int, end: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    event: dict[str, Any] = {"attributes": attributes}
    for tag, start, stop in _fields(payload, at, end):
        if tag == _EVENT_ATTRIBUTES:
            _pair(payload, start, stop, attributes, 0)
        elif tag == _EVENT_NAME:
            event["name"] = _text(payload, start, stop)
    return event


def _log(payload: bytes, at: int, end: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    log: dict[str, Any] = {"attributes": attributes}
    for tag, start, stop in _fields(payload, at, end):
        if tag == _LOG_ATTRIBUTES:
            _pair(payload, start, stop, attributes, 0)
        elif tag == _LOG_BODY:
            # Wrapped, so that a map of one key is not taken for a value of OTLP's JSON.
            log["body"] = {"stringValue": _value(payload, start, stop, 0)}
        elif tag in (_LOG_TIME, _LOG_OBSERVED):
            when = int.from_bytes(payload[start:stop], "little")
            log["timeUnixNano" if tag == _LOG_TIME else "observedTimeUnixNano"] = when or None
        elif tag == _LOG_TRACE:
            log["traceId"] = payload[start:stop].hex()
        elif tag == _LOG_SPAN:
            log["spanId"] = payload[start:stop].hex()
        elif tag == _LOG_EVENT_NAME:
            log["eventName"] = _text(payload, start, stop)
    return log


def _attributes(payload: bytes, at: int, end: int, wanted: int, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for tag, start, stop in _fields(payload, at, end):
        if tag == wanted:
            _pair(payload, start, stop, made, depth)
    return made


def _pair(payload: bytes, at: int, end: int, into: dict[str, Any], depth: int) -> None:
    key, value = "", None
    for tag, start, stop in _fields(payload, at, end):
        if tag == _FIRST:
            key = payload[start:stop].decode("utf-8", "replace")
        elif tag == _SECOND:
            value = _value(payload, start, stop, depth)
    into[key] = value


def _value(payload: bytes, at: int, end: int, depth: int) -> Any:
    """An AnyValue as a plain value."""
    if depth > MAX_DEPTH:
        raise UnreadableError("payload: nested too deeply")
    value: Any = None
    if end - at > 1 and payload[at] == 0x0A and payload[at + 1] == end - at - 2 < 0x80:
        return payload[at + 2 : end].decode("utf-8", "replace")  # a short string, as most are
    for tag, start, stop in _fields(payload, at, end):
        if tag == 0x0A:
            value = _text(payload, start, stop)
        elif tag == 0x10:
            value = bool(start)
        elif tag == 0x18:
            value = start - (1 << 64) if start >= 1 << 63 else start
        elif tag == 0x21:
            value = struct.unpack_from("<d", payload, start)[0]
        elif tag == 0x2A:
            value = [
                _value(payload, first, last, depth + 1)
                for each, first, last in _fields(payload, start, stop)
                if each == _FIRST
            ]
        elif tag == 0x32:
            value = _attributes(payload, start, stop, _FIRST, depth + 1)
        elif tag == 0x3A:
            value = base64.b64encode(payload[start:stop]).decode()
    return value


def _text(payload: bytes, at: int, end: int) -> str:
    return payload[at:end].decode("utf-8", "replace")
