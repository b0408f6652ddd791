"""Links and texts in the body of a notification."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine, func, select

from alerts.delivery.deliver import deliver_due
from alerts.links import Links
from storage.coordinates import Coordinates
from storage.schema import messages
from storage.writer import BatchRows, MessageRow
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.delivery import (
    Recorder,
    channel,
)
from tests.support.rows import DAY, message, write


def test_links_are_made_of_the_alerts_fields(engine: Engine) -> None:
    links = Links("https://wiki.example/{rule}", "https://grafana.example/d/awry?var-tenant={tenant}&id={alert_id}")
    recorder = Recorder()
    open_alerts(engine, [flagged(1, tenant="a&b/ü")])
    deliver_due(engine, {"pager": channel(recorder, links=links)})
    data = recorder.sent[0].body["data"]
    assert data["links"] == {
        "runbook": "https://wiki.example/threshold",
        "dashboard": f"https://grafana.example/d/awry?var-tenant=a%26b%2F%C3%BC&id={data['alert_id']}",
    }


def test_text_goes_out_only_where_it_is_asked_for_and_was_stored(engine: Engine) -> None:
    kept = {"messages": [{"role": "user", "content": "geheim"}], "response": "streng geheim"}
    write(engine, BatchRows([message(1, "s1", text=kept), message(2, "s2")], []))
    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, tenant="b")], ("with", "without"))
    asked, other = Recorder(), Recorder()
    deliver_due(engine, {"with": channel(asked, include_text=True), "without": channel(other)})
    texts: dict[str, Any] = {e.body["data"]["tenant"]: e.body["data"].get("text") for e in asked.sent}
    assert texts == {"a": kept, "b": None}
    assert len(other.sent) == 2
    assert "geheim" not in json.dumps([e.body for e in other.sent])
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(messages)).scalar() == 2


def test_the_text_is_that_of_the_message_within_its_record(engine: Engine) -> None:
    first, second = ({"messages": [{"role": "user", "content": name}], "response": None} for name in ("one", "two"))
    later = MessageRow(Coordinates("topic", 0, 1, 1), "s1b", DAY, "scored", text=second)
    write(engine, BatchRows([message(1, "s1", text=first), later], []))
    at_second = replace(flagged(1, tenant="b"), coordinates=later.at)
    open_alerts(engine, [flagged(1, tenant="a"), at_second], ("pager",))
    recorder = Recorder()
    deliver_due(engine, {"pager": channel(recorder, include_text=True)})
    texts: dict[str, Any] = {e.body["data"]["tenant"]: e.body["data"].get("text") for e in recorder.sent}
    assert texts == {"a": first, "b": second}
