"""The benchmark runs, compares what it reads, and says so when a library is missing. No timing is asserted."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from benchmarks import paths, read_path
from benchmarks.messages import lengths
from benchmarks.paths import Reading, largest_difference
from benchmarks.report import markdown, report


def test_lengths_are_skewed_and_repeatable() -> None:
    for n in (12, 60):
        found = lengths(n)
        assert found == lengths(n) != sorted(found)
        assert min(found) == 8
        assert max(found) <= 512
        assert sorted(found)[n // 2] <= 40
    assert max(lengths(60)) == 512


def test_a_difference_is_relative_to_its_own_site() -> None:
    expected = Reading(torch.tensor([100.0, 1.0]), torch.tensor([[[1.0], [1000.0]]]))
    assert largest_difference(expected, expected) == 0
    off = Reading(torch.tensor([100.0, 2.0]), torch.tensor([[[1.5], [1000.0]]]))
    assert largest_difference(off, expected) == pytest.approx(0.5)
    assert largest_difference(Reading(torch.tensor([100.0, float("nan")])), expected) == float("inf")
    assert largest_difference(Reading(), expected) == float("inf")


def test_a_mismatch_and_a_missed_aim_are_named() -> None:
    path = paths.Path("c", "transformers", lambda _: Reading())
    speeds = {"bare": [100.0, 120.0, 90.0], "b": [90.0, 110.0, 88.0], "c": [40.0, 50.0, 20.0]}
    off = read_path._row(path, speeds, {"c": 2e-4}, judged=True)
    assert off.agrees is False
    assert off.met is False
    assert off.awry_ratio is not None
    assert off.awry_ratio.median == pytest.approx(90 / 40)
    found = report([off], traffic=defaultdict(int), command="x", rounds=3, quick=False)
    line = markdown(found).splitlines()[2]
    assert "MISMATCH" in line
    assert "missed" in line
    fine = read_path._row(path, speeds, {"c": 1e-5}, judged=False)
    assert fine.agrees is True
    assert fine.met is None


@pytest.mark.model
@pytest.mark.timeout(900)  # on a machine that is busy training
def test_quick_without_the_extras(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("nnsight", "transformer_lens", "transformer_lens.model_bridge"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("monitor.settings.default_state_dir", lambda: state)
    out = tmp_path / "deep" / "bench.json"
    assert read_path.main(["--quick", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    rows = {row["key"]: row for row in found["rows"]}
    assert list(rows) == ["bare", "a", "b", "bare-8", "c", "d", "e", "plain", "f"]
    for key in ("a", "b", "c"):
        assert rows[key]["agrees"] is True
        assert 0 <= rows[key]["largest_difference"] <= paths.TOLERANCE
    for key in ("bare", "a", "b", "bare-8", "c", "plain", "f"):
        assert rows[key]["tokens_per_s"] > 0
    for key in ("d", "e"):
        assert rows[key]["tokens_per_s"] is None
        assert "not installed" in rows[key]["note"]
    assert all(row["met"] is None for row in rows.values())
    assert found["quick"] is True
    assert found["rounds"] == 1
    assert found["traffic"]["messages"] == 6
    assert found["machine"]["libraries"]["torch"] == version("torch")
    assert found["command"].endswith(f"--quick --out {out}")
    printed = capsys.readouterr().out
    assert "MISMATCH" not in printed
    assert printed.count("\n| ") == len(rows)
