"""Text within strings: JSON, server-sent events, base64.

Contract: functions take any string and never raise; what is not of the kind is None (or an empty list).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

_BLOB = re.compile(r"[A-Za-z0-9+/_\-\r\n]{256,}={0,2}\s*")
_DATA_URI = re.compile(r"data:([^;,]{0,128})((?:;[^;,]{0,64}){0,4}),", re.ASCII)
_PROBE = 400


def loads(text: str) -> Any:
    """The JSON value of a string; None where it is not JSON. Lone surrogates become U+FFFD."""
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            value = json.loads(
                json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            )
    except (ValueError, RecursionError):
        return None
    return value


def structure(text: str) -> Any:
    """The object or array that a string holds as JSON, events or JSON lines; None where it holds none."""
    head = text[:64].lstrip()
    if head.startswith(("data:", "event:", ":", "id:", "retry:")):
        return events(text) or None
    if not head.startswith(("{", "[")):
        return None
    value = loads(text)
    if value is None and "\n" in text:
        lines = []
        for line in text.splitlines():
            each = loads(line) if line.strip() else None
            if isinstance(each, dict):
                lines.append(each)
            elif line.strip():
                return None
        return lines or None
    return value if isinstance(value, dict | list) else None


def events(text: str) -> list[dict[str, Any]]:
    """The objects of server-sent events, in order. The type of an event that has none comes from its event field."""
    found: list[dict[str, Any]] = []
    kind: str | None = None
    data: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("data:"):
            data.append(line[5:].lstrip())
        elif line.startswith("event:"):
            kind = line[6:].strip()
        elif not line.strip() and data:
            # One event has one object over several lines, or (by careless writers) one object a line.
            whole = loads("\n".join(data))
            for value in [whole] if isinstance(whole, dict) else [loads(each) for each in data]:
                if isinstance(value, dict):
                    if kind and "type" not in value and len(kind) <= 64 and "choices" not in value:
                        value["type"] = kind
                    found.append(value)
            kind, data = None, []
    return found


def is_blob(text: str) -> bool:
    """Whether a string looks like base64: long, and of its characters only."""
    return len(text) >= 256 and (
        (text.startswith("data:") and ";base64," in text[:256]) or _BLOB.fullmatch(text) is not None
    )


def inline_text(data: str) -> str | None:
    """The text of a file that is given as base64, as a data URI or as it is; None where its bytes are no text."""
    uri = _DATA_URI.match(data)
    if uri:
        if ";base64" not in uri.group(2):
            return data[uri.end() :]
        data = data[uri.end() :]
    elif any(character.isspace() for character in data.strip()[:_PROBE]) and not is_blob(data):
        return data
    head = _bytes("".join(data[: 2 * _PROBE].split())[: _PROBE // 4 * 4])
    if head is None or b"\x00" in head or head.startswith((b"%PDF", b"PK\x03\x04")):
        return None
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The cut may be within a character.
        if error.start < len(head) - 3:
            return None
    whole = _bytes(data)
    if whole is None:
        return None
    try:
        return whole.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _bytes(data: str) -> bytes | None:
    plain = data.strip().translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        return None
