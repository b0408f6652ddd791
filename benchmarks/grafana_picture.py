"""Six panels of the dashboard *probe* for a made-up day, from PostgreSQL, drawn without Grafana.

How to run: `python -m benchmarks.grafana_picture [--out docs/dashboard.png]`; a minute. It is the dashboard's own SQL
on a real PostgreSQL; only the drawing is matplotlib's. The day: 60,000 messages of 12 tenants whose scores are those of
the calibration (normal, 0.2 class gaps wide), until one tenant's model is changed for a worse one five hours ago: from
then on a third of its messages score about 0.9 higher.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import NormalDist
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from sqlalchemy import Engine, text

from alerts.dashboards import dashboards
from benchmarks.grafana_macros import View, expanded, targets
from benchmarks.scratch import scratch_database
from storage.partitions import ensure_days
from storage.rollup import roll_up
from storage.writer import register_probe

BOARD, POSTGRES = "awry-probe", "grafana-postgresql-datasource"
MESSAGES, CHANGED = 60_000, timedelta(hours=5)
BENIGN = NormalDist(0.0, 0.2)
THRESHOLD = round(BENIGN.inv_cdf(0.99), 3)
CARD = {
    "calibration": {
        "threshold": THRESHOLD,
        "target_fpr": 0.01,
        "n": 2000,
        "fpr": {"value": 0.01, "low": 0.006, "high": 0.015, "n": 2000},
        "tail": [[p, BENIGN.inv_cdf(p)] for p in (0.95, 0.99, 0.999)],
        "quantiles": [[p, BENIGN.inv_cdf(min(max(p, 0.0005), 0.9995))] for p in np.linspace(0, 1, 41).tolist()],
    }
}

_FACTS = """
    SELECT n, CAST(:begin AS timestamptz) + n * make_interval(secs => CAST(:gap AS float8)) AS at,
        'tenant-' || n % 12 AS tenant, :changed AS changed,
        0.2 * sqrt(-2 * ln((abs(hashint8(n)) + 1) / 2147483649.0))
            * cos(2 * pi() * abs(hashint8(n + 7)) / 2147483648.0) AS benign,
        hashint8(n + 11) % 3 = 0 AS odd FROM generate_series(0, CAST(:messages AS int) - 1) AS n
"""
_MESSAGES = f"""
    INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, tenant, model, ingested_at, status)
    SELECT 'made-up', 0, n, 0, md5(n::text), (at AT TIME ZONE 'UTC')::date, tenant, 'chat', at, 'scored'
    FROM ({_FACTS}) AS f
"""  # noqa: S608
_SCORES = f"""
    INSERT INTO scores (source, partition, "offset", sub, probe, probe_digest, probe_version, day, score, threshold,
        flagged, created_at)
    SELECT 'made-up', 0, n, 0, 'drift', 'drift-1', 1, (at AT TIME ZONE 'UTC')::date, score, :threshold,
        score > :threshold, at
    FROM (
        SELECT *, benign + CASE WHEN tenant = 'tenant-3' AND at > changed AND odd THEN 0.9 ELSE 0 END AS score
        FROM ({_FACTS}) AS f
    ) AS g
