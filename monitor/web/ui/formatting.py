"""Template filters for times, numbers and names. Pure; text from traffic is escaped by Jinja."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from alerts.rules.durations import format_duration
from alerts.text import decided, printable, summary
from storage.coordinates import Coordinates

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def when(at: datetime | str | None) -> str:
    """In UTC, to the second; a time that has no such form (PostgreSQL's text of it) as it is."""
    if isinstance(at, str):
        return f"{printable(at)} (outside the years 1 to 9999)"
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
    """Coordinates as SOURCE/PARTITION/OFFSET[.SUB], as `awry messages show` takes them."""
    return printable(str(_coordinates(message)))


def place_url(message: Mapping[str, Any]) -> str:
    """The address of a message's page."""
    at = _coordinates(message)
    return f"/messages/{quote(at.source, safe='')}/{str(at)[len(at.source) + 1 :]}"


def _coordinates(message: Mapping[str, Any]) -> Coordinates:
    # Alerts from before `sub`, and references to the only message of a record, do not have it.
    return Coordinates(str(message["source"]), message["partition"], message["offset"], message.get("sub") or 0)


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
    if not isinstance(figure, Mapping) or not isinstance(figure.get("value"), int | float):
        return "too few"
    n = f", n {figure['n']}" if figure.get("n") is not None else ""
    ends = (figure.get("low"), figure.get("high"))
    between = f" [{ends[0]:.3g}, {ends[1]:.3g}]" if all(isinstance(end, int | float) for end in ends) else ""
    return f"{figure['value']:.3g}{between}{n}"


FILTERS = {
    "when": when,
    "lasting": lasting,
    "percent": percent,
    "place": place,
    "place_url": place_url,
    "decided": decided,
    "sentence": sentence,
    "interval": interval,
    "printable": printable,
    "duration": format_duration,
}
