"""One body into records: the elements of a JSON array, the lines of NDJSON, or the whole.

Contract: nothing is parsed and nothing is dropped: `split` cuts the bytes as they came, and every byte but white space,
the array's own brackets and commas and the line breaks is in one record. What is not well formed goes on whole, or line
by line, so that the worker makes an `invalid` row of it. An array that is itself one conversation (its first element
has a role) stays whole. Over MAX_RECORDS a request is refused (413), before they are made.
"""

from __future__ import annotations

import re

from monitor.ingest.refused import RefusedError

MAX_RECORDS = 10_000

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# Up to the next bracket; then up to the next comma or bracket. Possessive: never looks back, whatever comes.
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_TO_COMMA = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[\]{},])", re.DOTALL)
# A quote within a string has a backslash before it, so this is a field's name.
_ROLE = re.compile(rb'"role"\s*+:')
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")


def split(body: bytes, content_type: str) -> list[bytes]:
    """At least one record, unless the body is blank. Raises RefusedError."""
    body = body.removeprefix(_BOM).strip(_BLANK)
    if not body:
        return []
    if content_type in _LINES:
        return _lines(body)
    if body[:1] == b"[":
        return _elements(body) or [body]
    end = _end_of_value(body, 0)
    first = body.find(b"\n")
    # Lines under another content type: the first one is a whole object, and there is more.
    if end is not None and end < len(body) and first >= 0 and not body[end:first].strip(_BLANK):
        return _lines(body)
    return [body]


def _lines(body: bytes) -> list[bytes]:
    if body.count(b"\n") >= 4 * MAX_RECORDS:
        raise _too_many()
    lines = [stripped for line in body.split(b"\n") if (stripped := line.strip(_BLANK))]
    if len(lines) > MAX_RECORDS:
        raise _too_many()
    return lines


def _elements(body: bytes) -> list[bytes]:
    """The elements of an array; none where it is empty, not well formed, or a conversation."""
    found: list[bytes] = []
    start = at = 1
    while (match := _TO_COMMA.match(body, at)) is not None:
        at = match.end()
        mark = match[1]
        if mark in (b"[", b"{"):
            end = _end_of_value(body, at - 1)
            if end is None:
                return []
            at = end
            continue
        element = body[start : at - 1].strip(_BLANK)
        if not element and (mark == b"," or found):
            return []
        if element:
            if not found and _has_role(element):
                return []
            found.append(element)
            if len(found) > MAX_RECORDS:
                raise _too_many()
        if mark != b",":
            return found if mark == b"]" and at == len(body) else []
        start = at
    return []


def _has_role(element: bytes) -> bool:
    """Whether an object has a field `role` of its own."""
    at = 1 if element[:1] == b"{" else None
    while at is not None and (match := _TO_BRACKET.match(element, at)) is not None:
        if _ROLE.search(element, at, match.start(1)) is not None:
            return True
        at = _end_of_value(element, match.start(1))
    return False


def _end_of_value(body: bytes, at: int) -> int | None:
    """Where the object or array that begins at `at` ends; None where it does not."""
    if body[at : at + 1] not in (b"{", b"["):
        return None
    depth = 0
    while (match := _TO_BRACKET.match(body, at)) is not None:
        at = match.end()
        depth += 1 if match[1] in (b"[", b"{") else -1
        if depth == 0:
            return at
    return None


def _too_many() -> RefusedError:
    return RefusedError(413, f"more than {MAX_RECORDS} messages in one request; send fewer at once")
