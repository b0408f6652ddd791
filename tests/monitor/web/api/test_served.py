"""The API as it is served: mounted in another app, on a real socket, by a real uvicorn, asked by real clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine

from monitor.web.api.app import make_api
from storage.coordinates import Coordinates
from storage.partitions import utc_today
from storage.writer import BatchRows, MessageRow
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.at_once import at_once
from tests.support.rows import write
from tests.support.web.api import token


@pytest.fixture
def port(engine: Engine) -> Iterator[int]:
    outer = FastAPI(openapi_url=None)
    outer.mount("/api/v1", make_api(engine))
    server = uvicorn.Server(uvicorn.Config(outer, log_level="warning", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(port: int, secret: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        connection.request(method, f"/api/v1{path}", json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_morning_of_an_automation(engine: Engine, port: int) -> None:
    secret = token(engine)
    open_alerts(engine, [flagged(1), flagged(2, tenant="bank")])
    status, page = ask(port, secret, "GET", "/alerts?state=open&tenant=shop")
    (one,) = page["alerts"]
    assert status == 200
    assert ask(port, secret, "POST", f"/alerts/{one['id']}/acknowledge")[1]["state"] == "acknowledged"
    status, problem = ask(port, secret, "POST", f"/alerts/{one['id']}/acknowledge")
    assert (status, problem["title"]) == (409, "Conflict")
    assert ask(port, secret, "POST", f"/alerts/{one['id']}/verdict", {"verdict": "false", "note": "a poem"})[0] == 200
    assert ask(port, secret, "POST", f"/alerts/{one['id']}/resolve")[1]["resolved_by"] == "soar"
    assert ask(port, secret, "GET", "/nothing")[0] == 404
    assert ask(port, "awry_" + "0" * 64, "GET", "/alerts")[0] == 401
    changes = [(r.action, r.who, r.via, r.origin) for r in audit_rows(engine) if r.via == "api"]
    assert changes == [(action, "soar", "api", "127.0.0.1") for action in ("acknowledge", "verdict", "resolve")]


@pytest.mark.parametrize("source", ["ä%2F?#", "/var/log/a b.jsonl", ".."])
def test_a_source_comes_through_as_it_is_called(engine: Engine, port: int, source: str) -> None:
    write(engine, BatchRows([MessageRow(Coordinates(source, 0, 7), "aa", utc_today(), "scored")]))
    status, found = ask(port, token(engine), "GET", f"/messages/{quote(source, safe='')}/0/7")
    assert (status, found.get("source")) == (200, source)


def test_many_at_once_and_each_alert_changes_once(engine: Engine, port: int) -> None:
    """More clients than the engine has connections at hand."""
    alerts = [str(one.alert_id) for one in open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(5)])]
    secrets = [token(engine, f"robot-{n}") for n in range(6)]

    def robot(secret: str) -> list[int]:
        return [ask(port, secret, "POST", f"/alerts/{alert}/acknowledge")[0] for alert in alerts]

    came = [status for found in at_once([partial(robot, secret) for secret in secrets]) for status in found]
    assert (came.count(200), came.count(409)) == (5, 25)
    assert {row.state for row in all_alerts(engine)} == {"acknowledged"}
    assert len([r for r in audit_rows(engine) if r.action == "acknowledge"]) == 5


def test_a_body_that_is_too_large(engine: Engine, port: int) -> None:
    status, problem = ask(port, token(engine), "POST", "/silences", {"rule": "a", "comment": "c" * 500_000})
    assert (status, problem["detail"]) == (413, "the body is larger than 65536 bytes")


def test_a_body_without_an_end(engine: Engine, port: int) -> None:
    """A chunked body that goes on is cut off, and the connection with it."""
    secret = token(engine)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        head = f"POST /api/v1/silences HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                client.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
    # What the sockets hold between them comes on top of the megabyte.
    assert sent < 20 << 20
    assert ask(port, secret, "GET", "/silences") == (200, [])
