"""Alerts by the API: what is listed, what can be done, and what stays on record."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from tests.support.alerts.alert_rows import all_alerts, all_outbox, flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows, look, rules, scored
from tests.support.rows import wait_until_blocked
from tests.support.web.api import ADDRESS, Client, token


def opened(engine: Engine, number: int = 1, **more: Any) -> list[str]:
    """Alerts of as many tenants, one transaction each so that their times differ."""
    return [str(open_alerts(engine, [flagged(n, tenant=f"t{n}", **more)])[0].alert_id) for n in range(number)]


def by_api(engine: Engine) -> list[tuple[Any, ...]]:
    return [(r.action, r.who, r.via, r.origin) for r in audit_rows(engine) if r.via == "api"]


def test_one_in_full(engine: Engine, read: Client) -> None:
    (one,) = open_alerts(engine, [flagged(1, 0.6), flagged(2, 0.9)], ("pager", "siem"))
    found = read.get(f"/alerts/{one.alert_id}")
    (row,) = all_alerts(engine)
    assert (found["id"], found["dedup_key"], found["state"]) == (str(row.id), "threshold:drift:shop:smol", "open")
    assert (found["score"], found["threshold"], found["units"], found["count"]) == (0.9, 0.5, "class gaps", 2)
    assert (found["probe"], found["tenant"], found["model"], found["rule"]) == ("drift", "shop", "smol", "threshold")
    assert [(m["source"], m["offset"], m["id"], m["score"]) for m in found["messages"]] == [
        ("topic", 2, "m2", 0.9),
        ("topic", 1, "m1", 0.6),
    ]
    assert found["top_message"] == found["messages"][0]
    assert [(c["action"], c["who"], c["via"]) for c in found["history"]] == [("opened", "rule threshold", "rule")]
    assert {(d["destination"], d["event"], d["attempts"]) for d in found["deliveries"]} == {
        ("pager", "alert.opened", 0),
        ("siem", "alert.opened", 0),
    }


def test_an_alert_of_the_monitor_has_no_messages(engine: Engine, read: Client) -> None:
    scored(engine, 0, 2, status="failed")
    look(engine, rules('[[monitor]]\nname = "dead"\ncheck = "dead_letters"\nabove = 1\n'))
    (row,) = read.get("/alerts")["alerts"]
    assert (row["kind"], row["probe"], row["first_message"], row["top_message"]) == ("monitor", None, None, None)
    assert read.get(f"/alerts/{row['id']}")["messages"] == []


@pytest.mark.parametrize(
    ("query", "tenants"),
    [
        ({}, ["t2", "t1", "t0"]),
        ({"tenant": "t1"}, ["t1"]),
        ({"state": "acknowledged"}, ["t0"]),
        ({"state": "open"}, ["t2", "t1"]),
        ({"rule": "threshold"}, ["t2", "t1", "t0"]),
        ({"rule": "other"}, []),
        ({"probe": "drift"}, ["t2", "t1", "t0"]),
        ({"probe": "drif"}, []),
        ({"model": "smol"}, ["t2", "t1", "t0"]),
        ({"severity": "critical"}, []),
        ({"severity": "warning", "tenant": "t2"}, ["t2"]),
        ({"limit": 2}, ["t2", "t1"]),
        ({"tenant": "t%"}, []),
        ({"tenant": "\x00"}, []),
    ],
)
def test_filters(engine: Engine, act: Client, query: dict[str, Any], tenants: list[str]) -> None:
    (first, *_) = opened(engine, 3)
    act.post(f"/alerts/{first}/acknowledge")
    assert [row["tenant"] for row in act.get("/alerts", **query)["alerts"]] == tenants


def test_pages_repeat_and_lose_nothing_while_alerts_arrive_and_change(engine: Engine, act: Client) -> None:
    there = opened(engine, 7)
    page = act.get("/alerts", limit=2)
    seen = [row["id"] for row in page["alerts"]]
    n = 100
    while page["next"] is not None:
        # One opens, one is seen again (which is what moves it in lists by last sight), one is acknowledged.
        open_alerts(engine, [flagged(n, tenant=f"t{n}"), flagged(n + 1, tenant="t0")])
        act.ask("POST", f"/alerts/{there[n % 7]}/acknowledge")
        n += 2
        page = act.get("/alerts", limit=2, cursor=page["next"])
        seen += [row["id"] for row in page["alerts"]]
    assert seen == there[::-1]
    assert len(all_alerts(engine)) > 7
    assert [row["tenant"] for row in act.get("/alerts", limit=1)["alerts"]] == [f"t{n - 2}"]


def test_alerts_of_one_moment_are_paged_too(engine: Engine, read: Client) -> None:
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(5)])
    assert len({row.opened_at for row in all_alerts(engine)}) == 1
    seen, cursor = [], None
    while True:
        page = read.get("/alerts", limit=1, **({"cursor": cursor} if cursor else {}))
        seen += [row["tenant"] for row in page["alerts"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(seen) == [f"t{n}" for n in range(5)]


def test_the_last_page_is_known_as_such(engine: Engine, read: Client) -> None:
    opened(engine, 2)
    assert read.get("/alerts", limit=2)["next"] is None
    assert read.get("/alerts", limit=1)["next"] is not None


def test_from_open_to_resolved_and_back(engine: Engine, act: Client) -> None:
    (one,) = opened(engine)
    found = act.post(f"/alerts/{one}/acknowledge")
    assert (found["state"], found["acknowledged_by"]) == ("acknowledged", "soar")
    found = act.post(f"/alerts/{one}/resolve")
    assert (found["state"], found["resolved_by"]) == ("resolved", "soar")
    found = act.post(f"/alerts/{one}/reopen")
    assert (found["state"], found["reopened"], found["resolved_at"], found["acknowledged_by"]) == (
        "open",
        1,
        None,
        None,
    )
    assert by_api(engine) == [(action, "soar", "api", ADDRESS) for action in ("acknowledge", "resolve", "reopen")]
    assert [r.event for r in all_outbox(engine)] == [
        "alert.opened",
        "alert.acknowledged",
        "alert.resolved",
        "alert.reopened",
    ]


@pytest.mark.parametrize(
    ("before", "action", "said"),
    [
        (["acknowledge"], "acknowledge", "acknowledge: the alert is acknowledged; it must be open or silenced"),
        (["resolve"], "acknowledge", "acknowledge: the alert is resolved"),
        (["resolve"], "resolve", "resolve: the alert is resolved"),
        ([], "reopen", "reopen: the alert is open; it must be resolved"),
        (["resolve"], "silence", "silence: the alert is resolved"),
    ],
)
def test_what_cannot_be_is_a_conflict_and_leaves_no_trace(
    engine: Engine, act: Client, before: list[str], action: str, said: str
) -> None:
    (one,) = opened(engine)
    for each in before:
        act.post(f"/alerts/{one}/{each}")
    rows = (all_alerts(engine), len(audit_rows(engine)), len(all_outbox(engine)))
    assert act.post(f"/alerts/{one}/{action}", 409, {} if action == "silence" else None)["detail"].startswith(said)
    assert (all_alerts(engine), len(audit_rows(engine)), len(all_outbox(engine))) == rows


def test_another_of_the_key_is_live(engine: Engine, act: Client) -> None:
    (first,) = opened(engine)
    act.post(f"/alerts/{first}/resolve")
    (second,) = opened(engine)
    assert act.post(f"/alerts/{first}/reopen", 409)["detail"] == f"reopen: {second} is live under the same key"


def test_of_two_who_acknowledge_at_once_one_gets_a_conflict(engine: Engine, app: FastAPI) -> None:
    """Both are held at the alert's row before either may go on."""
    (one,) = opened(engine)
    clients = [Client(app, token(engine, name)) for name in ("anna", "bob")]
    answers: dict[int, int] = {}

    def acknowledge(n: int) -> None:
        answers[n] = clients[n].ask("POST", f"/alerts/{one}/acknowledge").status_code

    threads = [threading.Thread(target=acknowledge, args=(n,)) for n in range(2)]
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM alerts FOR UPDATE"))
        for thread in threads:
            thread.start()
        wait_until_blocked(engine, 2)
    for thread in threads:
        thread.join()
    assert sorted(answers.values()) == [200, 409]
    winner = "anna" if answers[0] == 200 else "bob"
    assert all_alerts(engine)[0].acknowledged_by == winner
    assert by_api(engine) == [("acknowledge", winner, "api", ADDRESS)]


