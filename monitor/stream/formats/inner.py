"""Text within strings: JSON, server-sent events, base64.

Contract: functions take any string and never raise; what is not of the kind is None (or an empty list).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from monitor.stream.formats.reading import DUPLICATE_KEYS

# Lines of base64 are long. Possessive: nothing is tried twice.
_BLOB = re.compile(r"(?:[A-Za-z0-9+/_\-]{60,}+\r?\n)*+[A-Za-z0-9+/_\-]*+={0,2}\s*+")
_DIGITS, _CAPITALS, _DASHES = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"+/-_"
_DATA_URI = re.compile(r"data:([^;,]{0,128})((?:;[^;,]{0,64}){0,4}),", re.ASCII)
_LINE = re.compile(r"\r\n|\n|\r")
_PROBE = 400
# Characters of a comment or an id among events.
_SHORT = 128
_BLANK = "\ufeff \t\r\n"


def loads(text: str, notes: list[str] | None = None) -> Any:
    """The JSON value of a string; None where it is not JSON. Lone surrogates become U+FFFD. A field that is named twice
    is noted."""
    twice = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        made = dict(items)
        if len(made) != len(items):
            twice = True
        return made

    try:
        value = json.loads(text) if notes is None else json.loads(text, object_pairs_hook=pairs)
        if "\\ud" in text or "\\uD" in text:
            value = without_surrogates(value)
    except (ValueError, RecursionError):
        return None
    if twice and notes is not None and DUPLICATE_KEYS not in notes:
        notes.append(DUPLICATE_KEYS)
    return value


def without_surrogates(value: Any) -> Any:
    """Lone surrogates, which UTF-8 has not, become U+FFFD, in keys too. Raises RecursionError."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_surrogates(each) for each in value]
    return value


def structure(text: str, notes: list[str] | None = None, whole: bool = False) -> Any:
    """The object or array that a string holds as JSON, events or JSON lines; None where it holds none. JSON that was
    written as a string into a string is such a one too. `whole`: None as well where a line of events would be lost."""
    text = text.lstrip(_BLANK)
    if text.startswith('"'):
        once = loads(text)
        text = once.lstrip(_BLANK) if isinstance(once, str) else ""
    if text.startswith(("data:", "event:", ":", "id:", "retry:")):
        return events(text, notes, whole) or None
    if not text.startswith(("{", "[")):
        return None
    value = loads(text, notes)
    if value is None and "\n" in text:
        lines = []
        for line in text.split("\n"):
            each = loads(line, notes) if line.strip() else None
            if isinstance(each, dict):
                lines.append(each)
            elif line.strip():
                return None
        return lines or None
    return value if isinstance(value, dict | list) else None


def events(text: str, notes: list[str] | None = None, strict: bool = False) -> list[dict[str, Any]]:
    """The objects of server-sent events, in order. The type of an event that has none comes from its event field.
    `strict`: none at all where a line is no event's, or holds what is not JSON."""
    found: list[dict[str, Any]] = []
    kind: str | None = None
    data: list[str] = []
    # Not splitlines: JSON may hold U+2028 and the like as they are.
    for line in [*_LINE.split(text), ""]:
        if line.startswith("data:"):
            data.append(line[5:].lstrip())
        elif line.startswith("event:"):
            kind = line[6:].strip()
        elif not line.strip() and data:
            # One event has one object over several lines, or (by careless writers) one object a line.
            whole = loads("\n".join(data), notes)
            for value in [whole] if isinstance(whole, dict) else [loads(each, notes) for each in data]:
                if strict and not isinstance(value, dict) and any(each.strip() != "[DONE]" for each in data):
                    return []
                if isinstance(value, dict):
                    if kind and "type" not in value and len(kind) <= 64 and "choices" not in value:
                        value["type"] = kind
                    found.append(value)
            kind, data = None, []
        elif strict and line.strip() and not (line.startswith((":", "id:", "retry:")) and len(line) <= _SHORT):
            return []
    return found


def is_blob(text: str) -> bool:
    """Whether a string looks like base64: long, in long lines, with its mixture of characters: words with dashes have
    few capitals and digits, and many dashes."""
    if len(text) < 256:
        return False
    start = text.find(";base64,", 0, 256) if text.startswith("data:") else -1
    if start >= 0:
        return _BLOB.fullmatch(text, start + 8) is not None
    if _BLOB.fullmatch(text) is None:
        return False
    data = text.encode()
    digits, capitals, dashes = (len(data) - len(data.translate(None, which)) for which in (_DIGITS, _CAPITALS, _DASHES))
    return digits * 33 >= len(data) and capitals * 7 >= len(data) and dashes * 10 <= len(data)


def inline_text(data: str) -> str | None:
    """The text of a file that is given as base64, as a data URI or as it is; None where its bytes are no text."""
    uri = _DATA_URI.match(data)
    if uri:
        if ";base64" not in uri.group(2):
            return data[uri.end() :]
        data = data[uri.end() :]
    if not data.isascii():
        return data
    if not uri and any(character.isspace() for character in data.strip()[:_PROBE]) and not is_blob(data):
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
