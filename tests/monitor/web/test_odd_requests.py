"""Requests that a person never sends: numbers of thousands of digits, and defects of the pages themselves."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from alerts.links import Links
from monitor.web.api.app import make_api
from monitor.web.ui import views
from monitor.web.ui.app import make_ui
from tests.monitor.web.test_tenants import api_routes, page_routes
from tests.support.web.api import token
from tests.support.web.pages import OPEN

HUGE = ("9" * 5000, "-" + "9" * 5000, "9" * 19, "9" * 20, "1e400", "0x" + "f" * 5000, "9" * 5000 + "." + "9" * 5000)


@pytest.mark.parametrize("number", HUGE, ids=lambda n: f"{n[:4]}-{len(n)}")
def test_huge_numbers_are_not_found_or_refused(engine: Engine, number: str) -> None:
    api, ui = make_api(engine), make_ui(engine, Links(), loopback_only=True, options=OPEN)
    headers = {"Authorization": f"Bearer {token(engine)}"}
    with_token = TestClient(api, headers=headers, raise_server_exceptions=False)
    browser = TestClient(ui, base_url="http://localhost", follow_redirects=False, raise_server_exceptions=False)
    for client, routes in ((with_token, api_routes(api)), (browser, page_routes(ui))):
        for method, path in sorted(routes):
            filled = re.sub(r"\{[^}]*\}", number, path)
            for asked in (
                filled,
                f"{path if '{' not in path else filled}?cursor={number}&limit={number}&page={number}",
            ):
                status = client.request(method, asked).status_code
                assert status < 500, (method, path, status)
                if "{" in path:
                    assert status in (303, 400, 401, 403, 404, 413, 422), (method, path, status)


def test_a_defect_of_a_page_is_logged_by_class_and_place(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(connection: object) -> None:
        raise ZeroDivisionError("a text of a row")

    monkeypatch.setattr(views, "probes", broken)
    ui = make_ui(engine, Links(), loopback_only=True, options=OPEN)
    # Nothing reaches the server, which would log it in its own way.
    browser = TestClient(ui, base_url="http://localhost", raise_server_exceptions=True)
    with caplog.at_level("ERROR"):
        answer = browser.get("/probes")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert re.search(r"unexpected ZeroDivisionError at test_odd_requests\.py:\d+", caplog.text)
    for told in (answer.text, caplog.text):
        assert "a text of a row" not in told
