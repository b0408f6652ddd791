"""The web pages in a real Chromium: readable without scripts, refreshed without reloading, acknowledging with a token,
both colour schemes, a small screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy import Engine

from alerts.links import Links
from monitor.web.auth import tokens
from monitor.web.server import serving
from monitor.web.ui.app import REFRESH
from storage.rollup import roll_up
from tests.conftest import needs_program
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import ANNA, scored
from tests.support.web.pages import OPEN

pytestmark = pytest.mark.browser

CARD = {"calibration": {"threshold": 0.5, "target_fpr": 0.01, "quantiles": [[0.0, -0.5], [1.0, 0.4]]}}

# The lowest contrast of any text with what is behind it (WCAG 2.2, relative luminance), and where.
CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const found = channels(getComputedStyle(one).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = [...document.querySelectorAll("body *")]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .filter((e) => e.getClientRects().length && !e.closest(".hidden, .skip, noscript, title, option"))
    .map((e) => {
      const style = getComputedStyle(e), svg = e instanceof SVGElement;
      const [a, b] = [light(channels(svg ? style.fill : style.color)), light(behind(svg ? e.closest("svg") : e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + "." + e.getAttribute("class")];
    });
  return found.sort((x, y) => x[0] - y[0])[0];
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = needs_program("chromium", "apt-get install chromium")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        # Run by root, as in containers, it has no sandbox of its own; it sees this server alone.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def address(engine: Engine) -> Iterator[str]:
    with serving("127.0.0.1:0", engine, Links(), lambda: None, OPEN) as found:
        yield f"http://{found}"


@pytest.fixture
def stored(engine: Engine) -> Engine:
    """Two alerts, some scores above the threshold and below it, a probe with a card."""
    scored(engine, 0, 30, value=0.2, ago=120, card=CARD)
    scored(engine, 30, 5, value=1.4, ago=60, card=CARD)
    roll_up(engine)
    open_alerts(engine, [flagged(31, 5.0), flagged(32, 0.6, tenant="bank")])
    return engine


@contextmanager
def opened(chromium: Browser, **choices: Any) -> Iterator[tuple[BrowserContext, Page]]:
    """A new window. What its console says is an error here: a blocked style, a script that broke."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **choices})
    page, said = context.new_page(), []
    page.on("console", lambda line: said.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if "127.0.0.1" in request.url else said.append(f"asked {request.url}"))
    try:
        yield context, page
        assert said == []
    finally:
        context.close()


def paths(engine: Engine) -> list[str]:
    first = next(a for a in all_alerts(engine) if a.severity == "critical")
    return ["/", "/alerts", f"/alerts/{first.id}", "/messages/topic/0/31", "/probes", "/probes/drift", "/sign-in"]


def test_everything_can_be_read_without_scripts(chromium: Browser, address: str, stored: Engine) -> None:
    with opened(chromium, java_script_enabled=False) as (_, page):
        page.goto(address)
        assert page.title() == "2 open · awry"
        assert page.locator("main section").first.inner_text().split()[:2] == ["1", "critical,"]
        page.get_by_role("link", name="threshold").first.click()
        expect(page.locator("main")).to_contain_text("5.00 over 0.50 class gaps")
        page.get_by_role("link", name="m31").click()
        expect(page.locator("main")).to_contain_text("◆ flagged")
        page.get_by_role("navigation").get_by_role("link", name="Alerts").click()
        page.get_by_label("Tenant").fill("bank")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("table.alerts tbody tr")).to_have_count(1)
        page.goto(address)
        page.locator("a:has(.score.flagged)").first.click()
        expect(page).to_have_url(re.compile(r"/messages/topic/0/3\d$"))


