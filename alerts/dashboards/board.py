"""A dashboard made of panels: grid positions, variables, links to the other dashboards, annotations.

Contract: `dashboard(uid, title, ..., rows)` returns the whole JSON, with panel ids by position, so that the same code
makes the same file. A row is (height, [(width, panel), ...]); a screen is 24 units wide and about 30 high.

The variables have the same names and meanings on every dashboard, since links pass them on. For `tenant` and `model`,
'' stands for messages that name none. "All" is not a list of values, which might be long or empty, but one constant
(`ALL`) by which the query planner sees that a condition (`matches`) holds for every row.
"""

from __future__ import annotations

from collections.abc import Sequence

from alerts.dashboards.panels import POSTGRES, Json, column

FOLDER_UID, FOLDER = "awry", "awry"
OVERVIEW, PROBE, INVESTIGATE, WORKER = "awry-overview", "awry-probe", "awry-investigate", "awry-worker"
TAG = "awry"
SCHEMA_VERSION = 42

ALL = "'(all)'"


def coordinates(of: str = "") -> str:
    """SQL: the coordinates of a row as one string; `of` is its table's alias and a dot."""
    sub = f"CASE WHEN {of}sub > 0 THEN '.' || {of}sub ELSE '' END"
    return f"{of}source || '/' || {of}partition || '/' || {of}\"offset\" || {sub}"


Rows = Sequence[tuple[int, Sequence[tuple[int, Json]]]]

_NAMED = "CASE {0} WHEN '' THEN '(none)' ELSE {0} END AS __text, {0} AS __value"
_ROLLED = "SELECT DISTINCT {1} FROM score_rollups WHERE {0} ORDER BY 2"

# Rollups in the range, from its first whole step on: five minutes, or an hour where the range is longer than six hours.
_STEP = "CASE WHEN $__timeTo()::timestamptz - $__timeFrom()::timestamptz > interval '6 hours' THEN 60 ELSE 5 END"
FIVE_MINUTE_ROLLUPS_IN_RANGE = (
    "bucket BETWEEN date_bin('5 minutes', $__timeFrom()::timestamptz, '2000-01-01') AND $__timeTo()::timestamptz"
)
ROLLUPS_IN_RANGE = (
    f"minutes = {_STEP} AND bucket BETWEEN date_bin(make_interval(mins => {_STEP}), $__timeFrom()::timestamptz, "
    "'2000-01-01') AND $__timeTo()::timestamptz"
)


def dashboard(
    uid: str,
    title: str,
    description: str,
    rows: Rows,
    variables: Sequence[Json],
    *,
    time_from: str,
    refresh: str = "1m",
) -> Json:
    """`time_from`: the start of the default time range, such as now-24h."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": refresh,
        "time": {"from": time_from, "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(variables)},
        "annotations": {"list": [_change_annotations()]},
        "links": [_dashboard_links()],
        "panels": _with_positions(rows),
    }


def query_variable(name: str, label: str, query: str, *, all_value: str | None = None, description: str) -> Json:
    """One value from a query; with `all_value` any number of values, and all by default."""
    variable: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": POSTGRES,
        "query": query,
        # 2: when the time range changes; 1: when the dashboard is loaded.
        "refresh": 2 if "$__time" in query else 1,
        "sort": 0,
        "multi": all_value is not None,
        "includeAll": all_value is not None,
    }
    if all_value is not None:
        variable |= {"allValue": all_value, "current": {"text": ["All"], "value": ["$__all"]}}
    return variable


def text_variable(name: str, label: str, description: str) -> Json:
    """A text box, empty by default."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": description,
        "query": "",
        "current": {"text": "", "value": ""},
        "skipUrlSync": False,
    }


