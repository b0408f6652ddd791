"""Spans and log records of an OTLP request, from JSON or protobuf, in one form.

Contract: `entries(value)` goes through the request in order, spans first, and raises for what is in it only where it is
too much: nesting that is too deep (RecursionError), over MAX_RECORDS records (UnreadableError). Ids are lower-case hex,
as OTLP's JSON has them; protobuf's own JSON (base64 ids, names with underscores) is read too. Attributes are plain
values.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from monitor.stream.formats.draft import UnreadableError

MAX_RECORDS = 50_000
TOO_MANY = f"payload: OTLP of over {MAX_RECORDS} spans or log records"
Attributes = dict[str, Any]

_SPANS = ("resourceSpans", "scopeSpans", "spans")
_LOGS = ("resourceLogs", "scopeLogs", "logRecords")
ROOTS = ("resourceSpans", "resource_spans", "resourceLogs", "resource_logs", "resourceMetrics", "resource_metrics")
# base64 of 16 and of 8 bytes.
_BASE64_SIZES = (24, 12)


@dataclass(slots=True)
class Entry:
    """A span with its events, or a log record, which is one event. `time` is in nanoseconds since 1970."""

    is_log: bool
    name: str
    attributes: Attributes
    resource: Attributes
    trace_id: str | None = None
    span_id: str | None = None
    time: Any = None
    body: Any = None
    events: list[tuple[str, Attributes]] = field(default_factory=list)


def entries(value: dict[str, Any]) -> Iterator[Entry]:
    """All spans and log records of a request as `otlp_protobuf.decode` or JSON gives it."""
    number = 0
    for root, scope, leaf in (_SPANS, _LOGS):
        is_log = root == "resourceLogs"
        for resource in _list(_get(value, root)):
            about: Attributes | None = None
            for scoped in _list(_get(resource, scope)):
                for each in _list(_get(scoped, leaf)):
                    number += 1
                    if number > MAX_RECORDS:
                        raise UnreadableError(TOO_MANY)
                    if not isinstance(each, dict):
                        continue
                    if about is None:
                        about = _attributes(_get(_get(resource, "resource"), "attributes"))
                    yield _log(each, about) if is_log else _span(each, about)


def _span(raw: dict[str, Any], resource: Attributes) -> Entry:
    events = _list(raw.get("events"))
    return Entry(
        False,
        _text(raw.get("name")),
        _attributes(raw.get("attributes")),
        resource,
        _hex(_get(raw, "traceId")),
        _hex(_get(raw, "spanId")),
        _get(raw, "startTimeUnixNano"),
        None,
        [(_text(e.get("name")), _attributes(e.get("attributes"))) for e in events if isinstance(e, dict)],
    )


def _log(raw: dict[str, Any], resource: Attributes) -> Entry:
    attributes = _attributes(raw.get("attributes"))
    time = _get(raw, "timeUnixNano")
    return Entry(
        True,
        _text(_get(raw, "eventName")) or _text(attributes.get("event.name")),
        attributes,
        resource,
        _hex(_get(raw, "traceId")),
        _hex(_get(raw, "spanId")),
        _get(raw, "observedTimeUnixNano") if time in (None, 0, "0", "") else time,
        _plain(raw.get("body")),
    )


def _attributes(raw: Any) -> Attributes:
    if isinstance(raw, dict):  # not OTLP, but what some exporters write
        return raw
    made: Attributes = {}
    for each in _list(raw):
        if isinstance(each, dict) and isinstance(each.get("key"), str):
            made[each["key"]] = _plain(each.get("value"))
    return made


def _plain(value: Any) -> Any:
    """An AnyValue as a plain value; what is none stays as it is."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, held),) = value.items()
    if kind in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        return held
    if kind == "intValue":
        return int(held) if isinstance(held, str) and held.lstrip("-").isdecimal() and len(held) < 21 else held
    if kind == "arrayValue":
        return [_plain(each) for each in _list(_get(held, "values"))]
    if kind == "kvlistValue":
        return _attributes(_get(held, "values"))
    if "_" in kind and kind.endswith("_value"):
        first, *rest = kind.split("_")
        camel = first + "".join(part.capitalize() for part in rest)
        return _plain({camel: held}) if camel != kind else value
    return value


def _get(place: Any, name: str) -> Any:
    """A field by its name in JSON, else by its name in protobuf."""
    if not isinstance(place, dict):
        return None
    if name in place:
        return place[name]
    return place.get("".join("_" + c.lower() if c.isupper() else c for c in name)) if not name.islower() else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _hex(value: Any) -> str | None:
    """An id in hex; None where it is none or all zeros."""
    if not isinstance(value, str) or not value:
        return None
    if len(value) in _BASE64_SIZES and value.endswith("="):
        try:
            decoded = base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error):
            return value
        return decoded.hex() if any(decoded) else None
    return value.lower() if value.strip("0") else None
