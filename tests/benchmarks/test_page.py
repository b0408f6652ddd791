"""The benchmark of the page asks every page of rows that are there. No timing is asserted."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from alerts.links import Links
from benchmarks.grafana_queries import load
from benchmarks.page import measure
from monitor.web.auth.options import AccessOptions
from monitor.web.ui.app import make_ui

pytestmark = pytest.mark.slow


def test_every_page_is_measured(engine: Engine) -> None:
    load(engine, 4000, 0.1)
    found = measure(
        TestClient(
            make_ui(engine, Links(), loopback_only=True, options=AccessOptions("loopback")), base_url="http://localhost"
        )
    )
    assert len(found) == 7
    assert all(figures["ms"] > 0 for figures in found.values())
