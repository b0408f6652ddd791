"""An OTLP request into records that a topic takes: whole, or by its spans or log records where it is large.

Contract: `split_request` gives the body as it came where it is at most SPLIT_BYTES; else several requests of the same
form that hold the same spans or log records, each with its resource and scope, each as small as whole spans allow. A
body that is not well formed stays whole. An empty request is no record.

OTLP's trace and log requests are built alike: field 1 of a request repeats a resource's data, whose field 2 repeats a
scope's data, whose field 2 repeats spans or records; the other fields describe resource and scope.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

# Below the 1 MiB that a topic takes unless told otherwise.
SPLIT_BYTES = 900_000

_MAX_VARINT_BYTES = 10
# JSON's names of the same fields.
_RESOURCES = ("resourceSpans", "resourceLogs")
_SCOPES = ("scopeSpans", "scopeLogs")
_ITEMS = ("spans", "logRecords")


def split_request(body: bytes, is_json: bool, limit: int = SPLIT_BYTES) -> list[bytes]:
    """The requests to write."""
    if not body.strip() or (is_json and body.strip() == b"{}"):
        return []
    if len(body) <= limit:
        return [body]
    try:
        pieces = list(_json_pieces(body, limit) if is_json else _pieces(body, limit))
    except (ValueError, RecursionError):
        return [body]
    return pieces or [body]


def _pieces(body: bytes, limit: int) -> Iterator[bytes]:
    """Raises ValueError for what is no protobuf of this form."""
    parts: list[bytes] = []
    size = 0
    for number, resource in _fields(body):
        if number != 1:
            raise ValueError
        for part in [resource] if len(resource) <= limit else _narrowed(resource, limit, 2):
            if parts and size + len(part) > limit:
                yield b"".join(parts)
                parts, size = [], 0
            parts.append(_field(1, part))
            size += len(part)
    if parts:
        yield b"".join(parts)


def _narrowed(message: bytes, limit: int, depth: int) -> Iterator[bytes]:
    """A resource's (depth 2) or a scope's (depth 1) data as several, which share what describes it."""
    fields = list(_raw_fields(message))
    shared = b"".join(raw for number, raw, _ in fields if number != 2)
    parts: list[bytes] = []
    size = 0
    for number, raw, content in fields:
        if number != 2:
            continue
        large = depth > 1 and len(raw) + len(shared) > limit
        for part in (
            [_field(2, each) for each in _narrowed(content, limit - len(shared), depth - 1)] if large else [raw]
        ):
            if parts and size + len(part) + len(shared) > limit:
                yield shared + b"".join(parts)
                parts, size = [], 0
            parts.append(part)
            size += len(part)
    yield shared + b"".join(parts)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    for number, _, content in _raw_fields(message):
        yield number, content


def _raw_fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, the field as it is, its content) of each field; the content of other than bytes is empty."""
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        content = b""
        if kind == 2:
            length, at = _varint(message, at)
            content = message[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError
        if at > len(message):
            raise ValueError
        if tag >> 3 == 2 and kind != 2:
            raise ValueError
        yield tag >> 3, message[begin:at], content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(_MAX_VARINT_BYTES):
        if at >= len(message):
            raise ValueError
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            return value, at
    raise ValueError


def _field(number: int, content: bytes) -> bytes:
    length = len(content)
    made = bytearray([number << 3 | 2])
    while length > 0x7F:
        made.append(length & 0x7F | 0x80)
        length >>= 7
    made.append(length)
    return bytes(made) + content


def _json_pieces(body: bytes, limit: int) -> Iterator[bytes]:
    request = json.loads(body)
    resources = next((name for name in _RESOURCES if isinstance(request.get(name), list)), None)
    if resources is None or len(request) != 1:
        raise ValueError
    parts: list[bytes] = []
    size = 0
    for part in (each for resource in request[resources] for each in _json_resources(resource, limit)):
        if parts and size + len(part) > limit:
            yield _joined(resources, parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        yield _joined(resources, parts)


def _json_resources(resource: Any, limit: int) -> Iterator[bytes]:
    """A resource's data, as one with each of its spans where it is large."""
    whole = _dumped(resource)
    scopes = next((name for name in _SCOPES if isinstance(resource, dict) and name in resource), None)
    if len(whole) <= limit or scopes is None:
        yield whole
        return
    for scope in resource[scopes]:
        items = next((name for name in _ITEMS if isinstance(scope, dict) and name in scope), None)
        for item in scope[items] if items is not None else [None]:
            own = scope if items is None else {**scope, items: [item]}
            yield _dumped({**resource, scopes: [own]})


def _joined(name: str, parts: list[bytes]) -> bytes:
    return b'{"%s":[%s]}' % (name.encode(), b",".join(parts))


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
