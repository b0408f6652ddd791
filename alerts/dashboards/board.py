"""A dashboard out of panels: their places, the variables, the links to the others, the annotations.

Contract: `dashboard(uid, title, ..., rows)` gives the whole JSON, with ids by place, so that the same code makes the
same file. A row is (height, [(width, panel), ...]); 24 is the width of the screen, 30 about its height.

The variables have the same names and meanings on every dashboard, since links carry them along. Of `tenant` and
`model`, '' stands for messages that name none. "All" is not a list of values, which might be long or empty, but one
constant (`ALL`) by which the planner sees that a condition (`chosen`) holds for every row.
"""

from __future__ import annotations

from collections.abc import Sequence

from alerts.dashboards.panels import POSTGRES, Json, column

FOLDER_UID, FOLDER = "awry", "awry"
OVERVIEW, PROBE, INVESTIGATE, WORKER = "awry-overview", "awry-probe", "awry-investigate", "awry-worker"
TAG = "awry"
SCHEMA_VERSION = 42

ALL = "'(all)'"

Rows = Sequence[tuple[int, Sequence[tuple[int, Json]]]]

_NAMED = "CASE {0} WHEN '' THEN '(none)' ELSE {0} END AS __text, {0} AS __value"
_ROLLED = "SELECT DISTINCT {1} FROM score_rollups WHERE {0} ORDER BY 2"

# Rollups of the range, begun with the first whole step: five minutes, or hours where the range is longer than six.
_STEP = "CASE WHEN $__timeTo()::timestamptz - $__timeFrom()::timestamptz > interval '6 hours' THEN 60 ELSE 5 END"
OF_FIVE = "bucket BETWEEN date_bin('5 minutes', $__timeFrom()::timestamptz, '2000-01-01') AND $__timeTo()::timestamptz"
OF_STEP = (
    f"minutes = {_STEP} AND bucket BETWEEN date_bin(make_interval(mins => {_STEP}), $__timeFrom()::timestamptz, "
    "'2000-01-01') AND $__timeTo()::timestamptz"
)


def dashboard(
    uid: str, title: str, about: str, rows: Rows, variables: Sequence[Json], *, since: str, refresh: str = "1m"
) -> Json:
    """`since`: how far it looks back when it is opened, such as now-24h."""
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": refresh,
        "time": {"from": since, "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(variables)},
        "annotations": {"list": [_changes()]},
        "links": [_others()],
        "panels": _placed(rows),
    }


def query_variable(name: str, label: str, query: str, *, all_is: str | None = None, about: str) -> Json:
    """One value out of the tables; with `all_is` any number, and all of them until somebody chooses."""
    made: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "description": about,
        "datasource": POSTGRES,
        "query": query,
        # When the range changes where the query asks for it, else when the dashboard opens.
        "refresh": 2 if "$__time" in query else 1,
        "sort": 0,
        "multi": all_is is not None,
        "includeAll": all_is is not None,
    }
    if all_is is not None:
        made |= {"allValue": all_is, "current": {"text": ["All"], "value": ["$__all"]}}
    return made


def text_variable(name: str, label: str, about: str) -> Json:
    """A box to type into or paste into, empty at first."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": about,
        "query": "",
        "current": {"text": "", "value": ""},
        "skipUrlSync": False,
    }


TENANT = query_variable(
    "tenant",
    "Tenant",
    _ROLLED.format(OF_STEP, _NAMED.format("tenant")),
    all_is=ALL,
    about="Whose messages; (none) are those that name no tenant.",
)
MODEL = query_variable(
    "model",
    "Model",
    _ROLLED.format(OF_STEP, _NAMED.format("model")),
    all_is=ALL,
    about="The model that a message says it is for; (none) are those that name none.",
)
PROBES = query_variable(
    "probe", "Probe", "SELECT DISTINCT name FROM probes ORDER BY 1", all_is=ALL, about="Which probes."
)
ONE_PROBE = query_variable(
    "probe", "Probe", "SELECT DISTINCT name FROM probes ORDER BY 1", about="Which probe this dashboard is about."
)
VERSION = query_variable(
    "version",
    "Version",
    "SELECT version::text FROM probes WHERE name = (ARRAY[${probe:sqlstring}])[1] ORDER BY version DESC",
    about="Which version of the probe; the newest first.",
)


def chosen(variable: str, column: str | None = None) -> str:
    """A condition: the column, of the variable's name if none is given, has one of the chosen values."""
    values = f"${{{variable}:sqlstring}}"
    return f"({ALL} IN ({values}) OR {column or variable} IN ({values}))"


def of_messages(column: str) -> str:
    """The same on a column of `messages`, where NULL is what the rollups call ''."""
    values = f"${{{column}:sqlstring}}"
    return f"({ALL} IN ({values}) OR {column} IN ({values}) OR ({column} IS NULL AND '' IN ({values})))"


def one_of(variable: str) -> str:
    """The value of a variable of which there should be one: a link from another dashboard may have brought several."""
    return f"(ARRAY[${{{variable}:sqlstring}}])[1]"


def link_to(uid: str, variable: str, value: str = "${__value.raw:percentencode}") -> str:
    """The address of another dashboard in the same range, with one variable set."""
    return f"/d/{uid}/{uid}?${{__url_time_range}}&var-{variable}={value}"


def tenant_column() -> Json:
    """A table's column `tenant`, which leads to what is known of that tenant."""
    return column("tenant", link=("Investigate this tenant", link_to(INVESTIGATE, "tenant")), nameless="(none)")


def _placed(rows: Rows) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for height, panels in rows:
        x = 0
        for width, panel in panels:
            place = {"x": x, "y": y, "w": width, "h": height}
            placed.append({"id": len(placed) + 1, "gridPos": place, **panel})
            x += width
        y += height
    return placed


def _others() -> Json:
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


def _changes() -> Json:
    """Marks where a probe or a threshold changed, as the tables know it."""
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
