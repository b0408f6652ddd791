"""The page's power and planted-truth columns and its first screen, on figures of our own making; committed results."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.evaluation import student_interval
from probes.statistics.power import smallest_mean
from probes.studies.framework.result import FILE, StudyResult
from probes.studies.framework.verdict import ClaimOutcome, Judgement, Verdict
from probes.studies.summary import page, power, write_study_page
from probes.studies.summary.first_screen import first_screen
from probes.studies.summary.recall import planted_recall

CLAIMS = page.load_claims()
COMMITTED = Path(__file__).parents[4] / "docs" / "studies"


def planted(**top_3: float) -> StudyResult:
    def share(mean: float) -> dict[str, float]:
        return {"mean": mean, "lowest": mean / 2}

    trials = [{"behaviour": "refusal", "heads": ["a", "b", "c"]}] * 3
    recall = {m: {"top_3": share(v), "top_10": share(min(1.0, v + 0.2))} for m, v in top_3.items()}
    return StudyResult("planted-heads", "planted-heads", Path(FILE), {"recall": {"refusal": recall}, "trials": trials})


def detectors(*better: str) -> StudyResult:
    """The shipped probe and two readings, of which some are better."""
    figure = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 100}
    shipped = {"figures": dict.fromkeys(("auroc", "tpr", "everyday_fpr"), figure)}
    label = {name: Verdict.WORKS_SPECIFIC if name in better else Verdict.NO_EFFECT for name in ("logistic", "words")}
    methods = {"shipped": shipped} | {name: shipped | {"verdict": str(verdict)} for name, verdict in label.items()}
    return StudyResult("detectors", "detectors", Path(FILE), {"reference": "shipped", "methods": methods})


def said(study: str, verdict: Judgement) -> StudyResult:
    return StudyResult(study, study, Path(FILE), {"verdict": verdict.as_dict()})


def test_power_is_that_of_the_deviation_behind_the_interval() -> None:
    values = np.random.default_rng(0).normal(0.2, 0.5, 40)
    found = student_interval(values)
    text = power.smallest({"value": found.value, "low": found.low, "high": found.high, "n": 40}, " nats")
    expected = smallest_mean(40, float(values.std(ddof=1)))
    assert text == f"from {expected:.2f} nats (n = 40)"
    wide = {"value": 0.0, "low": -1.0, "high": 1.0, "n": 10}
    many = {"value": 0.0, "low": -0.1, "high": 0.1, "n": 1000}
    assert float(power.smallest(wide).split()[1]) > 1.0 > 0.2 > float(power.smallest(many).split()[1])


@pytest.mark.parametrize(
    "figure",
    [None, {"value": 0.0, "low": None, "high": None, "n": 2}, {"value": 0.0, "low": 0.0, "high": 0.0, "n": 1}],
)
def test_a_figure_without_an_interval_has_no_power(figure: dict[str, Any] | None) -> None:
    assert power.smallest(figure) == power.UNKNOWN


def test_rates_and_draws() -> None:
    (least,) = re.findall(r"from (0\.\d+) at best \(n = 48\)", power.paired(48))
    assert 0.05 < float(least) < 0.3
    assert "no difference" in power.paired(2)
    (accuracy,) = re.findall(r"from (0\.\d+) \(n = 100\)", power.above_half(100))
    assert 0.6 < float(accuracy) < 0.7
    assert power.draws([20, 5]) == "p from 0.048 (20 draws), p from 0.167 (5 draws)"


def test_recall_is_that_of_the_methods_a_claim_rests_on() -> None:
    result = planted(ships_ua=0.9, sahara=0.3)
    assert planted_recall([result], ("ships_ua",)) == (
        "Ships (UA), refusal: 0.90 (worst seed 0.45) in the first 3, 1.00 (worst seed 0.50) in the first 10",
    )
    assert planted_recall([result], ("hsi",)) == planted_recall([], ("hsi",)) == ("not run",)
    assert planted_recall([result], ()) == planted_recall([], ()) == ()
    row = page.row_of(next(c for c in CLAIMS.claims if c.id == "sahara"), CLAIMS.commands, [result])
    assert row.recall[0].startswith("Sahara, refusal: 0.30")


def test_the_first_screen_says_what_each_tool_is_good_for() -> None:
    outcomes = {claim.id: ClaimOutcome.NOT_MEASURED for claim in CLAIMS.claims}
    nothing = first_screen(outcomes, [])
    assert nothing[0] == "## In five sentences"
    assert len(nothing) == 7
    assert nothing[2].endswith("read activations: not run.")
    assert "no head was planted to check it" in nothing[6]
    outcomes |= {"top-head": ClaimOutcome.REPRODUCED, "content": ClaimOutcome.NOT_REPRODUCED}
    results = [
        detectors("logistic"),
        said("transfer-families", Judgement(Verdict.NO_EFFECT, "nothing steers")),
        planted(ships_ua=0.9, sahara=0.3),
    ]
    lines = first_screen(outcomes, results)
    assert "take logistic, better than the shipped probe at no worse rates (of the shipped probe the AUROC" in lines[2]
    assert "AUROC against harmless twins is 0.80 [0.70, 0.90]" in lines[2]
    none = first_screen(outcomes, [detectors()])
    assert "take the shipped probe, since none of 2 other readings has a surely larger AUROC" in none[2]
    assert "on its form (**no**)" in lines[3]
    assert "no effect: nothing steers" in lines[4]
    assert "what it refused (**yes**)" in lines[6]
    assert "of 9 heads planted in a real model for refusal, the papers' methods at best 8 (Ships (UA))" in lines[6]


def test_the_committed_results_make_a_page(tmp_path: Path) -> None:
    for path in COMMITTED.glob(f"*/{FILE}"):
        (tmp_path / "studies" / path.parent.name).mkdir(parents=True)
        (tmp_path / "studies" / path.parent.name / FILE).write_text(path.read_text())
    write_study_page(tmp_path / "studies", tmp_path / "study.md")
    text = (tmp_path / "study.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == len(CLAIMS.claims)
    for row in rows:
        *_, measured, smallest, _, outcome, _, _ = row.replace("\\|", "").split("|")
        measured_at_all = outcome.strip() in ("**reproduced**", "**not reproduced**", "**mixed**")
        assert (smallest.strip() != "none") >= measured_at_all, measured


def test_a_best_donor_that_another_seed_does_not_bear_out_is_mixed() -> None:
    def result(name: str, donor: str, gain: float = 0.4) -> StudyResult:
        figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 20}
        groups = {g: {"as_donor": figure | {"value": gain if g == donor else 0.0}} for g in ("llama", "qwen2")}
        one = {"groups": groups, "mean_difference_of_two_ways": 0.4, "expected_from_sampling": 0.1}
        measured = {
            "plan": {"modes": ["subtract"]},
            "overall": {"subtract": {"across": {"own_gain": figure, "pairs": 2}}},
            "asymmetry": {"subtract": one},
            "model": {"a": {"model": "planted-a"}},
        }
        return StudyResult("transfer", name, Path(FILE), copy.deepcopy(measured))

    def outcome(*results: StudyResult) -> ClaimOutcome:
        return page.row_of(next(c for c in CLAIMS.claims if c.id == "asymmetry"), CLAIMS.commands, results).outcome

    assert outcome(result("a", "llama"), result("b", "llama")) == ClaimOutcome.REPRODUCED
    assert outcome(result("a", "llama"), result("b", "qwen2")) == ClaimOutcome.MIXED
    assert outcome(result("a", "llama", gain=0.1)) == ClaimOutcome.MIXED
