"""The dashboard's tail statistic is that of the rule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.dashboards import dashboards
from alerts.rules.exceedance import MOST_YEARS
from alerts.rules.model import MonitorRule
from alerts.rules.tails import measure_tails
from benchmarks.grafana_macros import View, expanded, targets
from tests.support.alerts.tails import HOUR, NOW, card, live_score, register, traffic

DAY = 24 * HOUR
RULE = MonitorRule(name="tail", check="tail_drift")


def drawn(engine: Engine, tenant: str | None = None) -> dict[Any, float]:
    """What the panel Drift shows for the last two days."""
    board = dashboards()["awry-probe"]
    panel, target = next(
        found for found in targets(board, "grafana-postgresql-datasource") if found[0]["title"] == "Drift"
    )
    chosen: dict[str, Any] = {"probe": "drift", "version": "1"} | ({"tenant": [tenant]} if tenant else {})
    query = expanded(target["rawSql"], board, View(NOW - 2 * DAY, NOW, chosen), panel["interval"])
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(query.replace("%", "%%"), ()).mappings().all()
    assert all(row["limit"] == 1 for row in rows)
    return {row["time"]: float(row["years without drift"]) for row in rows}


def by_rule(engine: Engine, tenant: str | None = None) -> float:
    with engine.connect() as connection:
        return measure_tails(connection, RULE)["drift", tenant]


def test_a_fourfold_share_is_seen_above_the_limit(engine: Engine) -> None:
    register(engine)
    traffic(engine, 24 * 10, 2500, until=NOW - 6 * HOUR)
    traffic(engine, 6, 2500, 4)
    shown = drawn(engine)
    assert len(shown) == 48
    assert max(value for at, value in shown.items() if at < NOW - 6 * HOUR) < 0.01
    assert shown[NOW - HOUR] > 1
    assert shown[NOW - HOUR] == pytest.approx(by_rule(engine), rel=1e-6)


@pytest.mark.parametrize("n", [30, 320, 2000, 100_000])
@pytest.mark.parametrize("factor", [0, 0.5, 1.5, 2, 20])
def test_it_is_the_statistic_of_the_rule(engine: Engine, n: int, factor: float) -> None:
    """Small calibrations, too few high scores, gaps, two probes, and evidence beyond all bounds."""
    register(engine, shown=card(n))
    register(engine, "other", "o1")
    traffic(engine, 24, probe="other", digest="o1")
    traffic(engine, 100, 3, until=NOW - 12 * DAY)
    traffic(engine, 100, 400, until=NOW - 5 * DAY)
    traffic(engine, 40, 400, factor)
    traffic(engine, 40, 90, tenant="bank", factor=3)
    value = by_rule(engine)
    assert drawn(engine)[NOW - HOUR] == pytest.approx(value, rel=1e-6)
    assert value <= MOST_YEARS
    # With a tenant chosen the tenant's evidence, as if it were all traffic: twenty times the rule's part.
    shop = by_rule(engine, "shop")
    assert drawn(engine, "shop")[NOW - HOUR] == pytest.approx(min(20 * shop, MOST_YEARS), rel=1e-6)


def test_it_is_empty_where_nothing_is_promised(engine: Engine) -> None:
    """A card from before, and one whose calibration knows no quantile; the hour that is not over is no hour."""
    register(engine, shown={"calibration": {"n": 2000, "quantiles": [[0, 0.0], [1, 1.0]]}})
    traffic(engine, 24, 400, 20)
    assert drawn(engine) == {}
    register(engine, "drift", "d2")
    traffic(engine, 3, 400, 20, digest="d2", until=NOW + HOUR)
    live_score(engine, NOW - HOUR, digest="d2")
    assert max(drawn(engine), default=None) in (NOW - HOUR, None)


def test_old_drift_is_seen_when_the_range_begins_after_it(engine: Engine) -> None:
    register(engine)
    traffic(engine, 24 * 4, 2500, 4, until=NOW - 2 * DAY)
    traffic(engine, 48, 2500)
    shown = drawn(engine)
    assert shown[NOW - 2 * DAY] > 1
    assert timedelta(hours=47) == max(shown) - min(shown)
