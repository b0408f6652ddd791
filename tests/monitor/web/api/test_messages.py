"""The search over HTTP and on the page: the same filters, pages that go on, errors that name the field; 410 for what
was erased."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from storage.erase import erase
from storage.erasures import Target
from storage.writer import BatchRows
from tests.monitor.web.ui.test_pages import browsing
from tests.support.alerts.alert_scenes import open_one, scored
from tests.support.rows import message, write
from tests.support.web.api import Client


@pytest.fixture
def filled(engine: Engine) -> Engine:
    scored(engine, 0, 5, value=0.9, user_id="anna", conversation_id="c", ago=60)
    scored(engine, 10, 3, value=0.1, user_id="bob", ago=30, tenant="bank")
    return engine


def found(client: Client, query: str) -> list[str]:
    answer = client.ask("GET", f"/messages?{query}")
    assert answer.status_code == 200, answer.text
    return [each["message_id"] for each in answer.json()["messages"]]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("message_id=m3", ["m3"]),
        ("user=anna", ["m4", "m3", "m2", "m1", "m0"]),
        ("tenant=bank&flagged=false", ["m12", "m11", "m10"]),
        ("conversation=c&score_from=0.5", ["m4", "m3", "m2", "m1", "m0"]),
        ("probe=drift&score_to=0.2", ["m12", "m11", "m10"]),
        ("status=failed", []),
        ("until=2020-01-01", []),
        ("since=2020-01-01T00:00Z&message_id=m0", ["m0"]),
    ],
)
def test_filters(filled: Engine, read: Client, query: str, wanted: list[str]) -> None:
    assert sorted(found(read, query)) == sorted(wanted)


def test_pages_go_on(filled: Engine, read: Client) -> None:
    seen, cursor = [], ""
    while True:
        answer = read.ask("GET", f"/messages?user=anna&limit=2{cursor}", 200).json()
        seen += [each["message_id"] for each in answer["messages"]]
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
    assert sorted(seen) == ["m0", "m1", "m2", "m3", "m4"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=then", "query.since: write a time such as 2026-11-01 or 2026-11-01T14:05Z"),
        ("score_from=nan", "query.score_from: write a number of class gaps, such as 0.8"),
        ("cursor=xx", "query.cursor: use `next` of the previous page unchanged, with the same filters"),
        ("status=odd", "query.status: "),
        ("limit=0", "query.limit: "),
        ("name=a", "query"),
        ("tenant=shop&tenant=bank", "query.tenant: is given twice; give it once"),
        ("limit=1&limit=1", "query.limit: is given twice"),
        ("name=a&name=a", "query: has a field that is not known here; known are "),
        ("tenant=%20", "query.tenant: is empty; write what it is to match, or leave it out"),
        ("score_from=%20", "query.score_from: is empty"),
    ],
)
def test_mistakes(filled: Engine, read: Client, query: str, said: str) -> None:
    answer = read.ask("GET", f"/messages?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(said)


@pytest.mark.parametrize("path", ["/alerts", "/messages", "/silences", "/precision", "/probes", "/deliveries"])
def test_no_parameter_is_passed_over(filled: Engine, read: Client, path: str) -> None:
    for query in ("tenant=shop&tenant=bank", "tenannt=shop", "x=1&x=1"):
        assert read.ask("GET", f"{path}?{query}", 422).json()["errors"]


@pytest.mark.parametrize("path", ["/alerts", "/messages"])
def test_a_cursor_is_of_its_filters(filled: Engine, read: Client, path: str) -> None:
    for number in (1, 2):
        open_one(filled, tenant=f"t{number}")
    for made, wrong in (("", "tenant=shop"), ("probe=drift", ""), ("probe=drift", "probe=drift&tenant=shop")):
        cursor = read.ask("GET", f"{path}?{made}&limit=1", 200).json()["next"]
        said = read.ask("GET", f"{path}?{wrong}&cursor={cursor}", 422).json()["detail"]
        assert said == "query.cursor: use `next` of the previous page unchanged, with the same filters"
        assert read.ask("GET", f"{path}?{made}&limit=1&cursor={cursor}").status_code == 200


def test_what_was_erased_is_gone(filled: Engine, read: Client) -> None:
    erase(filled, Target("user", "anna"))
    answer = read.ask("GET", "/messages/topic/0/3")
    assert (answer.status_code, answer.json()["detail"]) == (410, "the message at these coordinates was erased")
    assert read.ask("GET", "/messages/topic/0/77").status_code == 404
    assert found(read, "user=anna") == []


def test_the_page(filled: Engine) -> None:
    write(filled, BatchRows([message(50, "x", "invalid", message_id="<b>odd</b>", user_id="carl")]))
    page = browsing(filled)
    answer = page.get("/messages?user=carl")
    assert answer.status_code == 200
    assert "&lt;b&gt;odd&lt;/b&gt;" in answer.text
    assert "m3" not in answer.text
    assert 'href="/messages/topic/0/3"' in page.get("/messages?user=anna&flagged=true").text
    assert page.get("/messages?since=then").status_code == 400
    assert page.get("/messages?cursor=then").status_code == 400
    erase(filled, Target("user", "carl"))
    assert page.get("/messages/topic/0/50").status_code == 410
    assert "No message matches" in page.get("/messages?user=carl").text
