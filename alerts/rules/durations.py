"""Durations as people write them: `90s`, `10m`, `1h30m`, `2d`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_WRITTEN = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?")


def parse_duration(written: object) -> timedelta:
    """ValueError says how it is written."""
    match = _WRITTEN.fullmatch(written) if isinstance(written, str) and written else None
    if match is None:
        raise ValueError(f"{written!r} is no duration; write for example 90s, 10m, 1h30m or 2d")
    return timedelta(**{name: int(n) for n, name in zip(match.groups(), _UNITS.values(), strict=True) if n})


def format_duration(value: timedelta) -> str:
    """The shortest way to write it, fractions of a second left out."""
    left, parts = int(value.total_seconds()), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        n, left = divmod(left, size)
        parts += [f"{n}{unit}"] if n else []
    return "".join(parts) or "0s"
