"""Panels and their queries, as the JSON that Grafana reads: classic dashboards, types of `@grafana/schema` 13.

Contract: every panel has a title, a description and a unit; what Grafana would fill in itself is left out. Where a
panel stands is `board`'s business. Queries name their data source by its fixed uid.

SQL is written with Grafana's macros ($__timeFilter, $__timeGroupAlias) and variables in the format `:sqlstring`, which
quotes them: what somebody types into a text box is never more than a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import dedent
from typing import Any, Literal

Json = dict[str, Any]

POSTGRES: Json = {"type": "grafana-postgresql-datasource", "uid": "awry-postgres"}
PROMETHEUS: Json = {"type": "prometheus", "uid": "awry-prometheus"}

# Colours by what they mean, the same everywhere.
GOOD, WARN, BAD, PLAIN = "green", "orange", "red", "text"
# (from this value on, colour); the first holds for everything below.
Steps = Sequence[tuple[float | None, str]]


def sql(query: str, ref: str = "A", *, series: bool = False) -> Json:
    """A query of the tables; `series`: its rows are (time, metric, value...)."""
    return {
        "refId": ref,
        "datasource": POSTGRES,
        "format": "time_series" if series else "table",
        "editorMode": "code",
        "rawQuery": True,
        "rawSql": dedent(query).strip(),
    }


def prom(expression: str, legend: str = "__auto", ref: str = "A", *, instant: bool = False) -> Json:
    """A query of the metrics; `instant`: only its value at the end of the range."""
    return {
        "refId": ref,
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": expression,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
    }


def stat(title: str, about: str, unit: str, query: Json, steps: Steps = (), **more: Any) -> Json:
    """One number. `steps` colour it."""
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
    return _panel("stat", title, about, unit, [query], options, steps=steps, **more)


def timeseries(
    title: str,
    about: str,
    unit: str,
    queries: Sequence[Json],
    *,
    steps: Steps = (),
    stacked: bool = False,
    points: bool = False,
    **more: Any,
) -> Json:
    """Lines over time; `points` where values belong to single messages. `steps` are drawn as dashed lines."""
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
    options = {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, about, unit, queries, options, custom=custom, steps=steps, **more)


def table(
    title: str, about: str, query: Json, columns: Sequence[Json] = (), *, unit: str = "none", **more: Any
) -> Json:
    """Rows; `columns` (see `column`) say what is special about some of them."""
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": True}
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    return _panel("table", title, about, unit, [query], options, custom=custom, columns=columns, **more)


def column(
    name: str,
    *,
    unit: str | None = None,
    link: tuple[str, str] | None = None,
    steps: Steps = (),
    long: bool = False,
    nameless: str | None = None,
    decimals: int | None = None,
) -> Json:
    """How a table shows one column: its unit, a link (title, address), colours by `steps`, what stands for an empty
    value, or `long` text to unfold."""
    found: list[tuple[str, Any]] = []
    if unit is not None:
        found.append(("unit", unit))
    if decimals is not None:
        found.append(("decimals", decimals))
    if link is not None:
        found.append(("links", [{"title": link[0], "url": link[1]}]))
    if nameless is not None:
        found.append(("mappings", [{"type": "special", "options": {"match": "empty", "result": {"text": nameless}}}]))
    if steps:
        found.append(("thresholds", _thresholds(steps)))
        found.append(("custom.cellOptions", {"type": "color-background", "mode": "basic"}))
    if long:
        found += [("custom.inspect", True), ("custom.minWidth", 300)]
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": name, "value": value} for name, value in found],
    }


def matrix(title: str, about: str, unit: str, query: Json, rows: str, columns: str, value: str, **more: Any) -> Json:
    """A map of cells, coloured by their value, out of (rows, columns, value)."""
    made = table(title, about, query, unit=unit, **more)
    made["fieldConfig"]["defaults"]["color"] = {"mode": "continuous-BlYlRd"}
    made["fieldConfig"]["defaults"]["custom"]["cellOptions"] = {"type": "color-background", "mode": "basic"}
    made["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": f"{rows}\\{columns}"},
            "properties": [{"id": "custom.cellOptions", "value": {"type": "auto"}}],
        }
    ]
    made["transformations"] = [
        {
            "id": "groupingToMatrix",
            "options": {"rowField": rows, "columnField": columns, "valueField": value, "emptyValue": "null"},
        }
    ]
    return made


def heatmap(title: str, about: str, unit: str, query: Json, **more: Any) -> Json:
    """Counts over time and ranges: the query's columns after `time` are the ranges' upper ends, in order."""
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
    return _panel("heatmap", title, about, "short", [query], options, **more)


def bars(title: str, about: str, unit: str, query: Json, x: str, **more: Any) -> Json:
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
    return _panel("barchart", title, about, unit, [query], options, custom={"fillOpacity": 60, "lineWidth": 0}, **more)


def _panel(
    kind: Literal["stat", "timeseries", "table", "heatmap", "barchart"],
    title: str,
    about: str,
    unit: str,
    queries: Sequence[Json],
    options: Json,
    *,
    custom: Json | None = None,
    columns: Sequence[Json] = (),
    steps: Steps = (),
    least: float | None = None,
    most: float | None = None,
    decimals: int | None = None,
    interval: str | None = None,
    empty: str | None = None,
    links: Sequence[tuple[str, str]] = (),
) -> Json:
    """`interval` is the shortest time between two points; `empty` what stands there without data."""
    defaults: Json = {"unit": unit, "thresholds": _thresholds(steps or ((None, PLAIN),))}
    if kind in ("stat", "table"):
        defaults["color"] = {"mode": "thresholds"}
    for name, value in (("min", least), ("max", most), ("decimals", decimals), ("noValue", empty), ("custom", custom)):
        if value is not None:
            defaults[name] = value
    if links:
        defaults["links"] = [{"title": name, "url": url} for name, url in links]
    panel = {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": queries[0]["datasource"],
        "targets": list(queries),
        "fieldConfig": {"defaults": defaults, "overrides": list(columns)},
        "options": options,
    }
    return panel | ({"interval": interval} if interval else {})


def _thresholds(steps: Steps) -> Json:
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}
