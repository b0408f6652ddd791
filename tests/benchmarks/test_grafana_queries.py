"""The benchmark fills the tables and asks every query of every dashboard. No timing is asserted."""

from __future__ import annotations

from sqlalchemy import Engine, text

from alerts.dashboards import dashboards
from benchmarks.grafana_macros import targets
from benchmarks.grafana_queries import POSTGRES, load, measure, report


def test_every_panel_is_measured_on_rows_that_are_there(engine: Engine) -> None:
    took = load(engine, 4000, 0.1)
    found = measure(engine)
    made = report(engine, 4000, 0.1, took, found)
    panels = {(uid, p["title"]) for uid, b in dashboards().items() for p, _ in targets(b, POSTGRES)}
    assert panels <= {(row["dashboard"], row["panel"]) for row in found}
    assert made["rows"]["scores"] == 4000
    assert made["queries"] == len(found) > 100
    assert all(row["first"] >= 0 for row in found)
    assert [row["ms"] for row in found] == sorted((row["ms"] for row in found), reverse=True)
    with engine.connect() as connection:
        rolled = connection.execute(text("SELECT sum(n), sum(flagged) FROM score_rollups WHERE minutes = 60")).one()
        scored = connection.execute(text("SELECT count(*), count(*) FILTER (WHERE flagged) FROM scores")).one()
    # All but those of the last ten seconds.
    assert 0 <= scored[0] - rolled[0] <= 20
    assert rolled[1] > 0
    assert scored[1] / scored[0] < 0.03
