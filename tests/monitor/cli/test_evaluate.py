"""`awry eval` as a gate in CI, on a tiny model: what is printed, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import invoke, message_of
from tests.support.stream.worker import lines

Words = tuple[str | Path, ...]


@pytest.fixture
def evaluation(tiny_folder: Path, tmp_path: Path) -> Words:
    """Of a probe that flags everything: the TPR is 1, and so is the FPR."""
    rows = [{"prompt": f"{'zebra' if n % 3 else 'apple'} {n}", "label": bool(n % 3)} for n in range(90)]
    labelled = lines(tmp_path / "labelled.jsonl", rows)
    model = ("--model", tiny_folder / "tiny-chat", "--state-dir", tmp_path)
    return (
        "eval",
        "--probe",
        tiny_folder / "drift.json",
        "--labelled",
        labelled,
        "--png",
        tmp_path / "x.png",
        *model,
    )


def test_a_gate_that_holds(evaluation: Words) -> None:
    limits = ("--fail-under", "tpr=1", "--fail-under", "tpr:low=0.9", "--fail-over", "fpr=1")
    done = invoke(*evaluation, *limits, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [each["passed"] for each in found["limits"]] == [True, True, True]
    assert found["limits"][2] == {
        "side": "fail_over",
        "metric": "fpr",
        "bound": "value",
        "wanted": 1.0,
        "found": 1.0,
        "passed": True,
        "reason": None,
    }


def test_a_gate_that_fails_prints_all_figures_and_a_line_for_each_miss(evaluation: Words) -> None:
    limits = ("--fail-under", "tpr=0.6", "--fail-under", "tpr-at-fpr-0.001=0.1", "--fail-over", "fpr=0.05")
    done = invoke(*evaluation, *limits)
    assert done.exit_code == 1
    assert "FPR at the threshold" in done.stdout
    assert [line for line in done.stderr.splitlines() if line.startswith("awry: fail_")] == [
        "awry: fail_under: tpr-at-fpr-0.001 is too few: 30 aligned messages, at least 3000 are needed",
        "awry: fail_over: fpr is 1 [0.8843, 1], over 0.05",
    ]

    document = invoke(*evaluation, *limits, "--json")
    assert document.exit_code == 1
    found = json.loads(document.stdout)
    assert [(each["metric"], each["found"], each["passed"]) for each in found["limits"]] == [
        ("tpr", 1.0, True),
        ("tpr-at-fpr-0.001", None, False),
        ("fpr", 1.0, False),
    ]
    assert "too few" in found["limits"][1]["reason"]


def test_the_worst_family_can_be_limited(evaluation: Words) -> None:
    suite = ("--attacks", "--families", "case,hex", "--json")
    found = json.loads(invoke(*evaluation, *suite, "--fail-under", "worst-tpr:high=1").stdout)
    worst = min(family["tpr"]["value"] for family in found["attacks"]["families"])
    assert (
        next(f for f in found["attacks"]["families"] if f["tpr"]["value"] == worst)["tpr"]["high"]
        == (found["limits"][0]["found"])
    )


def test_limits_are_checked_before_anything_is_read() -> None:
    """Neither the probe nor the model of these is there."""
    start = ("eval", "--probe", "nowhere.json", "--labelled", "nowhere.jsonl", "--model", "nowhere")
    assert message_of(invoke(*start, "--fail-under", "f1=0.5")).startswith("fail_under: 'f1' is none of auroc, tpr, ")
    assert message_of(invoke(*start, "--fail-under", "worst-tpr=0.5")).endswith("give --attacks too")
