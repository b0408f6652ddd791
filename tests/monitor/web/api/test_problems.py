"""Error responses name the field and the fix, and repeat neither the input nor the text of an exception."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from alerts.lifecycle import actions, audit
from monitor.web.api import middleware
from monitor.web.api.app import make_api
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.rows import dump
from tests.support.web.api import Client, token, unlimited

CANARY = "CANARYTEXT"
ID = "00000000-0000-4000-8000-000000000000"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "content", "fields"),
    [
        ("POST", f"/alerts/{ID}/verdict", json.dumps({"verdict": CANARY}), ["body.verdict"]),
        ("POST", f"/alerts/{ID}/verdict", json.dumps({"verdict": "true", "note": [CANARY]}), ["body.note"]),
        ("POST", f"/alerts/{ID}/verdict", json.dumps({"verdict": "true", "note": CANARY * 200}), ["body.note"]),
        ("POST", f"/alerts/{ID}/verdict", json.dumps({"verdict": "true", CANARY: 1}), ["body"]),
        ("POST", f"/alerts/{ID}/verdict", json.dumps([CANARY]), ["body"]),
        ("POST", f"/alerts/{ID}/verdict", json.dumps(CANARY), ["body"]),
        ("POST", f"/alerts/{ID}/verdict", '{"verdict": "true", "note": "' + CANARY, ["body"]),
        ("POST", f"/alerts/{ID}/verdict", CANARY, ["body"]),
        ("POST", f"/alerts/{ID}/verdict", "[" * 20_000 + CANARY, ["body"]),
        ("POST", f"/alerts/{ID}/verdict", '{"verdict": "true", "note": "\\ud800 ' + CANARY + '"}', ["body.note"]),
        ("POST", f"/alerts/{ID}/verdict", CANARY.encode() + b"\xff", ["body"]),
        ("POST", f"/alerts/{ID}/verdict", '{"verdict": ' + "9" * 5000 + "}", ["body"]),
        ("POST", f"/alerts/{CANARY}/verdict", '{"verdict": "true"}', ["path.id"]),
        ("POST", f"/alerts/{CANARY}/verdict", json.dumps({"verdict": CANARY}), ["path.id", "body.verdict"]),
        ("POST", f"/alerts/{ID}/silence", json.dumps({"for": CANARY}), ["body.for"]),
        ("POST", "/silences", json.dumps({"rule": "a", "up_to": CANARY}), ["body.up_to"]),
        ("GET", f"/alerts?cursor={CANARY}", None, ["query.cursor"]),
        ("GET", "/alerts?cursor=MjAyNi0wMS0wMSB4", None, ["query.cursor"]),
        ("GET", f"/alerts?limit={CANARY}", None, ["query.limit"]),
        ("GET", f"/alerts?{CANARY}=1", None, ["query"]),
        ("GET", f"/alerts?state={CANARY}&severity={CANARY}", None, ["query.state", "query.severity"]),
        ("GET", "/alerts?limit=0", None, ["query.limit"]),
        ("GET", "/alerts?limit=201", None, ["query.limit"]),
        ("GET", "/alerts?tenant=", None, ["query.tenant"]),
        ("GET", f"/alerts?tenant={'t' * 501}", None, ["query.tenant"]),
    ],
)
def test_wrong_input_is_named_and_not_repeated(
    act: Client, caplog: pytest.LogCaptureFixture, method: str, path: str, content: Any, fields: list[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = act.ask(method, path, 422, content=content, headers=JSON)
    assert [error["field"] for error in answer.json()["errors"]] == fields
    assert CANARY not in answer.text
    assert CANARY not in "".join(r.getMessage() for r in caplog.records if r.name != "httpx2")


def test_a_body_that_does_not_say_that_it_is_json(act: Client) -> None:
    answer = act.ask("POST", "/silences", 422, content='{"rule": "a"}', headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(engine: Engine, act: Client, chunked: bool) -> None:
    (one,) = open_alerts(engine, [flagged(1)])
    body = json.dumps({"verdict": "true", "note": "n" * 65_536}).encode()
    content = (body[n : n + 1000] for n in range(0, len(body), 1000)) if chunked else body
    answer = act.ask("POST", f"/alerts/{one.alert_id}/verdict", 413, content=content, headers=JSON)
    assert answer.json()["detail"] == "the body is larger than 65536 bytes"
    # Authentication comes first: no body is read without a token.
    Client(act.app).ask("POST", f"/alerts/{one.alert_id}/verdict", 401, content=body, headers=JSON)


def test_a_body_that_just_fits(engine: Engine, act: Client) -> None:
    (one,) = open_alerts(engine, [flagged(1)])
    body = b'{"verdict": "true"}'
    whole = body + b" " * (65_536 - len(body))
    act.ask("POST", f"/alerts/{one.alert_id}/verdict", 200, content=whole, headers=JSON)
    act.ask("POST", f"/alerts/{one.alert_id}/verdict", 413, content=whole + b" ", headers=JSON)


@pytest.mark.parametrize("length", ["99999999999999999999", "-1", "x", "²", ""])
def test_a_length_that_lies(engine: Engine, act: Client, length: str) -> None:
    answer = act.ask("POST", "/silences", content=b'{"rule": "a"}', headers=JSON | {"Content-Length": length.encode()})
    assert answer.status_code == (413 if length.startswith("9") else 201)


def test_what_nobody_expected_says_its_class_only(
    engine: Engine, act: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = open_alerts(engine, [flagged(1)])

    def broken(*_: Any) -> Any:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(actions, "acknowledge", broken)
    answer = act.ask("POST", f"/alerts/{one.alert_id}/acknowledge", 500)
    assert answer.json()["detail"] == "unexpected RuntimeError; the service's log says where"
    logged = [r for r in caplog.records if r.name == "awry.api"]
    assert [r.getMessage().rpartition(":")[0] for r in logged] == ["unexpected RuntimeError at test_problems.py"]
    assert logged[0].exc_info is None
    assert CANARY not in caplog.text + answer.text


def test_a_change_that_breaks_halfway_leaves_nothing(
    engine: Engine, act: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = open_alerts(engine, [flagged(1)])
    write_audit_row = audit.write_audit_row
    before = dump(engine, without=("api_tokens",))

    def broken(*arguments: Any, **more: Any) -> None:
        write_audit_row(*arguments, **more)
        raise ZeroDivisionError

    monkeypatch.setattr(actions, "write_audit_row", broken)
    act.post(f"/alerts/{one.alert_id}/acknowledge", 500)
    act.post(f"/alerts/{one.alert_id}/verdict", 500, {"verdict": "true"})
    act.post("/silences", 500, {"rule": "a"})
    assert dump(engine, without=("api_tokens",)) == before


def test_a_database_that_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    app = make_api(create_engine("postgresql+psycopg://u:geheim@127.0.0.1:1/x", hide_parameters=True))
    answer = Client(app, "awry_" + "0" * 64).ask("GET", "/alerts", 503)
    assert answer.headers["retry-after"] == "5"
    assert "geheim" not in answer.text + caplog.text
    assert "127.0.0.1" not in answer.text


def test_a_pool_that_is_empty(engine: Engine, act: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the route: the token was looked up, then others took all connections."""

    def wait(*_: Any) -> Any:
        raise PoolTimeoutError(CANARY)

    monkeypatch.setattr("monitor.web.api.alerts.alert_page", wait)
    assert CANARY not in act.ask("GET", "/alerts", 503).text


