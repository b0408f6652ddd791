"""Single sign-on against a real provider (npm's oidc-provider): the whole flow, and what must not get through."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from alerts.links import Links
from monitor.web.auth.oidc import Grant, OidcError, OidcOptions, Provider
from monitor.web.auth.options import AccessOptions
from monitor.web.ui.app import make_ui
from tests.conftest import needs_program
from tests.support.alerts.alert_scenes import audit_rows

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "provider"
CALLBACK = "http://localhost/sign-in/oidc/callback"
SECRET = "s3cret:/+ of the client"
NONCE, VERIFIER = "n" * 43, "v" * 43


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    npm, node = needs_program("npm", "apt-get install npm"), needs_program("node", "apt-get install npm")
    folder = tmp_path_factory.mktemp("provider")
    for file in FOLDER.iterdir():
        shutil.copy(file, folder)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip("needs npm's registry, for oidc-provider")
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [node, "provider.mjs", str(port), CALLBACK, SECRET], cwd=folder, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while not _answers(address):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _answers(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/.well-known/openid-configuration").status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.fixture
def options(issuer: str) -> OidcOptions:
    grants = (Grant("nobody", "act"), Grant("security", "act"), Grant("*", "read"))
    return OidcOptions(issuer, "awry", SECRET, CALLBACK, grants)


Pages = Callable[..., TestClient]


@pytest.fixture
def pages(engine: Engine, options: OidcOptions) -> Pages:
    def make(**changes: object) -> TestClient:
        access = AccessOptions(public_url="http://localhost", oidc=replace(options, **changes))  # type: ignore[arg-type]
        ui = make_ui(engine, Links(), loopback_only=False, options=access)
        return TestClient(ui, base_url="http://localhost", follow_redirects=False)

    return make


def at_provider(address: str) -> str:
    """A browser at the provider, from its sign-in page to the address that it sends back to."""
    with httpx2.Client() as browser:
        for _ in range(10):
            answer = browser.get(address)
            assert answer.status_code in (302, 303), answer.text
            address = urljoin(address, answer.headers["location"])
            if address.startswith(CALLBACK):
                return address
    raise AssertionError("the provider does not send back")


def begin(browser: TestClient, back: str = "/alerts") -> str:
    answer = browser.get(f"/sign-in/oidc?next={back}")
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def refused(browser: TestClient, address: str, why: str) -> None:
    answer = browser.get(address)
    assert answer.status_code == 401
    assert why in answer.text
    assert browser.get("/").status_code == 303


def test_somebody_signs_in(engine: Engine, pages: Pages) -> None:
    browser = pages()
    assert "/sign-in/oidc?next=/alerts" in browser.get("/sign-in?next=/alerts").text
    there = begin(browser)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(there).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["response_type"] == "code"
    back = browser.get(at_provider(there))
    assert (back.status_code, back.headers["location"]) == (303, "/alerts")
    # Coming back from another site, a browser would leave a Strict cookie out.
    kept = next(each for each in back.headers.get_list("set-cookie") if each.startswith("awry_session="))
    assert "samesite=lax" in kept.lower()
    assert "anna@example.org" in browser.get("/alerts").text
    (row,) = audit_rows(engine)
    assert (row.who, row.action, row.after) == ("anna@example.org", "sign in", {"by": "single sign-on", "scope": "act"})
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM sign_ins")).scalar() == 0


@pytest.mark.parametrize(
    ("grants", "scope", "tenant"),
    [
        ((Grant("security", "read", "acme"),), "read", "acme"),
        ((Grant("*", "read"), Grant("security", "act")), "read", None),
        ((Grant("others", "act"),), None, None),
    ],
)
def test_groups_say_what_one_may(
    engine: Engine, pages: Pages, grants: tuple[Grant, ...], scope: str | None, tenant: str | None
) -> None:
    browser = pages(grants=grants)
    back = at_provider(begin(browser))
    if scope is None:
        refused(browser, back, "none of your groups may read these pages")
        return
    assert browser.get(back).status_code == 303
    with engine.connect() as connection:
        assert connection.execute(text("SELECT scope, tenant FROM web_sessions")).all() == [(scope, tenant)]


def test_a_state_is_good_once_and_in_its_browser(engine: Engine, pages: Pages) -> None:
    browser, other = pages(), pages()
    back = at_provider(begin(browser))
    # Somebody else's link: signed in as its maker, one would write under another name.
    refused(other, back, "begun in another browser")
    # And it is over for the first one, too.
    refused(browser, back, "this sign-in is over")
    again = at_provider(begin(browser))
    assert browser.get(again).status_code == 303
    browser.cookies.delete("awry_session")
    refused(browser, again, "this sign-in is over")
    with engine.begin() as connection:
        connection.execute(text("UPDATE sign_ins SET expires_at = now()"))
    late = begin(browser)
    with engine.begin() as connection:
        connection.execute(text("UPDATE sign_ins SET expires_at = now()"))
    refused(browser, at_provider(late), "this sign-in is over")


def test_a_rotated_key_needs_nothing(pages: Pages, options: OidcOptions) -> None:
    now = [time.time()]
    provider = Provider(options, clock=lambda: now[0])

    def identity() -> str:
        back = at_provider(provider.address("state", NONCE, VERIFIER))
        answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
        return str(provider.identity(answer, NONCE, VERIFIER)["email"])

    assert identity() == "anna@example.org"
    httpx2.post(f"{options.issuer}/test/rotate")
    # Fetched a moment ago: unknown keys are not looked for again at once.
    with pytest.raises(OidcError, match="ID token is not to be accepted"):
        identity()
    now[0] += 15
    assert identity() == "anna@example.org"


@pytest.mark.parametrize(("skew", "stands"), [(-50, True), (50, True), (-300, False), (3 * 3600, False)])
def test_tokens_of_the_past_and_of_the_future(options: OidcOptions, skew: float, stands: bool) -> None:
    provider = Provider(options, clock=lambda: time.time() + skew)
    answer = _answer(at_provider(provider.address("state", NONCE, VERIFIER)))
    if stands:
        assert provider.identity(answer, NONCE, VERIFIER)["sub"] == "anna-1"
    else:
        with pytest.raises(OidcError, match="ID token is not to be accepted"):
            provider.identity(answer, NONCE, VERIFIER)


def test_what_does_not_fit_is_refused(options: OidcOptions) -> None:
    provider = Provider(options)

    def answer() -> dict[str, str]:
        return _answer(at_provider(provider.address("state", NONCE, VERIFIER)))

    with pytest.raises(OidcError, match="ID token is not to be accepted"):
        provider.identity(answer(), "another nonce", VERIFIER)
    with pytest.raises(OidcError, match="the provider refused"):
        provider.identity(answer(), NONCE, "w" * 43)
    with pytest.raises(OidcError, match="of another provider"):
        provider.identity(answer() | {"iss": "https://evil.example"}, NONCE, VERIFIER)
    with pytest.raises(OidcError, match="did not sign you in"):
        provider.identity({"error": "access_denied", "iss": options.issuer}, NONCE, VERIFIER)
    used = answer()
    provider.identity(used, NONCE, VERIFIER)
    with pytest.raises(OidcError, match="the provider refused"):
        provider.identity(used, NONCE, VERIFIER)


def test_a_token_for_another_client_is_refused(options: OidcOptions) -> None:
    other = Provider(replace(options, client_id="other"))
    answer = _answer(at_provider(other.address("state", NONCE, VERIFIER)))
    tokens = other._tokens(answer["code"], VERIFIER, other._discovered())
    assert other._checked(tokens["id_token"], NONCE, tokens["access_token"])["aud"] == "other"
    with pytest.raises(OidcError, match="ID token is not to be accepted"):
        Provider(options)._checked(tokens["id_token"], NONCE, tokens["access_token"])


def test_unsigned_tokens_and_those_signed_with_the_secret_are_refused(options: OidcOptions) -> None:
    from joserfc import jwt
    from joserfc.jwk import OctKey

    now = int(time.time())
    claims = {"iss": options.issuer, "aud": "awry", "sub": "x", "iat": now, "exp": now + 60, "nonce": NONCE}
    by_secret = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))
    head, body, _ = by_secret.split(".")
    for forged in (by_secret, f"eyJhbGciOiJub25lIn0.{body}.", f"{head}.{body}.", "x", ""):
        with pytest.raises(OidcError, match="ID token is not to be accepted"):
            Provider(options)._checked(forged, NONCE, None)


def test_a_provider_that_is_away_or_another_one(options: OidcOptions) -> None:
    with pytest.raises(OidcError, match="cannot be reached"):
        Provider(replace(options, issuer="http://127.0.0.1:9")).address("s", NONCE, VERIFIER)
    with pytest.raises(OidcError, match="does not fit oidc_issuer"):
        Provider(replace(options, issuer=f"{options.issuer}/")).address("s", NONCE, VERIFIER)


def test_refusals_are_logged_without_secrets(pages: Pages, caplog: pytest.LogCaptureFixture) -> None:
    browser = pages()
    with caplog.at_level("WARNING", "awry.access"):
        refused(browser, "/sign-in/oidc/callback?state=guessed&code=a-code", "this sign-in is over")
    assert "this sign-in is over" in caplog.text
    assert "guessed" not in caplog.text
    assert "a-code" not in caplog.text


def _answer(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
