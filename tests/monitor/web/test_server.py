"""One address that serves the pages, the API, metrics and health."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from alerts.links import Links
from monitor.errors import SettingsError
from monitor.telemetry import metrics
from monitor.web.auth import tokens
from monitor.web.server import serving
from monitor.web.ui.formatting import place_url
from storage.partitions import utc_today
from storage.writer import BatchRows
from tests.support.alerts.alert_scenes import ANNA
from tests.support.rows import at, message, score, write
from tests.support.web.pages import OPEN


@pytest.fixture
def address(engine: Engine) -> Iterator[str]:
    with serving("127.0.0.1:0", engine, Links(), lambda: None, OPEN) as found:
        yield f"http://{found}"


def test_sources_with_odd_names_have_a_page(address: str, engine: Engine) -> None:
    for name in ("/var/log/chat.jsonl", "a%2Fb c?d#e", "täglich", "a//b"):
        write(
            engine,
            BatchRows([replace(message(5, day=utc_today()), at=at(5, name))], [replace(score(5), at=at(5, name))]),
        )
        status, page = get(address + place_url({"source": name, "partition": 0, "offset": 5}))
        assert status == 200
        assert "0.900" in page


def get(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_one_address_serves_all(engine: Engine) -> None:
    trouble: list[str] = []
    with (
        metrics.watching(engine),
        serving("127.0.0.1:0", engine, Links(), lambda: trouble[0] if trouble else None, OPEN) as found,
    ):
        address = f"http://{found}"
        assert get(f"{address}/healthz") == (200, "ok\n")
        assert get(f"{address}/readyz") == (200, "ok\n")
        trouble.append("the database does not answer")
        assert get(f"{address}/readyz") == (503, "the database does not answer\n")
        assert "awry_outbox_pending 0.0" in get(f"{address}/metrics")[1]
        assert get(f"{address}/api/v1/alerts")[0] == 401
        assert json.loads(get(f"{address}/api/v1/openapi.json")[1])["info"]["title"] == "awry"
        with engine.begin() as connection:
            secret = tokens.create(connection, "siem", "read", timedelta(hours=1), ANNA)
        status, body = get(f"{address}/api/v1/alerts", Authorization=f"Bearer {secret}")
        assert (status, json.loads(body)["alerts"]) == (200, [])
        assert get(f"{address}/")[0] == 200
        # The same server by a name that is not this machine's: the page asks who it is.
        assert "Token" in get(f"{address}/", Host="awry.example")[1]


def test_an_address_that_is_taken(engine: Engine) -> None:
    with (
        serving("127.0.0.1:0", engine, Links(), lambda: None, OPEN) as found,
        pytest.raises(SettingsError, match="is taken by another process"),
        serving(found, engine, Links(), lambda: None),
    ):
        pass


def test_the_page_ships_with_the_package() -> None:
    from monitor.web import ui

    folder = Path(ui.__file__).parent
    assert {p.name for p in (folder / "static").iterdir()} == {"page.css", "live.js", "icon.svg"}
    assert {p.suffix for p in (folder / "templates").iterdir()} == {".html"}
