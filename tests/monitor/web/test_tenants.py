"""A token of one tenant tries to read and to change another one's rows, through every route of API and pages.

Routes are taken from the applications: one that is added and not tried here fails the test that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import Engine, create_engine, text
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from alerts.links import Links
from monitor.web.api.app import make_api
from monitor.web.auth.oidc import Grant, OidcOptions
from monitor.web.auth.options import AccessOptions
from monitor.web.ui.access import COOKIE
from monitor.web.ui.app import make_ui
from tests.support.web.pages import session
from tests.support.web.tenants import CANARY, OTHER, OWN, Tenant, fill, rows_of_other, token

NOBODY = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
SIGN_ON = OidcOptions("http://127.0.0.1:1", "awry", None, "http://localhost/x", (Grant("*", "read"),))
HERE = {"origin": "http://localhost"}


def pages_of(engine: Engine) -> Starlette:
    return make_ui(engine, Links(), loopback_only=False, options=AccessOptions(oidc=SIGN_ON))


@dataclass(frozen=True)
class Try:
    """What is asked of a route about a tenant. `own` is the status when that is the token's own one; None: it is not
    about a tenant, and says the same to everybody, or nothing."""

    path: Callable[[Tenant], str]
    own: int
    body: Any = None
    form: dict[str, str] | None = None
    # The status about another tenant's; None: as `own`, but with nothing of the other's in it.
    other: int | None = None


def _alert(action: str = "", of: str = "/alerts") -> Callable[[Tenant], str]:
    return lambda t: f"{of}/{t.alert}{action}"


def _message(t: Tenant) -> str:
    return f"/messages/{t.at}"


def _plain(path: str) -> Callable[[Tenant], str]:
    return lambda t: path.replace("TENANT", t.name)


API: dict[tuple[str, str], Try] = {
    ("GET", "/openapi.json"): Try(_plain("/openapi.json"), 200),
    ("GET", "/alerts"): Try(_plain("/alerts?tenant=TENANT"), 200),
    ("GET", "/alerts/{id}"): Try(_alert(), 200, other=404),
    ("POST", "/alerts/{id}/acknowledge"): Try(_alert("/acknowledge"), 409, other=404),
    ("POST", "/alerts/{id}/verdict"): Try(_alert("/verdict"), 200, {"verdict": "true"}, other=404),
    ("POST", "/alerts/{id}/silence"): Try(_alert("/silence"), 201, {"for": "1h"}, other=404),
    ("POST", "/alerts/{id}/resolve"): Try(_alert("/resolve"), 200, other=404),
    ("POST", "/alerts/{id}/reopen"): Try(_alert("/reopen"), 200, other=404),
    ("GET", "/silences"): Try(_plain("/silences"), 200),
    ("DELETE", "/silences/{id}"): Try(lambda t: f"/silences/{t.silence}", 200, other=404),
    ("GET", "/precision"): Try(_plain("/precision"), 200),
    ("GET", "/messages"): Try(_plain("/messages?probe=drift"), 200),
    ("GET", "/messages/{source}/{partition}/{offset}"): Try(_message, 200, other=404),
    ("GET", "/probes"): Try(_plain("/probes"), 403),
    ("GET", "/deliveries"): Try(_plain("/deliveries"), 403),
}
# Its body names a tenant.
MAKE_SILENCE = ("POST", "/silences")

PAGES: dict[tuple[str, str], Try] = {
    ("GET", "/"): Try(_plain("/"), 200),
    ("GET", "/alerts"): Try(_plain("/alerts?tenant=TENANT"), 200),
    ("GET", "/alerts/{alert_id:uuid}"): Try(_alert(), 200, other=404),
    ("POST", "/alerts/{alert_id:uuid}/{action}"): Try(
        _alert("/verdict"), 303, form={"verdict": "true", "note": "x"}, other=404
    ),
    ("GET", "/messages"): Try(_plain("/messages?probe=drift"), 200),
    ("GET", "/messages/{source:path}/{partition}/{offset}"): Try(_message, 200, other=404),
    ("GET", "/probes"): Try(_plain("/probes"), 403),
    ("GET", "/probes/{name:path}"): Try(_plain("/probes/drift"), 403),
    ("GET", "/sign-in"): Try(_plain("/sign-in"), 200),
    ("POST", "/sign-in"): Try(_plain("/sign-in"), 401, form={"token": "", "next": "/"}),
    ("GET", "/sign-in/oidc"): Try(_plain("/sign-in/oidc"), 401),
    ("GET", "/sign-in/oidc/callback"): Try(_plain("/sign-in/oidc/callback?state=x&code=x"), 401),
    ("POST", "/sign-out"): Try(_plain("/sign-out"), 303),
    ("GET", "/static"): Try(_plain("/static/page.css"), 200),
}


def api_routes(app: FastAPI) -> set[tuple[str, str]]:
    document = app.openapi()["paths"]
    described = {(method.upper(), path) for path, methods in document.items() for method in methods}
    return described | {("GET", "/openapi.json")}


def page_routes(app: Starlette) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for route in app.routes:
        assert isinstance(route, Route | Mount)
        methods = (route.methods or set()) if isinstance(route, Route) else {"GET"}
        found |= {(method, route.path) for method in methods - {"HEAD"}}
    return found


def test_every_route_is_tried() -> None:
    say = "write down in this file how a token of one tenant tries it"
    assert api_routes(make_api(NOBODY)) == API.keys() | {MAKE_SILENCE}, say
    assert page_routes(pages_of(NOBODY)) == PAGES.keys(), say


def test_every_route_of_the_api_is_described() -> None:
    """Or else it would not be among those that are tried."""
    written = re.compile(r"include_in_schema\s*=\s*False")
    from pathlib import Path

    from monitor.web import api

    for module in Path(api.__file__).parent.glob("*.py"):
        assert not written.search(module.read_text(encoding="utf-8")), module.name


@pytest.fixture
def tenants(engine: Engine) -> tuple[Tenant, Tenant]:
    return fill(engine)


class Asking:
    """Requests of API or pages with a token, or a session, of OWN."""

    def __init__(self, engine: Engine, app: Any, scope: str, *, pages: bool) -> None:
        secret = token(engine, scope)
        cookies = {COOKIE: session(engine, secret)} if pages else {}
        headers = HERE if pages else {"Authorization": f"Bearer {secret}"}
        self._client = TestClient(
            app, base_url="http://localhost", follow_redirects=False, headers=headers, cookies=cookies
        )

    def __call__(self, method: str, one: Try, about: Tenant) -> Response:
        more: dict[str, Any] = {"json": one.body} if one.body is not None else {}
        more |= {"data": one.form} if one.form is not None else {}
        return self._client.request(method, one.path(about), **more)


@pytest.fixture(params=["api", "pages"])
def side(request: pytest.FixtureRequest, engine: Engine) -> tuple[Any, dict[tuple[str, str], Try], bool]:
    pages = request.param == "pages"
    return (pages_of(engine) if pages else make_api(engine)), (PAGES if pages else API), pages


def tells_of_other(answer: Response, path: str) -> bool:
    said = answer.text + " ".join(f"{name}: {value}" for name, value in answer.headers.items())
    # What was asked may be said again.
    return CANARY in said or (OTHER in said and OTHER not in path)


def test_nothing_of_another_tenant_is_shown_or_changed(
    engine: Engine, tenants: tuple[Tenant, Tenant], side: tuple[Any, dict[tuple[str, str], Try], bool]
) -> None:
    app, tries, pages = side
    _, other = tenants
    ask, before = Asking(engine, app, "act", pages=pages), rows_of_other(engine)
    assert any(CANARY in row for row in before)
    for (method, path), one in tries.items():
        answer = ask(method, one, other)
        assert answer.status_code == (one.other or one.own), (method, path, answer.text)
        assert not tells_of_other(answer, one.path(other)), (method, path)
    assert rows_of_other(engine) == before


def test_its_own_tenant_is_shown_and_changed(
    engine: Engine, tenants: tuple[Tenant, Tenant], side: tuple[Any, dict[tuple[str, str], Try], bool]
) -> None:
    """Or the test above would find out nothing."""
    app, tries, pages = side
    own, _ = tenants
    ask, before = Asking(engine, app, "act", pages=pages), rows_of_other(engine)
    for (method, path), one in tries.items():
        answer = ask(method, one, own)
        assert answer.status_code == one.own, (method, path, answer.text)
        assert not tells_of_other(answer, one.path(own)), (method, path)
    assert rows_of_other(engine) == before


def test_who_has_no_tenant_sees_both(engine: Engine, tenants: tuple[Tenant, Tenant]) -> None:
    """The words that are looked for are shown to those who may see them."""
    secret = token(engine, "read", None, "everybody")
    api = TestClient(make_api(engine), headers={"Authorization": f"Bearer {secret}"})
    page = TestClient(pages_of(engine), base_url="http://localhost", cookies={COOKIE: session(engine, secret)})
    for path in ("/alerts", f"/alerts/{tenants[1].alert}", f"/messages/{tenants[1].at}"):
        assert CANARY in api.get(path).text, path
        assert CANARY in page.get(path).text, path
    assert CANARY in api.get("/silences").text


@pytest.mark.parametrize(
    ("matchers", "status"),
    [
        ({"rule": "x"}, 201),
        ({"tenant": OWN}, 201),
        ({"tenant": OTHER}, 403),
        ({"tenant": "*"}, 403),
        ({"tenant": "a*"}, 403),
        ({"tenant": f"{OWN}*", "rule": "x"}, 403),
    ],
)
def test_a_silence_is_of_the_tenant_alone(
    engine: Engine, tenants: tuple[Tenant, Tenant], matchers: dict[str, str], status: int
) -> None:
    before = rows_of_other(engine)
    made = Asking(engine, make_api(engine), "act", pages=False)(
        "POST", Try(_plain("/silences"), 201, matchers), tenants[0]
    )
    assert made.status_code == status, made.text
    assert rows_of_other(engine) == before
    with engine.connect() as connection:
        made_by = connection.execute(text("SELECT tenant FROM silences WHERE created_by = 'act-acme'")).scalars().all()
    assert made_by == ([OWN] if status == 201 else [])


def test_a_reader_of_a_tenant_changes_nothing(engine: Engine, tenants: tuple[Tenant, Tenant]) -> None:
    ask = Asking(engine, make_api(engine), "read", pages=False)
    for (method, path), one in API.items():
        answer = ask(method, one, tenants[0])
        assert (answer.status_code == 403) == (method != "GET" or one.own == 403), (path, answer.text)


def test_refusals_are_logged_and_counted(
    engine: Engine, tenants: tuple[Tenant, Tenant], caplog: pytest.LogCaptureFixture
) -> None:
    from monitor.telemetry.metrics import REGISTRY

    def count() -> float:
        return REGISTRY.get_sample_value("awry_access_refused_total", {"reason": "tenant"}) or 0.0

    before = count()
    with caplog.at_level("WARNING", "awry.access"):
        Asking(engine, make_api(engine), "read", pages=False)("GET", API["GET", "/probes"], tenants[0])
    assert count() == before + 1
    assert "read-acme may not have what it asked for" in caplog.text
