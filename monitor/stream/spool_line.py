"""A message in the spool: one line, a JSON object, as `encode_line` writes and `decode_line` reads it.

    {"time": 1790000000000, "headers": {"ce_id": "a"}, "payload": {"prompt": "..."}}
    {"headers": {}, "payload_base64": "..."}

`payload` is the message as it came, byte for byte, where it is JSON in one line; other payloads, and JSON that is
broken over lines, are in base64. `time` is when it was received, in milliseconds since 1970; it may be missing. A
header's value is text, or {"base64": "..."}; of a header that comes twice the value is a list of those.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

Headers = Sequence[tuple[str, bytes]]
_PAYLOAD = b', "payload": '
# What stands, filled up with spaces, where a message was erased.
ERASED_LINE = b'{"erased": true}'


class SpoolLine(NamedTuple):
    payload: bytes
    headers: tuple[tuple[str, bytes], ...]
    received: datetime | None


def encode_line(payload: bytes, headers: Headers = (), received: datetime | None = None) -> bytes:
    """Without its newline."""
    fields: dict[str, Any] = {"time": int(received.timestamp() * 1000)} if received is not None else {}
    fields["headers"] = _headers(headers)
    if not _is_one_json_line(payload):
        fields["payload_base64"] = base64.b64encode(payload).decode()
        return json.dumps(fields).encode()
    return json.dumps(fields)[:-1].encode() + _PAYLOAD + payload + b"}"


def decode_line(line: bytes) -> SpoolLine:
    """ValueError where it is no line of a spool."""
    fields, payload = _split(line)
    if payload is None:
        if isinstance(fields.get("payload_base64"), str):
            payload = base64.b64decode(fields["payload_base64"], validate=True)
        elif "payload" in fields:  # written by another hand, in another order
            payload = json.dumps(fields["payload"], ensure_ascii=False).encode("utf-8", "surrogatepass")
        else:
            raise ValueError("no payload")
    given, time = fields.get("headers", {}), fields.get("time")
    if not isinstance(given, dict):
        raise ValueError("headers is no object")
    headers = tuple(
        (name, _value(each))
        for name, value in given.items()
        for each in (value if isinstance(value, list) else [value])
    )
    return SpoolLine(payload, headers, _moment(time))


def _split(line: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The fields, and the payload as it stands where the line is as `encode_line` writes it."""
    at = line.find(_PAYLOAD) if line.endswith(b"}") else -1
    while at > 0:
        try:
            fields = json.loads(line[:at] + b"}")
        except ValueError:  # the name of a header
            at = line.find(_PAYLOAD, at + 1)
            continue
        if isinstance(fields, dict) and "payload_base64" not in fields:
            return fields, line[at + len(_PAYLOAD) : -1]
        break
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("no object")
    return fields, None


def _is_one_json_line(payload: bytes) -> bool:
    if b"\n" in payload:
        return False
    try:
        json.loads(payload.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _headers(headers: Headers) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in headers:
        try:
            written: Any = value.decode("utf-8")
        except UnicodeDecodeError:
            written = {"base64": base64.b64encode(value).decode()}
        if name not in result:
            result[name] = written
        elif isinstance(result[name], list):
            result[name].append(written)
        else:
            result[name] = [result[name], written]
    return result


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        return base64.b64decode(value["base64"], validate=True)
    raise ValueError("a header is no text")


def _moment(time: Any) -> datetime | None:
    if isinstance(time, bool) or not isinstance(time, int | float):
        return None
    try:
        return datetime.fromtimestamp(time / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
