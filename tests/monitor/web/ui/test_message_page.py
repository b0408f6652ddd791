"""The page of one message on a real PostgreSQL: whatever is stored has a page; who reads a text is recorded."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, make_url, text
from starlette.testclient import TestClient

from storage.coordinates import Coordinates, clean
from storage.database import connect
from storage.judgements import record_judgement
from storage.partitions import utc_today
from storage.writer import AnswerRow, BatchRows, MessageRow, WindowRow, register_probe
from tests.monitor.web.ui.test_pages import browsing, words
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.rows import at, digest_of, message, score, write
from tests.support.web.api import token

TOOL = {"type": "function", "function": {"name": "run_shell", "description": "runs a command", "parameters": {}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "run_shell", "arguments": {"command": "ls <dir>"}}}


@pytest.fixture
def browser(engine: Engine) -> TestClient:
    return browsing(engine)


def kept(stored: Any, **more: Any) -> MessageRow:
    return message(7, day=utc_today(), message_id="m7", text=stored, **more)


def readings(engine: Engine) -> list[Any]:
    return [row for row in audit_rows(engine) if row.action == "message.read"]


@pytest.mark.parametrize(
    ("stored", "shown", "absent"),
    [
        ({"messages": [{"role": "user", "content": "only a prompt"}]}, ["user only a prompt"], ["response"]),
        ({"messages": [{"role": "user", "content": "q"}], "response": "r & d"}, ["user q", "response r & d"], []),
        ({"messages": [{"role": "user", "content": "q"}], "response": None}, ["user q"], ["response"]),
        ({"messages": [{"role": "user", "content": "q"}], "response": ""}, ["user q", "response"], []),
        (
            {
                "messages": [
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "c1", "name": "run_shell", "content": "a.txt"},
                    {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "stop", "arguments": "{}"}}]},
                ],
                "tools": [TOOL],
            },
            [
                "assistant calls run_shell (c1)",
                '"command": "ls <dir>"',
                "tool name run_shell, result of c1 a.txt",
                "calls stop (c1) {}",
                "1 function that the model may call",
                "runs a command",
            ],
            ["No content"],
        ),
        ({"messages": [{"role": "assistant"}, {"content": "who?"}]}, ["assistant No content.", "no role who?"], []),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a part"}], "weight": 0}]},
            ["weight 0", "a part"],
            [],
        ),
        ({"prompt": "of long ago"}, ["user of long ago"], []),
        ({"messages": []}, ["Not stored."], []),
        ({"messages": "a string", "tools": {"a": 1}}, ["messages a string", '"a": 1'], []),
        (["a", "list"], ['"list"'], []),
    ],
)
def test_any_stored_text_is_shown(
    engine: Engine, browser: TestClient, stored: Any, shown: list[str], absent: list[str]
) -> None:
    write(engine, BatchRows([kept(stored)]))
    answer = browser.get("/messages/topic/0/7")
    assert answer.status_code == 200
    assert "<dir>" not in answer.text
    said = unescape(words(answer.text))
    section = said[said.index(" Text ") :]
    for words_of in shown:
        assert " ".join(words_of.split()) in section
    for words_of in absent:
        assert words_of not in section


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ("role", "content", "name", "tool_calls", "tool_call_id", "function", "arguments", "id", "x")
    ), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
TEXTS = JSON | st.fixed_dictionaries({}, optional={
    "messages": st.lists(JSON, max_size=3) | JSON, "tools": st.lists(JSON, max_size=2) | JSON,
    "response": JSON, "prompt": JSON,
})  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=TEXTS, notes=JSON, unread=JSON, attributes=JSON, partial=st.none() | st.text(max_size=5))
@example({"messages": [{"tool_calls": [{"function": {"arguments": None}}]}]}, ["a"], {"image": 2}, {}, "length,media")
def test_no_json_breaks_it(
    module_engine: Engine, stored: Any, notes: Any, unread: Any, attributes: Any, partial: str | None
) -> None:
    row = replace(kept(stored), notes=("x",), unread={"x": 1}, attributes={"x": 1}, partial="x")
    write(module_engine, BatchRows([row]))
    change = text(
        "UPDATE messages SET text = CAST(:text AS jsonb), notes = CAST(:notes AS jsonb), "
        "unread = CAST(:unread AS jsonb), attributes = CAST(:attributes AS jsonb), partial = :partial"
    )

    values = {"text": stored, "notes": notes, "unread": unread, "attributes": attributes}
    with module_engine.begin() as connection:
        dumped = {name: json.dumps(clean(value)) for name, value in values.items()}
        connection.execute(change, dumped | {"partial": clean(partial)})
    assert browsing(module_engine).get("/messages/topic/0/7").status_code == 200


@pytest.mark.parametrize(
    "card",
    [
        {"calibration": {"threshold": 0.5, "fpr": {"value": 0.1}, "target_fpr": "1%", "quantiles": [1, [2], ["a", 3]]}},
        {"evaluation": {"test": {"auroc": {"value": "0.8"}}, "nulls": {"x": {"auroc_mean": None, "n": 1}}}},
        {"directions": ["residual[3]", {"site": None}], "identity": [], "aggregation": 3, "description": 5 * ["a"]},
    ],
)
def test_a_card_of_another_form_has_pages(engine: Engine, browser: TestClient, card: dict[str, Any]) -> None:
    with engine.begin() as connection:
        register_probe(connection, "digest", "odd", 1, "hash", card)
    assert browser.get("/probes").status_code == 200
    assert browser.get("/probes/odd").status_code == 200


def test_what_was_read_of_a_message(engine: Engine, browser: TestClient) -> None:
    facts: dict[str, Any] = {
        "format": "openai.chat",
        "rendered": "adapted",
        "notes": ("system joined to the first user turn", "user: over 256 characters, dropped"),
        "unread": {"image": 2, "audio": 1},
        "special_tokens": 3,
        "partial": "length,media",
        "windows": 4,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    windows = [
        WindowRow(at(7), p, n, 512 * n, 512, s) for p, n, s in (("drift", 0, 0.25), ("calm", 0, 0.5), ("drift", 2, -1))
    ]
    write(engine, BatchRows([kept(None, **facts)], [score(7, 0.9)], [], windows))
    said = words(browser.get("/messages/topic/0/7").text)
    assert "scored partial" in said
    assert "Format openai.chat" in said
    assert "Rendered adapted, since the model's template refuses it" in unescape(said)
    assert "Notes system joined to the first user turn; user: over 256 characters, dropped" in said
    assert "Parts without text 1 audio, 2 image" in said
    assert "Control tokens in the content 3 written by the sender" in said
    assert "Read not whole: longer than max_tokens, parts without text partial" in said
    assert "Windows 4 Trace 4bf92f3577b34da6a3ce929d0e0e4736" in said
    assert "Window From token Tokens calm drift 0 0 512 0.500 0.250 2 1024 512 -1.000" in said


def test_a_plain_message_has_no_empty_facts(engine: Engine, browser: TestClient) -> None:
    write(engine, BatchRows([kept(None, format="awry", rendered="template")], [score(7, 0.9)]))
    said = words(browser.get("/messages/topic/0/7").text)
    assert "Format awry Rendered by the model" in said
    for label in ("Notes", "Parts without text", "Control tokens", "Windows", "partial", "Trace"):
        assert label not in said


@pytest.mark.parametrize(
    "stored",
    ["'infinity'", "'-infinity'", "'10000-01-01 11:59:59+00'", "'0001-12-31 10:00:00+00 BC'", "'294276-01-01'"],
)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Adak"])
def test_a_time_that_python_cannot_hold(engine: Engine, stored: str, zone: str) -> None:
    write(engine, BatchRows([message(7, day=utc_today())], [score(7)]))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE messages SET sent_at = {stored}"))  # noqa: S608
    elsewhere = connect(engine.url.update_query_dict({"options": f"-c TimeZone={zone}"}).render_as_string(False))
    try:
        answer = browsing(elsewhere).get("/messages/topic/0/7")
    finally:
        elsewhere.dispose()
    assert answer.status_code == 200
    assert re.search(r"Sent .*(infinity|10000|BC|294276|294275).* \(outside the years 1 to 9999\)", words(answer.text))


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Adak"])
@pytest.mark.parametrize("stored", ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59+00"])
def test_the_first_and_the_last_time_that_it_can(engine: Engine, stored: str, zone: str) -> None:
    """In whatever zone the server writes them, where these are other years."""
    write(engine, BatchRows([message(7, day=utc_today())], [score(7)]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE messages SET sent_at = CAST(:at AS timestamptz)"), {"at": stored})
    elsewhere = connect(engine.url.update_query_dict({"options": f"-c TimeZone={zone}"}).render_as_string(False))
    try:
        answer = browsing(elsewhere).get("/messages/topic/0/7")
    finally:
        elsewhere.dispose()
    assert answer.status_code == 200
    assert "Sent" in words(answer.text)


def test_each_message_of_a_record_has_its_page(engine: Engine, browser: TestClient) -> None:
    places = [Coordinates("a/b", 3, 1204, sub) for sub in (0, 7)]
    rows = [replace(kept(None), at=place, message_id=f"sub {place.sub}") for place in places]
    write(engine, BatchRows(rows))
    for path, title, place in (("1204", "sub 0", "1204"), ("1204.0", "sub 0", "1204"), ("1204.7", "sub 7", "1204.7")):
        answer = browser.get(f"/messages/a/b/3/{path}")
        assert answer.status_code == 200
        assert f"Message {title}" in words(answer.text)
        assert f"awry messages show a/b/3/{place} " in words(answer.text) + " "
    assert browser.get("/messages/a/b/3/1204.8").status_code == 404


def test_other_messages_at_the_same_coordinates_are_counted_by_sub(engine: Engine, browser: TestClient) -> None:
    first = [replace(kept(None), at=Coordinates("topic", 0, 7, sub)) for sub in (0, 1)]
    write(engine, BatchRows(first))
    write(engine, BatchRows([replace(first[1], payload_sha256="bb")]))
    assert "other message" not in words(browser.get("/messages/topic/0/7").text)
    assert "1 other message with the same coordinates" in words(browser.get("/messages/topic/0/7.1").text)


# Who reads a text.


def test_reading_a_text_leaves_an_audit_row(engine: Engine) -> None:
    write(engine, BatchRows([kept({"messages": [{"role": "user", "content": "the text"}]})]))
    reader = browsing(engine, token(engine, "wall", "read"))
    assert "the text" in reader.get("/messages/topic/0/7").text
    (row,) = readings(engine)
    assert (row.who, row.via, row.origin) == ("wall", "page", "testclient")
    assert (row.before, row.after) == (None, {"message": {"source": "topic", "partition": 0, "offset": 7}})
    assert "the text" not in str(row)
    browsing(engine).get("/messages/topic/0/7")
    assert [row.who for row in readings(engine)] == ["wall", "nobody"]


def test_the_audit_names_the_message_of_a_record(engine: Engine, browser: TestClient) -> None:
    write(engine, BatchRows([replace(kept({"messages": [{"content": "x"}]}), at=Coordinates("topic", 0, 7, 2))]))
    browser.get("/messages/topic/0/7.2")
    assert readings(engine)[0].after == {"message": {"source": "topic", "partition": 0, "offset": 7, "sub": 2}}


def test_the_text_of_an_answer_is_a_text(engine: Engine, browser: TestClient) -> None:
    write(engine, BatchRows([kept(None)], [], [AnswerRow(at(7), "mitigated", 2, "r", "Gently.", "aa")]))
    assert "Gently." in browser.get("/messages/topic/0/7").text
    assert len(readings(engine)) == 1


def test_nothing_is_recorded_where_no_text_is_shown(engine: Engine) -> None:
    write(engine, BatchRows([kept(None, text_sha256="ab")], [score(7)], [AnswerRow(at(7), "plain", 2)]))
    write(engine, BatchRows([replace(kept({"messages": [{"content": "the text"}]}), at=at(8))]))
    browsing(engine).get("/messages/topic/0/7")
    browsing(engine).head("/messages/topic/0/8")
    browsing(engine).get("/messages/topic/0/9")
    # One that may not read at all.
    outside = browsing(engine)
    outside.headers["x-forwarded-for"] = "10.0.0.1"
    assert outside.get("/messages/topic/0/8").status_code == 303
    assert readings(engine) == []


def test_no_text_without_its_audit_row(engine: Engine) -> None:
    """A page whose role may read only shows everything but the text."""
    stored = {"messages": [{"role": "user", "content": "the text"}]}
    write(engine, BatchRows([kept(stored)], [score(7)], [AnswerRow(at(7), "plain", 2, text="the answer")]))
    role = f"reads_{uuid.uuid4().hex[:12]}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} NOLOGIN"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
    bounded = connect(make_url(engine.url).update_query_dict({"options": f"-c role={role}"}).render_as_string(False))
    try:
        answer = browsing(bounded).get("/messages/topic/0/7")
    finally:
        bounded.dispose()
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
    assert answer.status_code == 200
    said = words(answer.text)
    assert "A text is stored and is not shown" in said
    assert "0.900 0.500" in said
    assert "the text" not in said.replace("of the text", "")
    assert "the answer" not in said
    assert readings(engine) == []


def test_scores_of_two_cards_of_a_probe_are_apart(engine: Engine, browser: TestClient) -> None:
    first = score(7, 0.9, probe_digest="d1" * 16, heads=((3, 1, 0.75),))
    second = replace(first, probe_digest="d2" * 16, probe_version=2, score=0.2, heads=((3, 1, 0.25),))
    before = replace(first, probe_digest="", score=0.1, heads=())
    windows = [WindowRow(at(7), "drift", 0, 0, 9, row.score, row.probe_digest) for row in (first, second)]
    # The one of before digests came first.
    write(engine, BatchRows([kept(None)], [before]))
    write(engine, BatchRows([kept(None)], [replace(first, shadow=True), second], [], windows))
    said = words(browser.get("/messages/topic/0/7").text)
    assert "drift version 1, d1d1d1d1 0.900 0.500" in said
    assert "drift version 2, d2d2d2d2 0.200 0.500" in said
    assert "drift version 1, digest unknown 0.100 0.500" in said
    assert "drift version 1, d1d1d1d1 drift version 2, d2d2d2d2 0 0 9 0.900 0.200" in said


def test_links_to_a_message_of_a_record(engine: Engine, browser: TestClient) -> None:
    """From the chart of scores."""
    place = Coordinates("topic", 0, 7, 3)
    flagged_score = replace(score(7, 0.9), at=place)
    with engine.begin() as connection:
        register_probe(connection, digest_of("drift"), "drift", 1, "hash", {})
    write(engine, BatchRows([replace(kept(None), at=place)], [flagged_score]))
    assert 'href="/messages/topic/0/7.3"' in browser.get("/").text


def test_alerts_link_to_a_message_of_a_record(engine: Engine, browser: TestClient) -> None:
    """With `sub` in the reference, and without for alerts of before."""
    further = replace(flagged(2, 0.9, tenant="bank"), coordinates=Coordinates("a/b", 0, 2, 7))
    open_alerts(engine, [flagged(1, 0.9), further])
    page = browser.get("/alerts").text
    assert 'href="/messages/topic/0/1"' in page
    assert 'href="/messages/a%2Fb/0/2.7"' in page
    with engine.begin() as connection:
        connection.execute(text("UPDATE alerts SET top_message = top_message - 'id' - 'sub'"))
    for path in ("/", "/alerts"):
        assert 'href="/messages/a%2Fb/0/2"' in browser.get(path).text


def test_what_decided_a_score(engine: Engine, browser: TestClient) -> None:
    """Turns are counted from 1 on the page; one without a value is left out."""
    row = score(
        7,
        0.9,
        reading="base64",
        turn_scores=(0.1, None, 0.9),
        top_turn=2,
        turn_new=False,
        trajectory=0.8,
        path_length=0.75,
    )
    write(engine, BatchRows([kept(None, unreadable=0.25, second_tokens=40)], [row]))
    said = words(browser.get("/messages/topic/0/7").text)
    assert "drift: read as base64; trajectory 0.800, path 0.750" in said
    assert "1 0.100 3 0.900 ◆ highest, history, came before" in said
    assert "Second readings 40 tokens" in said
    assert "Unreadable 25" in said


def test_what_the_judge_says(engine: Engine, browser: TestClient) -> None:
    """Beside the probe's verdict, with who said it and when; a name from the settings is text."""
    rows = [
        score(7, 0.9, judge="waiting"),
        score(7, 0.6, "other", judge="not asked", judge_reason="budget spent"),
        score(7, 0.1, "third", judge="waiting"),
        score(7, 0.0, "calm"),
    ]
    write(engine, BatchRows([kept(None)], rows))
    when = datetime(2026, 3, 1, 12, tzinfo=UTC)
    with engine.begin() as connection:
        place, by = (at(7), "drift", digest_of("drift")), "<b>small</b> at llm.example"
        assert record_judgement(connection, *place, "harmful", by, "confidence 0.80", when)
    answer = browser.get("/messages/topic/0/7").text
    assert "&lt;b&gt;small&lt;/b&gt; at llm.example" in answer
    said = words(answer)
    judge = "harmful, confidence 0.80, by &lt;b&gt;small&lt;/b&gt; at llm.example, 2026-03-01 12:00:00 UTC"
    assert f"0.900 0.500 ◆ flagged judge: {judge}" in said
    assert re.search(r"0\.600 0\.500 ◆ flagged judge: not asked, budget spent 20\d\d-", said)
    assert re.search(r"0\.100 0\.500 below judge: waiting 20\d\d-", said)
    assert re.search(r"0\.000 0\.500 below 20\d\d-", said)


def test_a_reading_leads_to_the_message_with_its_text(engine: Engine, browser: TestClient) -> None:
    write(engine, BatchRows([kept(None, format="reading", tenant="shop")]))
    page = words(browser.get("/messages/topic/0/7").text)
    assert "it holds no text, and no message of this id came from elsewhere" in page
    elsewhere = kept({"messages": [{"role": "user", "content": "what was asked"}]}, tenant="shop")
    write(engine, BatchRows([replace(elsewhere, at=at(3, source="gateway"))]))
    answered = browser.get("/messages/topic/0/7").text
    assert 'href="/messages/gateway/0/3"' in answered
    assert "The same message came from a gateway as gateway/0/3 , with its text" in words(answered)
    # Nobody has read it yet.
    assert "what was asked" not in answered
    assert readings(engine) == []
