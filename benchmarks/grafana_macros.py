"""Expands a query as Grafana does before it reaches the data source: variables, and the macros of PostgreSQL.

Written after Grafana's documentation, for tests and measurements without a Grafana. Knows the formats and macros that
the dashboards use, and refuses all others by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

ALL = "$__all"


@dataclass(frozen=True)
class View:
    """The state of a dashboard: time range, values of variables (`ALL` for all), points in the range."""

    since: datetime
    until: datetime
    values: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    points: int = 1000

    def interval(self, least: str | None) -> timedelta:
        """Time between two points, not shorter than the panel's minimum."""
        step = (self.until - self.since) / self.points
        return max(step, timedelta(seconds=seconds(least or "1s")))


def seconds(duration: str) -> float:
    found = re.fullmatch(r"([0-9.]+)(ms|s|m|h|d)", duration)
    assert found, duration
    return float(found[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from dashboard["panels"]


def targets(dashboard: Mapping[str, Any], kind: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(panel, target) of one kind of data source."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            if target["datasource"]["type"] == kind:
                yield panel, target


def expanded(query: str, dashboard: Mapping[str, Any], view: View, least: str | None = None) -> str:
    """SQL or PromQL as the data source receives it. Raises ValueError for an unknown format or macro."""
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    step = max(1, round(view.interval(least).total_seconds()))

    def value(match: re.Match[str]) -> str:
        name, how = match[1] or match[3], match[2]
        if name.startswith("__"):
            return match[0]
        return _value(variables[name], view.values.get(name), how)

    text = re.sub(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)", value, query)
    for name, becomes in {
        "$__rate_interval": f"{max(60, 4 * step)}s",
        "$__range": f"{round((view.until - view.since).total_seconds())}s",
        "$__interval": f"{step}s",
    }.items():
        text = text.replace(name, becomes)
    text = re.sub(r"\$__(\w+)\(([^()]*)\)", lambda m: _macro(m[1], [a.strip() for a in m[2].split(",")], view), text)
    if "$__" in text or "${" in text:
        raise ValueError(f"not expanded: {text}")
    return text


def _value(variable: Mapping[str, Any], chosen: str | Sequence[str] | None, how: str | None) -> str:
    if chosen is None:
        chosen = ALL if variable.get("includeAll") else ""
    if chosen == ALL:
        # SQL or a pattern of the dashboard: Grafana does not quote it.
        return str(variable["allValue"])
    values = [chosen] if isinstance(chosen, str) else list(chosen)
    if how == "sqlstring":
        return ",".join("'" + v.replace("'", "''") + "'" for v in values)
    if how == "regex":
        return "|".join(re.escape(v) for v in values)
    raise ValueError(f"variable {variable['name']}: format {how} is not known here")


def _macro(name: str, arguments: list[str], view: View) -> str:
    since, until = (f"'{t.isoformat()}'" for t in (view.since, view.until))
    if name == "timeFilter":
        return f"{arguments[0]} BETWEEN {since} AND {until}"
    if name in ("timeFrom", "timeTo"):
        return since if name == "timeFrom" else until
    if name in ("timeGroup", "timeGroupAlias"):
        step = f"{seconds(arguments[1].strip(chr(39))):g}"
        grouped = f"floor(extract(epoch from {arguments[0]})/{step})*{step}"
        return grouped + (' AS "time"' if name.endswith("Alias") else "")
    raise ValueError(f"macro $__{name} is not known here")
