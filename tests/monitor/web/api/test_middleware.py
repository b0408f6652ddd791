"""Authentication: nothing without a token, changes only with scope act, and rate limits."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.testclient import TestClient

from monitor.web.api.app import make_api
from monitor.web.auth.rate_limit import Limiter
from storage.schema import api_tokens
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.rows import dump, stored
from tests.support.web.api import Client, expire, revoke, token

ID = "00000000-0000-4000-8000-000000000000"
WRITES = [
    ("POST", f"/alerts/{ID}/acknowledge", None),
    ("POST", f"/alerts/{ID}/resolve", None),
    ("POST", f"/alerts/{ID}/reopen", None),
    ("POST", f"/alerts/{ID}/verdict", {"verdict": "true"}),
    ("POST", f"/alerts/{ID}/silence", {}),
    ("POST", "/silences", {"rule": "a"}),
    ("DELETE", f"/silences/{ID}", None),
]
READS = [
    "/alerts",
    f"/alerts/{ID}",
    "/silences",
    "/precision",
    "/messages",
    "/messages/topic/0/1",
    "/probes",
    "/deliveries",
]


def test_the_lists_here_are_all_routes(app: FastAPI) -> None:
    described = {
        (method.upper(), path.format(id=ID, source="topic", partition=0, offset=1))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    assert described == {(method, path) for method, path, _ in WRITES} | {("GET", path) for path in READS}


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, _ in WRITES] + [("GET", p) for p in READS])
def test_nobody_gets_in_without_a_token(app: FastAPI, method: str, path: str) -> None:
    answer = Client(app).ask(method, path, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert Client(app, "awry_" + "0" * 64).ask(method, path, 401).headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_who_may_read_changes_nothing(engine: Engine, read: Client, method: str, path: str, body: Any) -> None:
    (one,) = open_alerts(engine, [flagged(1)])
    before = (all_alerts(engine), len(audit_rows(engine)))
    answer = read.ask(method, path.replace(ID, str(one.alert_id)), 403, json=body)
    assert "--scope act" in answer.json()["detail"]
    assert (all_alerts(engine), len(audit_rows(engine))) == before


def test_who_may_act_may_read(act: Client) -> None:
    assert act.get("/alerts") == {"alerts": [], "next": None}


def test_what_there_is_not_needs_a_token_too(app: FastAPI, read: Client) -> None:
    for path in (
        "/",
        "/docs",
        "/redoc",
        "/nothing",
        "/alerts/",
        "//openapi.json",
        "/openapi.json/",
        "/alerts/openapi.json",
    ):
        assert Client(app).ask("GET", path).status_code == 401, path
    assert read.ask("GET", "/nothing", 404).json()["title"] == "Not Found"
    assert read.ask("GET", "/alerts/", 404)
    assert read.ask("HEAD", "/alerts", 405).headers["allow"] == "GET"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {}", "{}", "Token {}", "Bearer x{}", "Bearer {}x", "Bearer {} x", "Bearer,{}"],
)
def test_headers_that_are_no_bearer_token(engine: Engine, app: FastAPI, header: str) -> None:
    secret = token(engine)
    Client(app).ask("GET", "/alerts", 401, headers={"Authorization": header.format(secret)})


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_headers_that_are(engine: Engine, app: FastAPI, header: str) -> None:
    Client(app).ask("GET", "/alerts", 200, headers={"Authorization": header.format(token(engine))})


def test_a_token_in_the_query_is_none(engine: Engine, app: FastAPI) -> None:
    Client(app).ask("GET", f"/alerts?token={token(engine)}&access_token={token(engine, 'b')}", 401)


def test_wrong_expired_and_revoked_look_alike(engine: Engine, app: FastAPI) -> None:
    old, gone = token(engine, "old"), token(engine, "gone")
    Client(app, old).get("/alerts")
    expire(engine, "old")
    revoke(engine, "gone")
    answers = [Client(app, s).ask("GET", "/alerts", 401) for s in ("awry_" + "0" * 64, old, gone)]
    assert len({a.content for a in answers}) == 1
    assert len({tuple(sorted(a.headers.items())) for a in answers}) == 1


def test_a_token_that_is_revoked_ends_at_the_next_request(engine: Engine, act: Client) -> None:
    act.get("/alerts")
    revoke(engine, "soar")
    act.get("/alerts", 401)


def test_a_token_asks_so_often(engine: Engine) -> None:
    app = make_api(engine, Limiter(requests=3))
    one, other = Client(app, token(engine, "a")), Client(app, token(engine, "b"))
    for _ in range(3):
        one.get("/alerts")
    answer = one.ask("GET", "/alerts", 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    # From elsewhere it is the same token.
    Client(app, one._http.headers["authorization"].removeprefix("Bearer "), "10.9.9.9").get("/alerts", 429)
    other.get("/alerts")


def test_an_address_fails_so_often(engine: Engine) -> None:
    app = make_api(engine, Limiter(failures=2))
    neighbour = Client(app, token(engine, "a"))
    neighbour.get("/alerts")
    late = token(engine, "late")
    for n, expected in enumerate((401, 401, 429, 429)):
        answer = Client(app, f"awry_{n:064}").ask("GET", "/alerts", expected)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    # Who was good before from this address, or asks from another one, is not shut out.
    neighbour.get("/alerts")
    Client(app, late, "10.0.0.8").get("/alerts")
    Client(app, late, "10.0.0.7").get("/alerts")


def test_a_blocked_address_costs_the_database_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_api(engine, Limiter(failures=1))
    asked = []

    def find(connection: Any, secret: str) -> None:
        asked.append(secret)

    monkeypatch.setattr("monitor.web.auth.authenticate.find", find)
    for n in range(20):
        Client(app, f"awry_{n:064}").ask("GET", "/alerts")
    assert len(asked) == 1


def test_no_token_at_all_blocks_nobody(engine: Engine) -> None:
    app = make_api(engine, Limiter(failures=1))
    for _ in range(5):
        Client(app).get("/alerts", 401)
    Client(app, token(engine)).get("/alerts")


def test_known_tokens_that_end_are_like_any_other(engine: Engine) -> None:
    app = make_api(engine, Limiter(failures=1))
    one = Client(app, token(engine, "a"))
    one.get("/alerts")
    revoke(engine, "a")
    assert [one.ask("GET", "/alerts").status_code for _ in range(3)] == [401, 429, 429]


def test_secrets_are_in_no_log_and_no_answer(engine: Engine, app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = token(engine)
    client = Client(app, secret)
    bodies = [client.ask("GET", path).text for path in (*READS, "/nothing", f"/alerts?cursor={secret}")]
    bodies += [client.ask("POST", f"/alerts/{uuid.uuid4()}/verdict", json={"verdict": secret}).text]
    bodies += [Client(app, secret + "x").ask("GET", "/alerts", 401).text]
    logged = [record.getMessage() for record in caplog.records if record.name != "httpx2"]  # but the test's client
    assert secret not in "".join(bodies + logged) + dump(engine)
    assert stored(engine, api_tokens)[0]["last_used_at"] is not None


def test_mounted_only_the_description_is_open(engine: Engine) -> None:
    outer = FastAPI(openapi_url=None)
    outer.mount("/api/v1", make_api(engine))
    client = TestClient(outer)
    assert client.get("/api/v1/openapi.json").json()["servers"] == [{"url": "/api/v1"}]
    assert client.get("/api/v1/alerts").status_code == 401
    assert client.get("/api/v1/api/v1/openapi.json").status_code == 401
    answer = client.get("/api/v1/alerts", headers={"Authorization": f"Bearer {token(engine)}"})
    assert (answer.status_code, answer.json()) == (200, {"alerts": [], "next": None})