TENANT = query_variable(
    "tenant",
    "Tenant",
    _ROLLED.format(ROLLUPS_IN_RANGE, _NAMED.format("tenant")),
    all_value=ALL,
    description="Whose messages; (none) are those that name no tenant.",
)
MODEL = query_variable(
    "model",
    "Model",
    _ROLLED.format(ROLLUPS_IN_RANGE, _NAMED.format("model")),
    all_value=ALL,
    description="The model that a message says it is for; (none) are those that name none.",
)
PROBES = query_variable(
    "probe", "Probe", "SELECT DISTINCT name FROM probes ORDER BY 1", all_value=ALL, description="Which probes."
)
ONE_PROBE = query_variable(
    "probe", "Probe", "SELECT DISTINCT name FROM probes ORDER BY 1", description="Which probe this dashboard is about."
)
_NAME = "(ARRAY[${probe:sqlstring}])[1]"
VERSION = query_variable(
    "version",
    "Version",
    "SELECT __text, __value FROM (SELECT 'version ' || version || ', ' || left(digest, 8) AS __text, "  # noqa: S608
    f"digest AS __value, version, registered_at AS since FROM probes WHERE name = {_NAME} UNION ALL "
    "SELECT 'version ' || probe_version || ', digest unknown', 'unknown ' || probe_version, probe_version, NULL "
    f"FROM score_rollups WHERE {ROLLUPS_IN_RANGE} AND probe = {_NAME} AND probe_digest = '' GROUP BY probe_version) "
    "AS cards ORDER BY since IS NULL, version DESC, since DESC, __value",
    description="Which card of the probe, by its version and the beginning of its digest; the newest first. Digest "
    "unknown are scores from before cards had one: they are compared with no calibration.",
)


def matches(variable: str, column: str | None = None) -> str:
    """SQL condition: the column (by default of the variable's name) has one of the variable's values."""
    values = f"${{{variable}:sqlstring}}"
    return f"({ALL} IN ({values}) OR {column or variable} IN ({values}))"


def matches_nullable(column: str) -> str:
    """The same for a column of `messages` or `alerts`, where NULL is what the rollups call ''."""
    values = f"${{{column}:sqlstring}}"
    return f"({ALL} IN ({values}) OR {column} IN ({values}) OR ({column} IS NULL AND '' IN ({values})))"


def series_by_card(time: str) -> str:
    """SQL: the name of a row's series, of `probe`, `probe_version` and `probe_digest`: the probe's for the card with
    the newest row, by the column `time`; others say which card they are of, so that two cards share no line."""
    card = "probe_version || '/' || probe_digest"
    newest = f"first_value({card}) OVER (PARTITION BY probe ORDER BY {time} DESC, probe_version DESC, probe_digest)"
    named = "coalesce(nullif(left(probe_digest, 8), ''), 'digest unknown')"
    return f"CASE WHEN {newest} = {card} THEN probe ELSE probe || ' version ' || probe_version || ', ' || {named} END"


def single_value(variable: str) -> str:
    """SQL: the first value of a variable, since a link from another dashboard may pass several."""
    return f"(ARRAY[${{{variable}:sqlstring}}])[1]"


def link_to(uid: str, variable: str, value: str = "${__value.raw:percentencode}") -> str:
    """The URL of another dashboard in the same time range, with one variable set."""
    return f"/d/{uid}/{uid}?${{__url_time_range}}&var-{variable}={value}"


def tenant_column() -> Json:
    """The column `tenant` of a table, linked to the dashboard `investigate`."""
    return column("tenant", link=("Investigate this tenant", link_to(INVESTIGATE, "tenant")), empty_text="(none)")


def _with_positions(rows: Rows) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for height, panels in rows:
        x = 0
        for width, panel in panels:
            position = {"x": x, "y": y, "w": width, "h": height}
            placed.append({"id": len(placed) + 1, "gridPos": position, **panel})
            x += width
        y += height
    return placed


def _dashboard_links() -> Json:
    return {
        "type": "dashboards",
        "title": "awry",
        "tags": [TAG],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }


def _change_annotations() -> Json:
    """Annotations where a probe or its threshold changed, by query."""
    query = (
        "SELECT registered_at AS time, 'probe ' || name || ' version ' || version || ', threshold ' || "
        "coalesce(round((card #>> '{calibration,threshold}')::numeric, 4)::text, '?') AS text, 'awry,probe' AS tags "
        "FROM probes WHERE $__timeFilter(registered_at) ORDER BY 1"
    )
    return {
        "name": "Probes and thresholds",
        "datasource": POSTGRES,
        "enable": True,
        "hide": False,
        "iconColor": "purple",
        "target": {"refId": "changes", "format": "table", "editorMode": "code", "rawQuery": True, "rawSql": query},
    }