def test_a_body_that_does_not_come(engine: Engine, act: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {token(engine, 'slow')}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/silences", "headers": headers, "client": ("10.0.0.7", 1)}
    asyncio.run(act.app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert b"within 0.05 s" in sent[1]["body"]
    assert [r for r in audit_rows(engine) if r.via == "api"] == []


@pytest.fixture(scope="module")
def wild(module_engine: Engine) -> tuple[Client, str]:
    """A client that may ask as often as it likes, and an alert."""
    app: FastAPI = unlimited(module_engine)
    (one,) = open_alerts(module_engine, [flagged(1)])
    return Client(app, token(module_engine, "wild")), str(one.alert_id)


TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["*", "1h", "true", "critical", "open", "\x00", "9" * 30, ID]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["verdict", "note", "for", "comment", "rule", "probe", "tenant", "model", "up_to", "dedup_key"])
BODIES = st.one_of(VALUES, st.dictionaries(NAMES, VALUES | TEXTS, max_size=5)).map(lambda v: json.dumps(v).encode())
ACTIONS = ("acknowledge", "resolve", "reopen", "verdict", "silence")
PATHS = [
    "/alerts",
    "/alerts/{}",
    "/silences",
    "/silences/{}",
    "/precision",
    "/messages/{}/0/1",
    "/deliveries",
    *(f"/alerts/{{}}/{action}" for action in ACTIONS),
]
# Times that UTC has no year for.
FAR = [
    base64.urlsafe_b64encode(f"{at} {ID}".encode()).decode().rstrip("=")
    for at in ("9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59")
]
QUERY = st.dictionaries(
    st.sampled_from(["state", "rule", "tenant", "severity", "limit", "cursor", "x"]) | TEXTS, TEXTS, max_size=3
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"]),
    st.sampled_from(PATHS),
    st.one_of(st.just(""), TEXTS),
    QUERY,
    st.one_of(BODIES, st.binary(max_size=50)),
    st.sampled_from(
        ["application/json", "text/plain", "application/x-www-form-urlencoded", "\u00ff/x; charset=\u00ff"]
    ),
)
@example("GET", "/alerts", "", {"cursor": FAR[0]}, b"", "text/plain")
@example("GET", "/alerts", "", {"cursor": FAR[1]}, b"", "text/plain")
def test_garbage_is_never_an_internal_error(
    wild: tuple[Client, str], method: str, path: str, name: str, query: dict[str, str], body: bytes, kind: str
) -> None:
    """Every answer is one that the description promises (the client checks that), and none is a 5xx."""
    client, alert = wild
    where = path.format(quote(name, safe="", errors="replace") or alert)
    answer = client.ask(method, where, params=query, content=body, headers={"Content-Type": kind.encode("latin-1")})
    assert answer.status_code < 500
