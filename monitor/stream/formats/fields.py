"""Side fields as they are stored: names, times, attributes. A bad one is dropped with a note; none costs a message.

Contract: functions take whatever JSON holds and never raise. Notes name the field and the fault, and quote nothing.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

# Characters and bytes of a name: indexes of PostgreSQL hold no row over 2,704 bytes, and one has two names.
MAX_NAME = 512
MAX_NAME_BYTES = 1000
# Levels of lists and objects in an attribute.
MAX_DEPTH = 32

# From these on a number of seconds is one of milliseconds, microseconds, nanoseconds.
_MILLI, _MICRO, _NANO = 2e10, 2e13, 2e16
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_NUMBER = re.compile(r"\d{1,19}(\.\d{1,9})?")


def name(value: Any, field: str, notes: list[str]) -> str | None:
    """A name or an id; numbers become strings. None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        notes.append(f"{field}: dropped, not a string")
        return None
    if not isinstance(value, str):
        if isinstance(value, float) and not math.isfinite(value):
            notes.append(f"{field}: dropped, not a finite number")
            return None
        if isinstance(value, int) and value.bit_length() > 256:
            notes.append(f"{field}: dropped, a number of too many digits")
            return None
        notes.append(f"{field}: a number, taken as a string")
        return str(value)
    if len(value) > MAX_NAME or (not value.isascii() and len(value.encode("utf-8", "replace")) > MAX_NAME_BYTES):
        notes.append(f"{field}: dropped, over {MAX_NAME} characters or {MAX_NAME_BYTES} bytes")
        return None
    if not value.strip():
        return None
    return value


def time(value: Any, field: str, notes: list[str]) -> datetime | None:
    """A time in UTC, from ISO 8601 (without a zone: UTC) or a number of seconds, milli-, micro- or nanoseconds."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, str):
            when = datetime.fromisoformat(value)
            when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            size = abs(value)
            unit = 1e9 if size >= _NANO else 1e6 if size >= _MICRO else 1e3 if size >= _MILLI else 1
            when = datetime.fromtimestamp(value / unit, UTC)
        else:
            raise TypeError
    except (ValueError, TypeError, OverflowError, OSError):
        notes.append(f"{field}: dropped, not a time")
        return None
    if not _FIRST <= when <= _LAST:
        notes.append(f"{field}: dropped, out of range")
        return None
    return when


def attributes(values: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Those that JSON in PostgreSQL can hold: not nested too deeply, no number that is not finite."""
    if all(value is None or isinstance(value, str | bool | int) for value in values.values()):
        kept = {key: value for key, value in values.items() if not _huge(value)}
    else:
        kept = {key: value for key, value in values.items() if storable(value)}
    if len(kept) < len(values):
        notes.append("attributes: some dropped, nested too deeply or not finite")
    return kept


def storable(value: Any) -> bool:
    """Whether a value is within MAX_DEPTH levels and holds finite numbers only."""
    waiting = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if (isinstance(part, float) and not math.isfinite(part)) or _huge(part):
            return False
        if isinstance(part, dict | list):
            if depth > MAX_DEPTH:
                return False
            waiting += [(inner, depth + 1) for inner in (part.values() if isinstance(part, dict) else part)]
    return True


def _huge(value: Any) -> bool:
    # PostgreSQL's numeric has limits too, and Python refuses to print what is over 4,300 digits.
    return isinstance(value, int) and value.bit_length() > 4096
