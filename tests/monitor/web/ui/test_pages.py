"""The content of the pages, on a real PostgreSQL: facts, escaping, invalid addresses, forms, and what must not leak."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, text
from starlette.testclient import TestClient

from alerts.lifecycle import actions
from alerts.links import Links
from alerts.rules.exceptions import RuleException
from monitor.web.auth import tokens
from monitor.web.ui.access import COOKIE
from monitor.web.ui.app import make_ui
from monitor.web.ui.formatting import place_url
from storage.partitions import utc_today
from storage.rollup import roll_up
from storage.writer import AnswerRow, BatchRows, register_probe
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import ANNA, audit_rows, scored
from tests.support.rows import at, digest_of, message, score, write
from tests.support.web.pages import OPEN, session

HERE = {"origin": "http://localhost"}
LINKS = Links("https://runbooks.example/{rule}", "https://grafana.example/d/awry-investigate?var-alert={alert_id}")
CARD = {
    "description": "answers with code",
    "identity": {"model": "smol", "adapter_sha256": None},
    "aggregation": "last_prompt",
    "directions": [{"site": "residual[27]"}],
    "calibration": {
        "threshold": 0.5,
        "target_fpr": 0.01,
        "fpr": {"value": 0.009, "low": 0.001, "high": 0.02, "n": 320},
        "enough": False,
        "n": 320,
        "quantiles": [[0.0, -0.4], [0.5, 0.0], [1.0, 0.6]],
    },
    "evaluation": {"test": {"auroc": {"value": 0.81, "low": 0.75, "high": 0.86, "n": 196}}},
    "references": [{"messages": [{"role": "user", "content": "a text of the card"}], "score": 0.1}],
}


def browsing(engine: Engine, secret: str | None = None, exceptions: Sequence[RuleException] = ()) -> TestClient:
    page = make_ui(engine, LINKS, loopback_only=True, options=OPEN, exceptions=exceptions)
    # What the page answers, not what it raises.
    client = TestClient(page, base_url="http://localhost", follow_redirects=False, raise_server_exceptions=False)
    if secret is not None:
        client.cookies.set(COOKIE, session(engine, secret))
    return client


@pytest.fixture
def browser(engine: Engine) -> TestClient:
    return browsing(engine)


@pytest.fixture
def acting(engine: Engine) -> TestClient:
    with engine.begin() as connection:
        secret = tokens.create(connection, "anna", "act", timedelta(hours=1), ANNA)
    return browsing(engine, secret)


def words(html: str) -> str:
    """What a reader sees, in one line."""
    plain = re.sub(r"<(script|style|head)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", plain).split())


def test_an_empty_database(browser: TestClient) -> None:
    said = words(browser.get("/").text)
    assert "0 critical, open" in said
    assert "0 scores, last hour none of them flagged (0)" in said
    assert "None. Nothing was scored in the last hour either" in said
    assert "No worker heartbeat in the last hour" in said
    assert "No alert." in words(browser.get("/alerts").text)
    assert "No worker has loaded a probe yet. awry run --probe NAME loads one." in words(browser.get("/probes").text)


def test_now_counts_what_is_there(engine: Engine, browser: TestClient) -> None:
    scored(engine, 0, 6, value=0.9, ago=60, card=CARD)
    scored(engine, 6, 2, value=0.1, ago=60, card=CARD)
    scored(engine, 8, 3, ago=60, status="invalid")
    roll_up(engine)
    open_alerts(engine, [flagged(1, 5.0), flagged(2, 0.6, tenant="bank")], ("pager",))
    with engine.begin() as connection:
        actions.acknowledge(connection, next(a.id for a in all_alerts(engine) if a.tenant == "bank"), ANNA)
    said = words(browser.get("/").text)
    assert "1 critical, open" in said
    assert "0 warning, open" in said
    assert "8 scores, last hour 75.0% of them flagged (6)" in said
    assert "3 passed unscored (3 invalid)" in said
    assert "deliveries waiting" in said
    assert said.index("shop") < said.index("bank"), "open alerts come before acknowledged ones"
    assert browser.get("/").text.count('class="score flagged"') == 6
    assert browser.get("/").text.count('<circle class="score"') == 2


def test_a_burst_of_alerts_is_counted_whole(engine: Engine, browser: TestClient) -> None:
    open_alerts(engine, [flagged(n, 0.6, tenant=f"t{n:03}") for n in range(104)])
    open_alerts(engine, [flagged(500, 9.0, tenant="hospital")])
    page = browser.get("/").text
    assert "<title>105 open" in page
    assert "1 critical, open" in words(page)
    assert "104 warning, open" in words(page)
    assert "100 of 105" in words(page)
    assert "hospital" in page, "the most severe one is shown"


def test_a_worker_that_went_silent_says_so(engine: Engine, browser: TestClient) -> None:
    row = text(
        "INSERT INTO workers (id, name, source, seen_at, lag, lag_unit) "
        "VALUES (:id, :name, 'kafka:chat', now() - make_interval(mins => :ago), 7, 'messages')"
    )
    with engine.begin() as connection:
        for name, ago in (("new", 0), ("old", 5), ("gone", 120)):
            connection.execute(row, {"id": uuid.uuid4(), "name": name, "ago": ago})
    said = words(browser.get("/").text)
    assert re.search(r"new kafka:chat 0 s ago 7 messages", said)
    assert re.search(r"old kafka:chat silent 5 min ago", said)
    assert "gone" not in said


def test_a_worker_whose_file_ended_is_no_warning(engine: Engine, browser: TestClient) -> None:
    row = text(
        "INSERT INTO workers (id, name, source, seen_at, lag_unit) "
        "VALUES (:id, 'batch', 'day.jsonl', now() - interval '5 minutes', 'ended')"
    )
    with engine.begin() as connection:
        connection.execute(row, {"id": uuid.uuid4()})
    page = browser.get("/").text
    assert re.search(r"batch day\.jsonl ended 5 min ago", words(page))
    assert "silent" not in page


def test_one_alert(engine: Engine, browser: TestClient) -> None:
    (opened,) = open_alerts(engine, [flagged(1, 5.0)], ("pager",))
    open_alerts(engine, [flagged(2, 3.0)], ("pager",))
    answer = browser.get(f"/alerts/{opened.alert_id}")
    said = words(answer.text)
    assert "CRITICAL threshold: drift (tenant shop, model smol): 2 messages, 5.00 over 0.50 class gaps" in said
    assert said.index("m1 topic/0/1") < said.index("m2 topic/0/2")
    assert "alert.opened pager 0 waiting" in said
    assert "https://runbooks.example/threshold" in answer.text
    assert f"var-alert={opened.alert_id}" in answer.text
    assert f"awry alerts ack {str(opened.alert_id)[:8]}" in said


def test_what_decided_each_message_of_an_alert(engine: Engine, browser: TestClient) -> None:
    """In the column of the message, so that the table stays as narrow as it is."""
    today = utc_today()
    of_turns: dict[str, Any] = {"turn_scores": (0.1, None, 0.9), "trajectory": 0.9, "path_length": 0.8}
    rows = [
        score(1, 0.9, reading="base64", top_turn=2, turn_new=True, **of_turns),
        score(2, 0.8, top_turn=0, turn_new=False, **of_turns),
        score(3, 0.7, reading="joined"),
        score(4, 0.6),
    ]
    write(engine, BatchRows([message(n, f"s{n}", day=today) for n in range(1, 5)], rows))
    values = zip(range(1, 5), (0.9, 0.8, 0.7, 0.6), strict=True)
    (opened,) = open_alerts(engine, [replace(flagged(n, value), day=today) for n, value in values])
    page = browser.get(f"/alerts/{opened.alert_id}").text
    said = words(page)
    assert "0.900 m1 read as base64; turn 3, which is new topic/0/1" in said
    assert "0.800 m2 turn 1, which came before topic/0/2" in said
    assert "0.700 m3 read as joined topic/0/3" in said
    assert "0.600 m4 topic/0/4 Where nothing is said of the reading, the message was read as it is." in said
    (table,) = re.findall(r'<div id="messages".*?</table>', page, re.DOTALL)
    assert re.findall(r"<th[ >][^<]*", table) == ['<th class="number">Score', "<th>Message", "<th>Coordinates"]


def test_what_people_do(engine: Engine, acting: TestClient) -> None:
    (opened,) = open_alerts(engine, [flagged(1)], ("pager",))
    path = f"/alerts/{opened.alert_id}"

    def do(action: str, **form: str) -> int:
        return acting.post(f"{path}/{action}", data=form, headers=HERE).status_code

    assert do("acknowledge") == 303
    assert all_alerts(engine)[0].acknowledged_by == "anna"
    again = acting.post(f"{path}/acknowledge", headers=HERE)
    assert again.status_code == 409
    assert "Not done: acknowledge: the alert is acknowledged" in words(again.text)
    assert do("silence", **{"for": "2h", "comment": "maintenance"}) == 303
    assert all_alerts(engine)[0].state == "silenced"
    assert do("verdict", verdict="false", note="a joke") == 303
    assert do("resolve") == 303
    assert do("reopen") == 303
    assert [r.action for r in audit_rows(engine) if r.via == "page"] == [
        "acknowledge",
        "silence",
        "silence",
        "verdict",
        "resolve",
        "reopen",
    ]
    assert "note a joke" in words(acting.get(path).text)


@pytest.mark.parametrize(
    ("action", "form", "status", "why"),
    [
        ("silence", {"for": "soon"}, 409, "is no duration; write for example 90s"),
        ("silence", {"for": "400d"}, 409, "it must last from 1s to 90d"),
        ("silence", {}, 409, "is no duration"),
        ("verdict", {"verdict": "maybe"}, 409, "verdict: choose one of true, false, authorised_test"),
        ("reopen", {}, 409, "reopen: the alert is open; it must be resolved"),
        ("delete", {}, 404, "no such action; use one of acknowledge, resolve"),
        ("silence", {"for": "2h", "comment": "x" * 20_000}, 413, "the form is larger than"),
    ],
)
def test_forms_that_cannot_be(
    engine: Engine, acting: TestClient, action: str, form: dict[str, str], status: int, why: str
) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    refused = acting.post(f"/alerts/{opened.alert_id}/{action}", data=form, headers=HERE)
    assert refused.status_code == status
    assert why in words(refused.text)
    assert all_alerts(engine)[0].state == "open"


def test_only_what_can_be_done_is_offered(engine: Engine, acting: TestClient) -> None:
    (opened,) = open_alerts(engine, [flagged(1)])
    page = acting.get(f"/alerts/{opened.alert_id}").text
    assert re.findall(r'action="/alerts/[^/]+/(\w+)"', page) == ["acknowledge", "resolve", "silence", "verdict"]
    with engine.begin() as connection:
        actions.resolve(connection, opened.alert_id, ANNA)
    page = acting.get(f"/alerts/{opened.alert_id}").text
    assert re.findall(r'action="/alerts/[^/]+/(\w+)"', page) == ["reopen", "verdict"]


def test_one_message(engine: Engine, browser: TestClient) -> None:
    today = utc_today()
    stored = {"messages": [{"role": "user", "content": "how do I <b>brake</b>?"}], "response": "You & I"}
    batch = BatchRows(
        [message(7, day=today, message_id="m7", tenant="shop", text=stored)],
        [score(7, 0.9, heads=((3, 1, 0.75), (4, 0, -0.5))), score(7, 0.2, "calm")],
        [AnswerRow(at(7), "mitigated", 12, "drift: ablate", "Gently.", "aa")],
    )
    write(engine, batch)
    write(engine, BatchRows([message(7, "bb", "failed", day=today, reason="other content at known coordinates")]))
    open_alerts(engine, [flagged(7, 0.9)])
    answer = browser.get("/messages/topic/0/7")
    said = words(answer.text)
    assert f"drift version 1, {digest_of('drift')[:8]} 0.900 0.500 ◆ flagged" in said
    assert f"calm version 1, {digest_of('calm')[:8]} 0.200 0.500 below" in said
    assert "head[3,1] 0.75, head[4,0] -0.50" in said
    assert "&lt;b&gt;brake&lt;/b&gt;?" in answer.text
    assert "You &amp; I" in answer.text
    assert "mitigated answer 12 tokens, drift: ablate Gently." in said
    assert "1 other message with the same coordinates was not scored" in said
    assert all_alerts(engine)[0].rule in said


def test_a_message_without_text_says_where_it_is(engine: Engine, browser: TestClient) -> None:
    write(engine, BatchRows([message(7, day=utc_today(), text_sha256="ab" * 32)], [score(7)]))
    said = words(browser.get("/messages/topic/0/7").text)
    assert "Not stored. awry messages show topic/0/7" in said
    assert "ab" * 32 in said


def test_a_probe_and_its_card(engine: Engine, browser: TestClient) -> None:
    scored(engine, 0, 8, value=0.9, ago=60, card=CARD)
    roll_up(engine)
    for path in ("/probes", "/probes/drift"):
        answer = browser.get(path)
        assert "answers with code" in words(answer.text)
        assert "0.81 [0.75, 0.86], n 196" in words(answer.text)
        assert "a text of the card" not in answer.text
    said = words(answer.text)
    assert "0.500, for 1.0% false positives; measured 0.009 [0.001, 0.02], n 320 too few messages" in said
    assert "Bars: 8 scores of the last day" in said
    assert "Outline: the scores of the calibration" in said


def test_of_two_cards_of_a_probe_the_page_shows_the_one_in_use(engine: Engine, browser: TestClient) -> None:
    scored(engine, 0, 8, value=0.9, ago=120, card=CARD, probe_digest="d1" * 16)
    scored(engine, 100, 3, value=0.2, ago=60, card=CARD | {"description": "calibrated again"}, probe_digest="d2" * 16)
    roll_up(engine)
    page = browser.get("/probes/drift").text
    assert "Bars: 3 scores of the last day" in words(page)
    assert "calibrated again" in words(page)
    assert "d2" * 16 in page
    assert "0.900" not in page
    # Scores of before digests are shown, and compared with no card.
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET probe_digest = '' WHERE \"offset\" >= 100"))
        connection.execute(text("TRUNCATE score_histograms, score_rollups, head_rollups, rollup_state"))
    roll_up(engine)
    said = words(browser.get("/probes/drift").text)
    assert "its latest scores are from before digests: they are compared with no card" in said
    assert "No scores in the last day, or none rolled up yet" in said


@pytest.mark.parametrize(
    "card",
    [{}, {"calibration": None, "directions": None}, {"evaluation": {"test": {}, "nulls": {"control": "none given"}}}],
)
def test_a_card_that_says_little(engine: Engine, browser: TestClient, card: dict[str, Any]) -> None:
    with engine.begin() as connection:
        register_probe(connection, "digest", "bare", 1, "hash", card)
    assert "Threshold not calibrated" in words(browser.get("/probes").text)
    assert "Threshold not calibrated" in words(browser.get("/probes/bare").text)


def test_names_from_traffic_are_text(engine: Engine, browser: TestClient) -> None:
    evil = "<script>alert(1)</script>\u202e"
    (opened,) = open_alerts(engine, [flagged(1, 5.0, tenant=evil)])
    write(engine, BatchRows([message(1, day=utc_today(), message_id=evil, tenant=evil, model=evil)], [score(1, 5.0)]))
    for path in ("/", "/alerts", f"/alerts/{opened.alert_id}", "/messages/topic/0/1"):
        page = browser.get(path).text
        assert "<script>alert" not in page, path
        assert "\u202e" not in page, path
        assert "&lt;script&gt;" in page, path


def test_sources_with_odd_names_have_a_page(engine: Engine, browser: TestClient) -> None:
    for name in ("/var/log/chat.jsonl", "a b?c#d", "täglich"):
        write(engine, BatchRows([replace(message(5, day=utc_today()), at=at(5, name))]))
        answer = browser.get(place_url({"source": name, "partition": 0, "offset": 5}))
        assert answer.status_code == 200, name


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/nothing", 404, "there is no such page"),
        ("/alerts/1234", 404, "Not found"),
        (f"/alerts/{uuid.UUID(int=0)}", 404, "there is no such alert"),
        ("/messages/topic/0/99", 404, "no message is known at these coordinates"),
        (f"/messages/topic/0/{2**63}", 404, f"coordinates: should be less than or equal to {2**63 - 1}"),
        (f"/messages/topic/{2**31}/0", 404, f"coordinates: should be less than or equal to {2**31 - 1}"),
        (f"/messages/topic/0/{'9' * 5000}", 404, "coordinates: is too large"),
        (f"/messages/topic/{'9' * 5000}/0", 404, "coordinates: is too large"),
        (f"/messages/topic/0/1.{'9' * 5000}", 404, "coordinates: is too large"),
        ("/messages/topic/0/1.", 404, "coordinates: not a number"),
        ("/messages/topic/0/1.2.3", 404, "coordinates: not a number"),
        ("/messages/topic/0/%C2%B2", 404, "coordinates: not a number"),
        ("/messages/topic/-1/0", 404, "coordinates: not a number"),
        ("/messages/to%00pic/0/1", 404, "no message is known"),
        ("/probes/none", 404, "no worker has loaded a probe of this name"),
        ("/alerts?state=closed", 400, "state: use one of open, acknowledged, silenced, resolved"),
        ("/alerts?cursor=junk", 400, "cursor: not valid"),
        ("/alerts?tenant=a%00b", 200, "No alert matches"),
    ],
)
def test_bad_addresses(browser: TestClient, path: str, status: int, why: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == status
    assert why in words(answer.text)


def test_older_alerts_are_a_link_away(engine: Engine, browser: TestClient) -> None:
    for n in range(103):
        open_alerts(engine, [flagged(n, tenant=f"t{n:03}")])
    first = browser.get("/alerts?severity=warning").text
    older = re.search(r'href="(/alerts\?[^"]+)">Older', first)
    assert older is not None
    second = browser.get(older[1].replace("&amp;", "&")).text
    seen = [set(re.findall(r"\bt\d{3}\b", page)) for page in (first, second)]
    assert [len(s) for s in seen] == [100, 3]
    assert seen[0].isdisjoint(seen[1])


def test_the_filter_keeps_what_was_asked(engine: Engine, browser: TestClient) -> None:
    open_alerts(engine, [flagged(1), flagged(2, tenant="bank")])
    page = browser.get("/alerts", params={"tenant": "bank", "state": "open"}).text
    assert 'name="tenant" value="bank"' in page
    assert "<option selected>open</option>" in page
    assert page.count('<td class="wide"><a href="/alerts/') == 1


def test_headers_keep_the_page_to_itself(browser: TestClient) -> None:
    for path in ("/", "/nothing", "/static/page.css"):
        headers = browser.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert browser.get("/").headers["cache-control"] == "no-store"
    # Nothing is loaded from elsewhere, and no style or script stands in the page.
    page = browser.get("/").text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert not re.findall(r"\sstyle=|\son\w+=|<style|<script>", page)


def test_an_unexpected_error_is_named_by_its_class(
    engine: Engine, browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a prompt that must not be seen")

    monkeypatch.setattr("monitor.web.ui.views.now", broken)
    answer = browser.get("/")
    assert answer.status_code == 500
    assert "RuntimeError" in answer.text
    assert "a prompt" not in answer.text


def test_a_database_that_is_unavailable() -> None:
    nowhere = create_engine("postgresql+psycopg://awry:secret@127.0.0.1:1/awry")
    for path in ("/", "/alerts", "/probes", "/messages/topic/0/1"):
        answer = browsing(nowhere).get(path)
        assert answer.status_code == 503
        assert "the database is unavailable or busy" in words(answer.text)
        assert "secret" not in answer.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_address_breaks_it(module_engine: Engine, path: str, value: str) -> None:
    browser = browsing(module_engine)
    for asked in (f"/{path}", f"/alerts/{path}", f"/messages/{path}/0/1", f"/probes/{path}"):
        assert browser.get(quote(asked)).status_code < 500
    assert browser.get("/alerts", params={"tenant": value, "cursor": path, "state": value}).status_code < 500


def test_exceptions_that_hold_are_shown_with_owner_and_end(engine: Engine) -> None:
    now = datetime.now(UTC)

    def exception(owner: str, days: int) -> RuleException:
        return RuleException(
            matchers=[f"tenant=of-{owner}"],
            owner=owner,
            reason=f"<b>why {owner}</b>",
            until=(now + timedelta(days=days)).isoformat(),
        )

    known = [exception("late", 200), exception("soon", 3), exception("over", -1)]
    page = browsing(engine, exceptions=known).get("/").text
    said = unescape(words(page))
    assert said.index('tenant="of-soon" soon') < said.index('tenant="of-late" late')
    assert "&lt;b&gt;why soon&lt;/b&gt;" in page
    assert f"{now + timedelta(days=200):%Y-%m-%d}" in page
    assert said.count("ends soon") == 1
    assert "over" not in said.partition("Exceptions")[2].partition("Live scores")[0]
    assert "<form" not in page.partition("Exceptions")[2].partition("Live scores")[0]
    assert "Exceptions" not in words(browsing(engine).get("/").text)


def test_a_session_of_one_tenant_sees_no_exceptions(engine: Engine) -> None:
    with engine.begin() as connection:
        secret = tokens.create(connection, "bank", "read", timedelta(hours=1), ANNA, tenant="bank")
    until = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    known = [RuleException(matchers=["tenant=other"], owner="anna", reason="known", until=until)]
    page = browsing(engine, secret, known).get("/")
    assert page.status_code == 200
    assert "Exceptions" not in page.text
