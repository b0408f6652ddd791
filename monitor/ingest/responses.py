"""What clients are answered: OTLP in the encoding of its request, everything else in JSON.

Contract: an OTLP success is an empty ExportTraceServiceResponse or ExportLogsServiceResponse, which in protobuf is no
byte at all and in JSON `{}`; an OTLP error is a google.rpc.Status. Other errors are RFC 9457 problem+json, as the HTTP
API's. No response repeats what a client sent.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
PROBLEM = "application/problem+json"

# google.rpc.Code; clients go by the HTTP status.
_CODES = {400: 3, 401: 16, 403: 7, 408: 4, 413: 3, 415: 3, 429: 8, 503: 14}
_INTERNAL = 13
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def exported(media_type: str) -> Response:
    """The success of an OTLP request."""
    return _response(200, b"" if media_type == PROTOBUF else b"{}", media_type)


def accepted(number: int) -> Response:
    """The success of any other request: how many messages are safe."""
    return _response(200, b'{"accepted":%d}' % number, JSON)


def document(value: Any) -> Response:
    """The success of a request that is answered with a JSON document."""
    return _response(200, json.dumps(value).encode(), JSON)


def otlp_error(media_type: str, status: int, detail: str, headers: dict[str, str]) -> Response:
    code = _CODES.get(status, _INTERNAL)
    if media_type == PROTOBUF:
        message = detail.encode()[:1000]
        # Field 1: the code, a varint. Field 2: the message, with its length as a varint of up to two bytes.
        size = bytes([len(message)] if len(message) < 128 else [len(message) & 0x7F | 0x80, len(message) >> 7])
        return _response(status, b"\x08" + bytes([code]) + b"\x12" + size + message, PROTOBUF, headers)
    return _response(status, json.dumps({"code": code, "message": detail}).encode(), JSON, headers)


def problem(status: int, detail: str, headers: dict[str, str]) -> Response:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return _response(status, json.dumps(body).encode(), PROBLEM, headers)


def _response(status: int, body: bytes, media_type: str, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers={"Content-Type": media_type, **_HEADERS, **(headers or {})})
