"""A client that checks every response against the OpenAPI description, and tokens for it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import httpx2
from fastapi import FastAPI
from jsonschema import Draft202012Validator, FormatChecker
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from monitor.web.api.app import make_api
from monitor.web.auth import tokens
from monitor.web.auth.rate_limit import Limiter
from tests.support.alerts.alert_scenes import ANNA

ADDRESS = "10.0.0.7"
DAY = timedelta(days=1)


def token(engine: Engine, name: str = "soar", scope: Any = "act", lasting: timedelta = DAY) -> str:
    with engine.begin() as connection:
        return tokens.create(connection, name, scope, lasting, ANNA)


def revoke(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        tokens.revoke(connection, name, ANNA)


def expire(engine: Engine, name: str) -> None:
    """Moves the token's expiry into the past."""
    with engine.begin() as connection:
        change = (
            "UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE name = :name AND revoked_at IS NULL"
        )
        assert connection.execute(text(change), {"name": name}).rowcount == 1


def operation(app: FastAPI, method: str, path: str) -> dict[str, Any] | None:
    """The operation of a request in the description; None if there is none."""
    for template, operations in app.openapi()["paths"].items():
        pattern = re.sub(r"\\\{(\w+)\\\}", lambda m: ".+" if m[1] == "source" else "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path, re.DOTALL) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return found
    return None


def check(app: FastAPI, answer: httpx2.Response, method: str, path: str) -> None:
    """The response matches the description, and has the headers of all responses."""
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    kind = answer.headers["content-type"]
    assert kind == ("application/json" if answer.is_success else "application/problem+json")
    described = operation(app, method, path)
    if described is None:
        assert answer.status_code in (401, 403, 404, 405, 408, 413, 429), (method, path, answer.status_code)
        schema: dict[str, Any] = {"$ref": "#/components/schemas/Problem"}
    else:
        schema = described["responses"][str(answer.status_code)]["content"][kind]["schema"]
    if method != "HEAD":
        whole = {"components": app.openapi()["components"], **schema}
        Draft202012Validator(whole, format_checker=FormatChecker(["uuid"])).validate(answer.json())
    if not answer.is_success and method != "HEAD":
        assert answer.json()["status"] == answer.status_code


class Client:
    """Requests with one token from one address. Every response is checked."""

    def __init__(self, app: FastAPI, secret: str | None = None, address: str = ADDRESS) -> None:
        self.app = app
        headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
        self._http = TestClient(app, headers=headers, client=(address, 50000))

    def ask(self, method: str, path: str, expect: int | None = None, **more: Any) -> httpx2.Response:
        answer = self._http.request(method, path, **more)
        check(self.app, answer, method, answer.request.url.path)
        if expect is not None:
            assert answer.status_code == expect, answer.text
        return answer

    def get(self, path: str, expect: int = 200, **query: Any) -> Any:
        return self.ask("GET", path, expect, params=query or None).json()

    def post(self, path: str, expect: int = 200, body: Any = None) -> Any:
        return self.ask("POST", path, expect, **({"json": body} if body is not None else {})).json()

    def delete(self, path: str, expect: int = 200) -> Any:
        return self.ask("DELETE", path, expect).json()


def unlimited(engine: Engine) -> FastAPI:
    """The API without rate limits in practice."""
    return make_api(engine, Limiter(requests=1_000_000, failures=1_000_000))
