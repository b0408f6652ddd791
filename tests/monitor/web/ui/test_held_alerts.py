"""An alert page and the API say what holds it: inhibition, a time interval, blindness; and what its rule says."""

from __future__ import annotations

from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from alerts.links import Links
from monitor.web.api.dependencies import alert_fields
from monitor.web.api.schemas import Alert
from monitor.web.ui import views
from storage.queries.alerts import alert_by_id
from tests.monitor.web.ui.test_pages import browser as browser
from tests.support.alerts.alert_scenes import open_one

ABOUT = {"threshold": {"rule_id": "t-1", "tags": ["AML.T0054"], "references": ["https://wiki.example/t"]}}


def test_what_holds_an_alert_is_on_its_page_and_in_the_api(engine: Engine, browser: TestClient) -> None:
    alert_id = open_one(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alerts SET inhibited_by = ARRAY[id], held_open = 'the monitor is blind: x'"))
        connection.execute(text("UPDATE outbox SET held_by = 'mute time interval <night>'"))
    page = browser.get(f"/alerts/{alert_id}").text
    for said in ("inhibited</span>", "the monitor is blind: x", "held: mute time interval &lt;night&gt;"):
        assert said in page
    assert "inhibited</span>" in browser.get("/alerts").text
    with engine.connect() as connection:
        row = alert_by_id(connection, alert_id)
        assert row is not None
        shown = Alert(**alert_fields(row))
        assert (shown.inhibited_by, shown.held_open) == ([alert_id], "the monitor is blind: x")
        detail = views.alert(connection, alert_id, Links(rules=ABOUT))
        assert detail is not None
        assert detail["about"] == ABOUT["threshold"]
