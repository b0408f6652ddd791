"""Silences by the API."""

from __future__ import annotations

import threading
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from alerts.lifecycle import silences
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.rows import wait_until_blocked
from tests.support.web.api import Client


def test_by_patterns_now_and_later(engine: Engine, act: Client, read: Client) -> None:
    (shop, bank) = open_alerts(engine, [flagged(1, tenant="load-1"), flagged(2, tenant="bank")])
    asked = {"tenant": "load-*", "for": "1d", "up_to": "error", "comment": "load test"}
    made = act.post("/silences", 201, asked)
    assert made["alerts"] == [str(shop.alert_id if shop.dedup_key.count("load") else bank.alert_id)]
    open_alerts(engine, [flagged(3, tenant="load-2"), flagged(4, 9.0, tenant="load-3")])
    assert {r.tenant: r.state for r in all_alerts(engine)} == {
        "load-1": "silenced",
        "bank": "open",
        "load-2": "silenced",
        "load-3": "open",
    }
    (listed,) = read.get("/silences")
    assert (listed["id"], listed["tenant"], listed["rule"], listed["up_to"]) == (made["id"], "load-*", None, "error")
    assert (listed["comment"], listed["created_by"]) == ("load test", "soar")
    lasting = datetime.fromisoformat(listed["ends_at"]) - datetime.fromisoformat(listed["starts_at"])
    assert lasting == timedelta(days=1)


def test_an_early_end(engine: Engine, act: Client) -> None:
    (one,) = open_alerts(engine, [flagged(1)])
    made = act.post("/silences", 201, {"rule": "threshold"})
    assert act.delete(f"/silences/{made['id']}") == {"id": made["id"], "alerts": [str(one.alert_id)]}
    assert act.get("/silences") == []
    assert act.delete(f"/silences/{made['id']}", 404)["detail"] == "no alert or silence has this id"
    act.delete(f"/silences/{uuid.uuid4()}", 404)
    found = [(r.action, r.who, r.silence_id is not None) for r in audit_rows(engine) if r.via == "api"]
    assert found == [("silence", "soar", True), ("silence", "soar", True), ("end silence", "soar", True)]


def test_all_matchers_must_match(engine: Engine, act: Client) -> None:
    open_alerts(engine, [flagged(1), flagged(2, tenant="bank"), flagged(3, probe="other")])
    act.post("/silences", 201, {"tenant": "**s*p**", "probe": "dri*", "model": "*", "rule": "threshold"})
    assert {(r.tenant, r.probe): r.state for r in all_alerts(engine)} == {
        ("shop", "drift"): "silenced",
        ("bank", "drift"): "open",
        ("shop", "other"): "open",
    }


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "body", "matches nothing: give some of rule, probe, tenant, model"),
        ({"for": "1h"}, "body", "matches nothing"),
        ({"rule": None}, "body", "matches nothing"),
        ({"rule": ""}, "body.rule", "at least 1 character"),
        ({"rule": "a", "tenant": "*a*a*a*"}, "body.tenant", "has too many `*`; use 3 at most"),
        ({"rule": 7}, "body.rule", "valid string"),
        ({"rule": "a", "for": "soon"}, "body.for", "is no duration; write for example 90s, 10m, 1h30m or 2d"),
        ({"rule": "a", "for": ""}, "body.for", "is no duration"),
        ({"rule": "a", "for": "0s"}, "body.for", "must be from 1s to 90d"),
        ({"rule": "a", "for": "91d"}, "body.for", "must be from 1s to 90d"),
        ({"rule": "a", "for": "999999d999999h999999m99999999s"}, "body.for", "must be from 1s"),
        ({"rule": "a", "for": 3600}, "body.for", "valid string"),
        ({"rule": "a", "up_to": "fatal"}, "body.up_to", "'warning', 'error' or 'critical'"),
        ({"rule": "a", "comment": "c" * 1001}, "body.comment", "at most 1000 characters"),
        ({"rule": "a", "tennant": "b"}, "body", "has a field that is not known here; known are rule, probe, tenant"),
        ({"rule": "a", "lasting": "1h"}, "body", "known are rule, probe, tenant, model, for, up_to, comment"),
        ({"rule": "a", "dedup_key": "k"}, "body", "not known here"),
        ([], "body", "must be a JSON object"),
        ("rule", "body", "must be a JSON object"),
        (None, "body", "is missing"),
    ],
)
def test_mistakes_name_the_field_and_the_fix(engine: Engine, act: Client, body: Any, field: str, said: str) -> None:
    answer = act.ask("POST", "/silences", 422, **({"json": body} if body is not None else {})).json()
    (one,) = answer["errors"]
    assert one["field"] == field
    assert said in one["problem"]
    assert answer["detail"] == f"{field}: {one['problem']}"
    assert act.get("/silences") == []


def test_a_worker_that_opens_alerts_for_long(engine: Engine, act: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silences, "_LOCK_SECONDS", 1)
    with engine.begin() as connection:
        silences.lock_for_opening(connection)
        assert "try again" in act.post("/silences", 409, {"rule": "a"})["detail"]
    act.post("/silences", 201, {"rule": "a"})


@pytest.mark.slow
def test_an_alert_that_somebody_holds_is_a_503_and_no_half_silence(engine: Engine, act: Client) -> None:
    open_alerts(engine, [flagged(1)])
    answers = []
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM alerts FOR UPDATE"))
        thread = threading.Thread(target=lambda: answers.append(act.ask("POST", "/silences", json={"rule": "*"})))
        thread.start()
        wait_until_blocked(engine)
        thread.join(20)
    (answer,) = answers
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert act.get("/silences") == []
    assert [r for r in audit_rows(engine) if r.via == "api"] == []
