"""Who may read and who may change: by address, by token, by where a form came from."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from httpx2 import Response
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from alerts.links import Links
from monitor.web.api.app import make_api
from monitor.web.auth import live, tokens
from monitor.web.auth.once import OnceLink
from monitor.web.auth.options import AccessOptions
from monitor.web.auth.rate_limit import Limiter
from monitor.web.ui.access import COOKIE, is_loopback, local_path
from monitor.web.ui.app import make_ui
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.web import api as parts
from tests.support.web.pages import OPEN, session

HERE = {"origin": "http://localhost"}
# Any one of them: a proxy may add that one alone.
PROXY_HEADERS = (
    *("via", "x-forwarded-proto", "x-forwarded-server", "x-forwarded-host", "x-forwarded-port", "x-real-ip"),
    *("cf-connecting-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "fastly-client-ip"),
    *("x-envoy-external-address", "x-original-forwarded-for", "x-amzn-trace-id", "x-azure-clientip"),
)
Client = Callable[..., TestClient]


@pytest.fixture
def client(engine: Engine) -> Client:
    def make(
        *,
        loopback_only: bool = True,
        host: str = "localhost",
        limiter: Limiter | None = None,
        options: AccessOptions = OPEN,
        once: OnceLink | None = None,
    ) -> TestClient:
        page = make_ui(engine, Links(), loopback_only=loopback_only, limiter=limiter, options=options, once=once)
        return TestClient(page, base_url=f"http://{host}", follow_redirects=False, raise_server_exceptions=False)

    return make


def token(engine: Engine, scope: tokens.Scope = "act", name: str = "anna") -> str:
    return parts.token(engine, name, scope)


def alert_path(engine: Engine) -> str:
    (opened,) = open_alerts(engine, [flagged(1)])
    return f"/alerts/{opened.alert_id}"


@pytest.mark.parametrize(
    ("loopback_only", "host", "headers", "may_read"),
    [
        (True, "localhost", {}, True),
        (True, "127.0.0.1:9464", {}, True),
        (True, "[::1]:9464", {}, True),
        (True, "awry.localhost", {}, True),
        # A name that somebody's DNS points here.
        (True, "evil.example", {}, False),
        (True, "localhost.evil.example", {}, False),
        (True, "127.0.0.1.evil.example", {}, False),
        # A proxy passes on what others ask.
        (True, "localhost", {"x-forwarded-for": "10.0.0.9"}, False),
        (True, "localhost", {"forwarded": "for=10.0.0.9"}, False),
        *((True, "localhost", {name: "x"}, False) for name in PROXY_HEADERS),
        (False, "localhost", {}, False),
    ],
)
def test_who_reads_without_a_token(
    client: Client, engine: Engine, loopback_only: bool, host: str, headers: dict[str, str], may_read: bool
) -> None:
    path = alert_path(engine)
    browser = client(loopback_only=loopback_only, host=host)
    for asked in ("/", "/alerts", path, "/messages/topic/0/1", "/probes", "/probes/drift"):
        answer = browser.get(asked, headers=headers)
        if may_read:
            assert answer.status_code in (200, 404)
        else:
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/sign-in?next=/")
            assert "threshold:drift" not in answer.text


def test_signing_in_and_out(client: Client, engine: Engine) -> None:
    browser = client(loopback_only=False)
    path = alert_path(engine)
    assert browser.get(path).headers["location"] == f"/sign-in?next={path}"
    wrong = browser.post("/sign-in", data={"token": "awry_wrong", "next": path}, headers=HERE)
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    assert "awry_wrong" not in wrong.text
    good = browser.post("/sign-in", data={"token": token(engine), "next": path}, headers=HERE)
    assert (good.status_code, good.headers["location"]) == (303, path)
    said = good.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert browser.get(path).status_code == 200
    browser.post("/sign-out", headers=HERE)
    assert browser.get(path).status_code == 303


def test_a_token_that_ends_signs_out(client: Client, engine: Engine) -> None:
    secret = token(engine)
    browser = client(loopback_only=False)
    browser.cookies.set(COOKIE, session(engine, secret))
    assert browser.get("/").status_code == 200
    parts.revoke(engine, "anna")
    assert browser.get("/").status_code == 303


def test_an_address_is_wrong_so_often(client: Client, engine: Engine) -> None:
    limiter = Limiter(failures=2)
    browser, neighbour = client(loopback_only=False, limiter=limiter), client(loopback_only=False, limiter=limiter)
    neighbour.post("/sign-in", data={"token": token(engine)}, headers=HERE)

    def sign_in(secret: str) -> Response:
        return browser.post("/sign-in", data={"token": secret}, headers=HERE)

    assert [sign_in("").status_code for _ in range(5)] == [401] * 5  # an empty form is no guess
    assert [sign_in(f"awry_{n}").status_code for n in range(4)] == [401, 401, 429, 429]
    last, late = sign_in("awry_5"), token(engine, name="late")
    assert 1 <= int(last.headers["retry-after"]) <= 60
    assert "too many invalid tokens from this address; try again in" in last.text
    # A good token passes though its neighbours guess; the API counts with the page.
    assert neighbour.get("/").status_code == 200
    api = TestClient(make_api(engine, limiter))
    assert api.get("/alerts", headers={"authorization": "Bearer awry_6"}).status_code == 429
    time.sleep(live.REFRESH_SECONDS)
    assert api.get("/alerts", headers={"authorization": f"Bearer {late}"}).status_code == 200
    assert sign_in(late).status_code == 303


def test_a_cookie_of_no_use_is_taken_back_and_counts_once(client: Client, engine: Engine) -> None:
    secret = token(engine)
    browser = client(loopback_only=False, limiter=Limiter(failures=2))
    browser.post("/sign-in", data={"token": secret}, headers=HERE)
    assert "set-cookie" not in browser.get("/").headers
    parts.revoke(engine, "anna")
    for _ in range(10):
        assert browser.get("/").status_code == 303
    assert COOKIE not in browser.cookies
    assert browser.post("/sign-in", data={"token": token(engine, name="new")}, headers=HERE).status_code == 303
    assert browser.get("/").status_code == 200


def test_a_cookie_is_kept_while_its_address_waits(client: Client, engine: Engine) -> None:
    """A restart forgets who was good; a neighbour's guesses must not sign everybody out."""
    limiter = Limiter(failures=1)
    browser = client(loopback_only=False, limiter=limiter)
    browser.cookies.set(COOKIE, session(engine, token(engine)))
    limiter.count_failure("testclient")
    waiting = browser.get("/")
    assert waiting.status_code == 200
    assert "set-cookie" not in waiting.headers


