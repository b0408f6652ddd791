"""Template filters for times, numbers and names. Pure; text from traffic is escaped by Jinja."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from alerts.rules.durations import format_duration
from alerts.text import printable, summary

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def when(at: datetime | None) -> str:
    """In UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at is not None else ""


def ago(at: datetime | None, now: datetime) -> str:
    """How long before `now`, in one unit."""
    return "never" if at is None else f"{lasting(max(0.0, (now - at).total_seconds()))} ago"


def lasting(seconds: float | None) -> str:
    """A span of time, in one unit."""
    if seconds is None:
        return "unknown"
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def percent(share: float | None) -> str:
    """A share; below 0.1 % with more digits."""
    if share is None:
        return "none"
    return f"{share:.1%}" if share == 0 or share >= 0.001 else f"{share:.3%}"


def place(message: Mapping[str, Any]) -> str:
    """Coordinates as SOURCE/PARTITION/OFFSET, as `awry messages show` takes them."""
    return printable(f"{message['source']}/{message['partition']}/{message['offset']}")


def place_url(message: Mapping[str, Any]) -> str:
    """The address of a message's page."""
    return f"/messages/{quote(str(message['source']), safe='')}/{message['partition']}/{message['offset']}"


def sentence(alert: Mapping[str, Any]) -> str:
    """An alert in one line."""
    return summary({**alert, "score": alert["top_score"]})


def changed(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """The changed fields of an audit row."""
    old, new = dict(before or {}), dict(after or {})
    fields = [
        f"{name} {old[name]} → {new[name]}" if name in old and old[name] != new[name] else f"{name} {new[name]}"
        for name in sorted(new)
        if name not in old or old[name] != new[name]
    ]
    return printable(", ".join(fields))


def interval(figure: Any) -> str:
    """A figure of a card with its interval; `too few` where it has no value."""
    if not isinstance(figure, Mapping) or figure.get("value") is None:
        return "too few"
    n = f", n {figure['n']}" if figure.get("n") is not None else ""
    return f"{figure['value']:.3g} [{figure['low']:.3g}, {figure['high']:.3g}]{n}"


FILTERS = {
    "when": when,
    "lasting": lasting,
    "percent": percent,
    "place": place,
    "place_url": place_url,
    "sentence": sentence,
    "interval": interval,
    "printable": printable,
    "duration": format_duration,
}
