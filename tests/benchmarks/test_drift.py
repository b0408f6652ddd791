"""The simulation of tail drift runs, its traffic is what it says, and the page shows its figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from alerts.rules.exceedance import TOLERANCE
from benchmarks import drift
from tests.support import ROOT

ROWS = {
    "fourfold flagged share": "fourfold flagged share (1 to 4 %)",
    "shifted mean": "mean higher by half a standard deviation",
    "shifted tail": "the highest tenth reaches half again as far",
    "no score high any more": "the mean is lower by one: nothing scores high any more",
}


@pytest.mark.parametrize("kind", drift.KINDS)
def test_traffic_has_the_shares_that_it_is_given(kind: str) -> None:
    shares = np.broadcast_to(drift.TAILS, (20, 24 * 30, 3))
    hours = drift.traffic(np.random.default_rng(1), kind, 20_000, shares)
    assert hours.n.sum() / 20 / 30 == pytest.approx(20_000, rel=0.03)
    found = [hours.above[name].sum() / hours.n.sum() for name in drift.LEVELS]
    factor = TOLERANCE if kind == "heavy" else 1
    # Where quiet hours have the larger share, most messages come in the others.
    assert found[:2] == pytest.approx(factor * drift.TAILS[:2], rel=0.15)
    assert all((hours.above[a] >= hours.above[b]).all() for a, b in zip(drift.LEVELS, drift.LEVELS[1:], strict=False))


def test_changes_are_what_they_are_called() -> None:
    at = norm.isf(drift.TAILS)
    assert drift.shares_after("fourfold flagged share", at)[1] == pytest.approx(0.04, abs=0.001)
    assert (drift.shares_after("shifted tail", at) > drift.TAILS).all()
    assert (drift.shares_after("shifted mean", at) > drift.TAILS).all()
    assert (drift.shares_after("no score high any more", at) < drift.TAILS / 5).all()


def test_alarms_are_counted_once_until_they_are_over() -> None:
    value = np.array([[0, 2, 0.5, 3, 0.05, 0.5, 2], [0, 0, 0, 0, 0, 0, 0]])
    begun, live = drift.alarms(value)
    assert (begun.tolist(), live.tolist()) == ([2, 0], [4, 0])


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drift.main(["--quick", "--out", str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["quick"]
    assert {row["kind"] for row in report["false_alarms"]} > set(drift.KINDS)
    assert {row["change"] for row in report["delays"]} == set(drift.CHANGES)
    assert "| fourfold flagged share |" in capsys.readouterr().out


def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "bench-drift.json").read_text())
    assert not found["quick"]
    return found


def test_the_page_shows_the_figures() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text()
    for change, name in ROWS.items():
        (cells,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", page, re.MULTILINE)
        medians = [r["median_hours"] for r in kept()["delays"] if (r["change"], r["calibration"]) == (change, 2000)]
        shown = ["over two weeks" if median is None else f"{median:.0f}" for median in medians]
        assert [cell.strip() for cell in cells.split("|")] == shown


def test_benign_traffic_has_about_one_alarm_a_year_at_most() -> None:
    assert max(row["a_year"] for row in kept()["false_alarms"]) <= 1