def test_a_reader_changes_nothing(client: Client, engine: Engine) -> None:
    path = alert_path(engine)
    for secret, why in ((None, "sign in first"), (token(engine, "read"), "the token has the scope read")):
        browser = client()
        if secret:
            browser.cookies.set(COOKIE, session(engine, secret))
        refused = browser.post(f"{path}/acknowledge", headers=HERE)
        assert refused.status_code == 403
        assert why in refused.text
        assert "<button>Resolve" not in browser.get(path).text
    assert all_alerts(engine)[0].state == "open"
    assert [r.action for r in audit_rows(engine) if r.via == "page"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8000"},
        {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_a_form_of_another_site_is_refused(client: Client, engine: Engine, headers: dict[str, str]) -> None:
    path = alert_path(engine)
    browser = client()
    browser.cookies.set(COOKIE, session(engine, token(engine)))
    for asked in (f"{path}/acknowledge", "/sign-in", "/sign-out"):
        assert browser.post(asked, headers=headers).status_code == 403
    assert all_alerts(engine)[0].state == "open"


@pytest.mark.parametrize("headers", [HERE, {"sec-fetch-site": "same-origin"}])
def test_a_form_of_this_page_is_taken(client: Client, engine: Engine, headers: dict[str, str]) -> None:
    path = alert_path(engine)
    browser = client()
    browser.cookies.set(COOKIE, session(engine, token(engine)))
    assert browser.post(f"{path}/acknowledge", headers=headers).status_code == 303
    (row,) = (r for r in audit_rows(engine) if r.via == "page" and r.action != "sign in")
    assert (row.who, row.action, row.origin) == ("anna", "acknowledge", "testclient")


def test_secrets_are_not_kept(client: Client, engine: Engine) -> None:
    secret = token(engine)
    browser = client()
    browser.post("/sign-in", data={"token": secret}, headers=HERE)
    kept = browser.cookies[COOKIE]
    # The browser has no token, and the database neither.
    assert kept.removeprefix("awrys_") != secret.removeprefix("awry_")
    assert secret not in browser.get("/").text
    with engine.connect() as connection:
        rows = [
            row
            for table in ("api_tokens", "web_sessions", "audit")
            for row in connection.execute(text(f"SELECT to_jsonb(t)::text FROM {table} AS t")).scalars()  # noqa: S608 - names above
        ]
    assert len(rows) == 4
    for each in (secret.removeprefix("awry_"), kept.removeprefix("awrys_")):
        assert not any(each in row for row in rows)


def test_nothing_is_open_unless_it_is_asked_for(client: Client, engine: Engine) -> None:
    browser = client(options=AccessOptions())
    assert browser.get(alert_path(engine)).status_code == 303


def test_http_1_0_is_a_proxys(engine: Engine) -> None:
    """nginx without a line of configuration: the Host is loopback's, and nothing else tells."""
    from monitor.web.server import serving

    with serving("127.0.0.1:0", engine, Links(), lambda: None, OPEN) as address:
        host, port = address.split(":")
        for version, status in (("1.0", b"303"), ("1.1", b"200")):
            with socket.create_connection((host, int(port)), 20) as plain:
                plain.sendall(f"GET / HTTP/{version}\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                assert plain.makefile("rb").readline().split()[1] == status


def test_a_session_ends_by_signing_out(client: Client, engine: Engine) -> None:
    """What was copied from a browser is of no use afterwards."""
    browser = client(loopback_only=False)
    browser.post("/sign-in", data={"token": token(engine)}, headers=HERE)
    copied = client(loopback_only=False)
    copied.cookies.set(COOKIE, browser.cookies[COOKIE])
    assert copied.get("/").status_code == 200
    browser.post("/sign-out", headers=HERE)
    assert copied.get("/").status_code == 303
    changes = [(r.who, r.action) for r in audit_rows(engine) if r.via == "page"]
    assert changes == [("anna", "sign in"), ("anna", "sign out")]


def test_a_session_ends_in_time(client: Client, engine: Engine) -> None:
    browser = client(loopback_only=False)
    browser.post("/sign-in", data={"token": token(engine)}, headers=HERE)
    with engine.begin() as connection:
        connection.execute(text("UPDATE web_sessions SET expires_at = now()"))
    assert browser.get("/").status_code == 303


def test_a_token_is_no_session_and_a_session_no_token(client: Client, engine: Engine) -> None:
    secret = token(engine)
    browser = client(loopback_only=False)
    browser.cookies.set(COOKIE, secret)
    assert browser.get("/").status_code == 303
    api = TestClient(make_api(engine))
    headers = {"authorization": f"Bearer {session(engine, secret)}"}
    assert api.get("/alerts", headers=headers).status_code == 401


def test_the_cookie_is_secure_where_browsers_come_by_https(client: Client, engine: Engine) -> None:
    secret = token(engine)
    browser = client(loopback_only=False, options=AccessOptions(public_url="https://awry.example"))
    said = browser.post("/sign-in", data={"token": secret}, headers={"origin": "https://awry.example"})
    kept = said.headers["set-cookie"]
    assert kept.startswith("__Host-awry_session=awrys_")
    assert {"secure", "httponly", "path=/", "samesite=strict"} <= {part.strip().lower() for part in kept.split(";")}
    assert "domain" not in kept.lower()


def test_the_link_on_the_terminal_signs_in_once(client: Client, engine: Engine) -> None:
    once = OnceLink("anna")
    browser, late = (client(loopback_only=False, options=AccessOptions(), once=once) for _ in range(2))
    path = f"/sign-in?once={once.secret}"
    assert browser.head(path).status_code == 200
    assert late.get("/sign-in?once=wrong").status_code == 401
    assert browser.get(path).status_code == 303
    assert browser.get("/").status_code == 200
    again = late.get(path)
    assert again.status_code == 401
    assert once.secret not in again.text
    assert late.get("/").status_code == 303
    (row,) = audit_rows(engine)
    assert (row.who, row.action, row.after) == ("anna", "sign in", {"by": "link on the terminal", "scope": "read"})


def test_the_link_on_the_terminal_is_soon_over() -> None:
    now = [0.0]
    once = OnceLink("anna", clock=lambda: now[0])
    now[0] = 601.0
    assert not once.take(once.secret)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/alerts?state=open", "/alerts?state=open"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nset-cookie: x=1", "/"),
        ("", "/"),
    ],
)
def test_after_signing_in_one_stays_here(written: str, path: str) -> None:
    assert local_path(written) == path


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["::", "10.0.0.1", "localhostx", "127.1", "0", "", "::ffff:10.0.0.1"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("path", ["/sign-in", "alert"])
def test_who_goes_away_within_a_form_leaves_no_error(
    engine: Engine, client: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Anybody could fill the log otherwise."""
    path = f"{alert_path(engine)}/acknowledge" if path == "alert" else path
    browser = client()
    browser.cookies.set(COOKIE, session(engine, token(engine)))
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"} if sent_part else begin()

    sent_part: list[bool] = []

    def begin() -> dict[str, object]:
        sent_part.append(True)
        return {"type": "http.request", "body": b"token=abc", "more_body": True}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = {"host": "localhost", "content-type": "application/x-www-form-urlencoded", "content-length": "100"}
    headers |= {"origin": "http://localhost", "cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    with caplog.at_level("WARNING"):
        asyncio.run(browser.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent_part
    assert all(message.get("status", 400) == 400 for message in sent)
    assert not caplog.records