"""  # noqa: S608


def fill(engine: Engine, until: datetime) -> None:
    begin = until - timedelta(days=1)
    assert ensure_days(engine, [begin.date(), until.date()])
    facts = {"begin": begin, "gap": 86400 / MESSAGES, "messages": MESSAGES, "changed": until - CHANGED}
    with engine.begin() as connection:
        register_probe(connection, "drift-1", "drift", 1, "hash", CARD)
        connection.execute(text(_MESSAGES), facts)
        connection.execute(text(_SCORES), {**facts, "threshold": THRESHOLD})
    roll_up(engine)


def panel_rows(engine: Engine, title: str, until: datetime, ref: str = "A") -> list[dict[str, Any]]:
    """The rows that the panel gets from its data source."""
    board = dashboards()[BOARD]
    panel, target = next((p, t) for p, t in targets(board, POSTGRES) if (p["title"], t["refId"]) == (title, ref))
    view = View(until - timedelta(days=1), until, {"probe": "drift", "version": "1"})
    query = expanded(target["rawSql"], board, view, panel.get("interval"))
    with engine.connect() as connection:
        found = [dict(row) for row in connection.exec_driver_sql(query.replace("%", "%%"), ()).mappings()]
    for row in found:
        # A group of times is seconds since 1970, as Grafana takes it.
        if isinstance(row.get("time"), int | float | Decimal):
            row["time"] = datetime.fromtimestamp(float(row["time"]), UTC)
    return found


def lines(axis: Axes, rows: list[dict[str, Any]], percent: bool = False) -> None:
    times = [row["time"] for row in rows]
    for name in (n for n in rows[0] if n != "time"):
        values = [np.nan if row[name] is None else float(row[name]) for row in rows]
        axis.plot(times, values, label=name, linewidth=1.3)
    axis.legend(fontsize=7, frameon=False)
    if percent:
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def over_time(axis: Axes, rows: list[dict[str, Any]]) -> None:
    tops = [name for name in rows[0] if name != "time"]
    counts = np.array([[float(row[name] or 0) for name in tops] for row in rows]).T
    # Each row is named by its upper end, 0.2 above its lower one.
    middles = [float(top) - 0.1 for top in tops[:-1]]
    shown = np.ma.masked_equal(counts[:-1], 0)
    axis.pcolormesh([row["time"] for row in rows], middles, np.ma.log10(shown), cmap="viridis", shading="nearest")
    axis.set_ylim(-1, 2)
    axis.axhline(THRESHOLD, color="w", linestyle="--", linewidth=1)


def bars(axis: Axes, rows: list[dict[str, Any]]) -> None:
    x = np.arange(len(rows))
    for side, name in ((-0.2, "calibration"), (0.2, "traffic")):
        axis.bar(x + side, [float(row[name] or 0) for row in rows], 0.4, label=name)
    axis.set_xticks(x[::2], [row["score"] for row in rows][::2], fontsize=7)
    axis.set_yscale("log")
    axis.legend(fontsize=7, frameon=False)


def table(axis: Axes, rows: list[dict[str, Any]]) -> None:
    axis.set_axis_off()
    names = list(rows[0])
    cells = [[f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names] for row in rows[:8]]
    axis.table(cells, colLabels=names, loc="upper center", edges="horizontal").set_fontsize(8)


def draw(engine: Engine, until: datetime, path: Path) -> None:
    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 2, figsize=(11, 8.4), layout="constrained")
    over_time(axes[0, 0], panel_rows(engine, "Scores over time", until))
    bars(axes[0, 1], panel_rows(engine, "Against the calibration", until))
    lines(axes[1, 0], panel_rows(engine, "Quantiles and threshold", until))
    lines(axes[1, 1], panel_rows(engine, "Drift", until))
    axes[1, 1].set_yscale("log")
    lines(axes[2, 0], panel_rows(engine, "Flagged share and target", until), percent=True)
    table(axes[2, 1], panel_rows(engine, "By tenant", until))
    titles = (
        "Scores over time",
        "Against the calibration",
        "Quantiles and threshold",
        "Drift",
        "Flagged share and target",
        "By tenant",
    )
    for axis, title in zip(axes.ravel(), titles, strict=True):
        axis.set_title(title, fontsize=10, loc="left")
        axis.tick_params(labelsize=7)
        if axis in (axes[0, 0], axes[1, 0], axes[1, 1], axes[2, 0]):
            locator = AutoDateLocator()  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
            axis.xaxis.set_major_locator(locator)
            axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # as above
    figure.suptitle("What the dashboard “awry: probe” is given for a made-up day (drawn without Grafana)", fontsize=11)
    figure.savefig(path, dpi=110, metadata={"Software": "awry"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/dashboard.png"))
    arguments = parser.parse_args()
    with scratch_database() as (engine, _):
        # The drift statistic counts whole hours.
        until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        fill(engine, until)
        draw(engine, until, arguments.out)


if __name__ == "__main__":
    main()
