"""A probe's page: what its card says of attacks."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from monitor.web.ui import cards
from storage.writer import register_probe
from tests.monitor.web.ui.test_pages import CARD, browsing, words


def test_a_probe_shows_what_it_withstands(engine: Engine) -> None:
    browser: TestClient = browsing(engine)

    def family(name: str, tpr: float, holds_out: bool) -> dict[str, Any]:
        rates = {"tpr": {"value": tpr, "low": 0.1, "high": 0.9, "n": 150}, "fpr": {"value": 0.01, "n": 300}}
        return {"family": name, "holds_out": holds_out, **rates}

    attacks = {
        "harmful": 150,
        "benign": 300,
        "seed": 4,
        "plain": family("plain", 0.8, False),
        "families": [
            family("suffix-polite", 0.25, False),
            {**family("he<x>", 0.5, True), "unreadable": {"value": 0.875}},
            {"family": 3},
            "odd",
        ],
        "adaptive": {"random": {"curve": [{"queries": 25, "flagged": {"value": 0.4, "n": 150}}, 7]}, "odd": 3},
    }
    with engine.begin() as connection:
        register_probe(connection, "a" * 32, "tried", 1, "hash", {**CARD, "attacks": attacks})
    page = browser.get("/probes/tried").text
    said = words(page)
    assert "Under attack" in said
    assert "Measured with harmful 150, benign 300, seed 4." in said
    assert "plain 0.8 [0.1, 0.9], n 150 0.01, n 300 suffix-polite yes 0.25 [0.1, 0.9], n 150" in said
    assert "he&lt;x&gt; no 0.5 [0.1, 0.9], n 150 0.01, n 300 87.5%" in said
    assert "A search for suffixes, random Queries Still flagged 25 0.4, n 150" in said
    assert "Under attack" not in words(browser.get("/probes").text)


@pytest.mark.parametrize(
    "attacks",
    [None, 3, {}, {"families": 5, "adaptive": [1]}, {"families": [{"tpr": 1}], "adaptive": {"x": {"curve": "y"}}}],
)
def test_attacks_of_another_form_are_left_out(attacks: Any) -> None:
    assert cards.attacks({"attacks": attacks}) is None