def test_the_verdict_that_is_last_counts(engine: Engine, act: Client) -> None:
    (one,) = opened(engine)
    assert act.post(f"/alerts/{one}/verdict", body={"verdict": "true", "note": "INC-7"})["verdict"] == "true"
    found = act.post(f"/alerts/{one}/verdict", body={"verdict": "authorised_test"})
    assert (found["verdict"], found["verdict_by"], found["state"]) == ("authorised_test", "soar", "open")
    first, second = [r for r in audit_rows(engine) if r.action == "verdict"]
    assert (first.before, first.after) == (None, {"verdict": "true", "note": "INC-7"})
    assert (second.before, second.after) == ({"verdict": "true", "by": "soar"}, {"verdict": "authorised_test"})


def test_silenced_up_to_what_it_is_now(engine: Engine, act: Client) -> None:
    (one,) = opened(engine)
    made = act.post(f"/alerts/{one}/silence", 201, {"for": "2h", "comment": "INC-77"})
    assert made["alerts"] == [one]
    (row,) = act.get("/alerts", state="silenced")["alerts"]
    assert (row["id"], row["silenced_until"]) == (one, made["ends_at"])
    (silence,) = act.get("/silences")
    assert (silence["dedup_key"], silence["up_to"], silence["comment"]) == (row["dedup_key"], "warning", "INC-77")
    assert by_api(engine) == [("silence", "soar", "api", ADDRESS)] * 2
    open_alerts(engine, [flagged(50, 9.0, tenant="t0")])
    assert act.get(f"/alerts/{one}")["state"] == "open"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "/acknowledge", None),
        ("POST", "/resolve", None),
        ("POST", "/reopen", None),
        ("POST", "/verdict", {"verdict": "false"}),
        ("POST", "/silence", {}),
    ],
)
def test_an_alert_that_is_not_there(act: Client, method: str, path: str, body: Any) -> None:
    unknown = uuid.uuid4()
    answer = act.ask(method, f"/alerts/{unknown}{path}", 404, json=body).json()
    assert answer["detail"] == "no alert or silence has this id"


def test_an_answer_is_of_one_moment(engine: Engine, read: Client) -> None:
    """The alert, its history and its deliveries are read in one snapshot."""
    (one,) = opened(engine)
    found = read.get(f"/alerts/{one}")
    assert len(found["history"]) == 1
    with engine.connect() as connection:
        # The options of a read-only transaction do not stay with the pooled connection.
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off"
