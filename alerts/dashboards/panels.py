"""Panels and their queries as Grafana's JSON: classic dashboards, the types of `@grafana/schema` 13.

Contract: every panel has a title, a description and a unit; Grafana's defaults are left out. `board` sets positions.
Queries name their data source by its fixed uid.

SQL uses Grafana's macros ($__timeFilter, $__timeGroupAlias) and variables in the format `:sqlstring`, which quotes
them: input to a text box is always a string literal.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import dedent
from typing import Any, Literal

Json = dict[str, Any]

POSTGRES: Json = {"type": "grafana-postgresql-datasource", "uid": "awry-postgres"}
PROMETHEUS: Json = {"type": "prometheus", "uid": "awry-prometheus"}

# Colours by meaning, the same on every dashboard.
GOOD, WARN, BAD, PLAIN = "green", "orange", "red", "text"
# Thresholds as (lower bound, colour); the first bound is None.
Steps = Sequence[tuple[float | None, str]]


def sql(query: str, ref_id: str = "A", *, series: bool = False) -> Json:
    """A query of PostgreSQL; `series`: its rows are (time, metric, value...)."""
    return {
        "refId": ref_id,
        "datasource": POSTGRES,
        "format": "time_series" if series else "table",
        "editorMode": "code",
        "rawQuery": True,
        "rawSql": dedent(query).strip(),
    }


def prom(expression: str, legend: str = "__auto", ref_id: str = "A", *, instant: bool = False) -> Json:
    """A query of Prometheus; `instant`: only its value at the end of the range."""
    return {
        "refId": ref_id,
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": expression,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
    }


def stat(title: str, description: str, unit: str, query: Json, steps: Steps = (), **more: Any) -> Json:
    """One number, coloured by the thresholds `steps`."""
    options = {
        "colorMode": "background" if steps else "none",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "value",
        "wideLayout": True,
    }
    return _panel("stat", title, description, unit, [query], options, steps=steps, **more)


def timeseries(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Json],
    *,
    steps: Steps = (),
    stacked: bool = False,
    points: bool = False,
    logarithmic: bool = False,
    **more: Any,
) -> Json:
    """Lines over time, or `points` where values belong to single messages. Thresholds are drawn as dashed lines."""
    custom: Json = {
        "drawStyle": "points" if points else "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 0,
        "pointSize": 6 if points else 4,
        "showPoints": "always" if points else "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    if logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    options = {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, unit, queries, options, custom=custom, steps=steps, **more)


def table(
    title: str, description: str, query: Json, columns: Sequence[Json] = (), *, unit: str = "none", **more: Any
) -> Json:
    """Rows; `columns` (see `column`) are the overrides of single columns."""
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": True}
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    return _panel("table", title, description, unit, [query], options, custom=custom, columns=columns, **more)


def column(
    name: str,
    *,
    unit: str | None = None,
    link: tuple[str, str] | None = None,
    steps: Steps = (),
    expandable: bool = False,
    empty_text: str | None = None,
    decimals: int | None = None,
) -> Json:
    """The override of one column: its unit, a link (title, URL), thresholds, the text of an empty value; `expandable`
    cells open to their whole text."""
    properties: list[tuple[str, Any]] = []
    if unit is not None:
        properties.append(("unit", unit))
    if decimals is not None:
        properties.append(("decimals", decimals))
    if link is not None:
        properties.append(("links", [{"title": link[0], "url": link[1]}]))
    if empty_text is not None:
        properties.append(
            ("mappings", [{"type": "special", "options": {"match": "empty", "result": {"text": empty_text}}}])
        )
    if steps:
        properties.append(("thresholds", _thresholds(steps)))
        properties.append(("custom.cellOptions", {"type": "color-background", "mode": "basic"}))
    if expandable:
        properties += [("custom.inspect", True), ("custom.minWidth", 300)]
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": name, "value": value} for name, value in properties],
    }


def matrix(
    title: str, description: str, unit: str, query: Json, rows: str, columns: str, value: str, **more: Any
) -> Json:
    """A table of coloured cells, from rows of (row, column, value)."""
    panel = table(title, description, query, unit=unit, **more)
    panel["fieldConfig"]["defaults"]["color"] = {"mode": "continuous-BlYlRd"}
    panel["fieldConfig"]["defaults"]["custom"]["cellOptions"] = {"type": "color-background", "mode": "basic"}
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": f"{rows}\\{columns}"},
            "properties": [{"id": "custom.cellOptions", "value": {"type": "auto"}}],
        }
    ]
    panel["transformations"] = [
        {
            "id": "groupingToMatrix",
            "options": {"rowField": rows, "columnField": columns, "valueField": value, "emptyValue": "null"},
        }
    ]
    return panel


def heatmap(title: str, description: str, unit: str, query: Json, **more: Any) -> Json:
    """Counts over time by bucket: the query's columns after `time` are the buckets' upper bounds, in order."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "exponent": 0.5,
            "fill": "dark-orange",
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Oranges",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "le"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    return _panel("heatmap", title, description, "short", [query], options, **more)


def bars(title: str, description: str, unit: str, query: Json, x: str, **more: Any) -> Json:
    """One group of bars for each row, by the column `x`."""
    options = {
        "barWidth": 0.9,
        "fullHighlight": False,
        "groupWidth": 0.8,
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "orientation": "vertical",
        "showValue": "never",
        "stacking": "none",
        "tooltip": {"mode": "multi", "sort": "none"},
        "xField": x,
        "xTickLabelMaxLength": 8,
        "xTickLabelRotation": 0,
        "xTickLabelSpacing": 100,
    }
    return _panel(
        "barchart", title, description, unit, [query], options, custom={"fillOpacity": 60, "lineWidth": 0}, **more
    )


def _panel(
    kind: Literal["stat", "timeseries", "table", "heatmap", "barchart"],
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Json],
    options: Json,
    *,
    custom: Json | None = None,
    columns: Sequence[Json] = (),
    steps: Steps = (),
    minimum: float | None = None,
    maximum: float | None = None,
    decimals: int | None = None,
    interval: str | None = None,
    no_value: str | None = None,
    links: Sequence[tuple[str, str]] = (),
) -> Json:
    """`interval` is the shortest time between two points; `no_value` the text without data."""
    defaults: Json = {"unit": unit, "thresholds": _thresholds(steps or ((None, PLAIN),))}
    if kind in ("stat", "table"):
        defaults["color"] = {"mode": "thresholds"}
    optional = {"min": minimum, "max": maximum, "decimals": decimals, "noValue": no_value, "custom": custom}
    defaults |= {name: value for name, value in optional.items() if value is not None}
    if links:
        defaults["links"] = [{"title": name, "url": url} for name, url in links]
    panel = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": queries[0]["datasource"],
        "targets": list(queries),
        "fieldConfig": {"defaults": defaults, "overrides": list(columns)},
        "options": options,
    }
    return panel | ({"interval": interval} if interval else {})


def _thresholds(steps: Steps) -> Json:
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}