def test_it_refreshes_by_itself(chromium: Browser, address: str, stored: Engine) -> None:
    with opened(chromium) as (_, page):
        page.clock.install()
        page.goto(address)
        assert page.locator("#live-state").inner_text() == f"Live: refreshes every {REFRESH} s."
        page.evaluate("window.before = document.getElementById('alerts').parentElement")
        open_alerts(stored, [flagged(40, 9.0, tenant="hospital")])
        page.clock.run_for((REFRESH + 1) * 1000)
        page.get_by_text("hospital").wait_for()
        assert page.title() == "3 open · awry"
        assert page.evaluate("window.before.isConnected"), "the page was not loaded anew"
        # What somebody is about to press is not taken away under the finger.
        page.locator("#alerts a").first.focus()
        open_alerts(stored, [flagged(41, 9.0, tenant="harbour")])
        page.clock.run_for((REFRESH + 1) * 1000)
        expect(page).to_have_title("4 open · awry")
        assert page.get_by_text("harbour").count() == 0
        page.evaluate("document.activeElement.blur()")
        page.clock.run_for((REFRESH + 1) * 1000)
        page.get_by_text("harbour").wait_for()


def test_a_server_that_stops_is_shown(chromium: Browser, stored: Engine) -> None:
    context = chromium.new_context()
    page = context.new_page()
    with serving("127.0.0.1:0", stored, Links(), lambda: None, OPEN) as address:
        page.clock.install()
        page.goto(f"http://{address}")
    page.clock.run_for((REFRESH + 1) * 1000)
    page.get_by_text("awry does not respond: the data shown is out of date.").wait_for()
    context.close()


def test_acknowledging_with_a_token(chromium: Browser, address: str, stored: Engine) -> None:
    with stored.begin() as connection:
        secret = tokens.create(connection, "anna", "act", timedelta(hours=1), ANNA)
    alert = next(a for a in all_alerts(stored) if a.severity == "critical")
    with opened(chromium, java_script_enabled=False) as (context, page):
        page.goto(f"{address}/alerts/{alert.id}")
        assert page.get_by_role("button", name="Acknowledge").count() == 0
        page.locator("main").get_by_role("link", name="Sign in").click()
        page.get_by_label("Token").fill(secret)
        page.locator("main").get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{address}/alerts/{alert.id}")
        page.get_by_role("button", name="Acknowledge").click()
        expect(page.locator("#history")).to_contain_text("acknowledge")
        assert "anna" in page.locator("#history").inner_text()
        page.get_by_label("Verdict").select_option("false")
        page.get_by_label("Note").fill("a joke")
        page.get_by_role("button", name="Judge").click()
        expect(page.locator("#head")).to_contain_text("judged false")
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("link", name="Sign in").first).to_be_visible()
        assert context.cookies() == []
    after = next(a for a in all_alerts(stored) if a.id == alert.id)
    assert (after.state, after.acknowledged_by, after.verdict) == ("acknowledged", "anna", "false")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_both_colour_schemes(chromium: Browser, address: str, stored: Engine, scheme: Any) -> None:
    with opened(chromium, color_scheme=scheme) as (_, page):
        for path in paths(stored):
            page.goto(address + path)
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            shade = sum(int(c) for c in re.findall(r"\d+", paper)[:3]) / 3
            assert shade > 200 if scheme == "light" else shade < 60
            contrast, where = page.evaluate(CONTRAST)
            assert contrast >= 4.5, (path, where)


def test_it_fits_a_small_screen(chromium: Browser, address: str, stored: Engine) -> None:
    with opened(chromium, viewport={"width": 390, "height": 800}) as (_, page):
        for path in paths(stored):
            page.goto(address + path)
            wide, there = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert wide <= there, path


def test_every_control_has_a_name_and_every_part_its_own_id(chromium: Browser, address: str, stored: Engine) -> None:
    with stored.begin() as connection:
        secret = tokens.create(connection, "anna", "act", timedelta(hours=1), ANNA)
    with opened(chromium) as (context, page):
        context.add_cookies([{"name": "awry_token", "value": secret, "url": address}])
        for path in paths(stored):
            page.goto(address + path)
            ids = page.eval_on_selector_all("[id]", "found => found.map(e => e.id)")
            assert len(ids) == len(set(ids)), path
            assert page.locator("h1").count() == 1, path
            for one in page.locator("main input:not([type=hidden]), main select, main button").all():
                assert one.evaluate("e => (e.labels?.[0]?.innerText ?? e.innerText).trim()"), path
