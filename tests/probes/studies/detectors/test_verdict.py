from __future__ import annotations

from typing import Any

import pytest

from probes.studies.detectors.verdict import holds_under_attack, judged, overall
from probes.studies.framework.verdict import Verdict


def figure(value: float, half: float = 0.03) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": 100}


def difference(auroc: float, tpr: float = 0.0, fpr: float = 0.0) -> dict[str, Any]:
    return {"auroc": figure(auroc), "tpr": figure(tpr), "everyday_fpr": figure(fpr, 0.01)}


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (difference(0.06), Verdict.WORKS_SPECIFIC),
        (difference(0.06, tpr=-0.05), Verdict.WORKS_SPECIFIC),
        (difference(0.06, tpr=0.3), Verdict.WORKS_SPECIFIC),
        (difference(0.025), Verdict.UNDECIDED),
        (difference(0.0), Verdict.NO_EFFECT),
        (difference(-0.2, tpr=0.3), Verdict.NO_EFFECT),
        (difference(0.06, tpr=-0.08), Verdict.NO_EFFECT),
        (difference(0.06, fpr=0.02), Verdict.NO_EFFECT),
        (difference(0.06, fpr=0.005), Verdict.WORKS_SPECIFIC),
    ],
)
def test_better_is_more_auroc_and_no_worse_rates(given: dict[str, Any], label: Verdict) -> None:
    assert judged(given, "the other").label == label


def test_a_rate_that_may_be_much_lower_is_undecided() -> None:
    wide = difference(0.06) | {"tpr": figure(-0.02, 0.12)}
    assert judged(wide, "the other").label == Verdict.UNDECIDED


def test_the_study_says_what_the_reading_does_that_select_rows_chose_and_warns_of_attacks() -> None:
    verdicts = {
        "logistic, last token": judged(difference(0.06), "the other"),
        "logistic, top windows": judged(difference(0.07), "the other"),
        "difference in means, last token": judged(difference(0.3), "the other"),
        "words alone": judged(difference(-0.2), "the other"),
    }
    merits = {"logistic, last token": 0.7, "logistic, top windows": 0.8, "difference in means, last token": 0.9}
    recall = {"logistic, last token": 0.2, "logistic, top windows": 0.5, "shipped": 0.5}
    summary = {name: {"mean": mean} for name, mean in recall.items()}
    found = overall(verdicts, merits, summary, "shipped")
    assert found.label == Verdict.WORKS_SPECIFIC
    assert found.why.startswith("logistic, top windows reads better than the other")
    assert [line.startswith("logistic, last token: mean recall under attack 0.20") for line in found.warnings] == [True]
    assert holds_under_attack(summary, "logistic, last token", "shipped") is False
    assert holds_under_attack({}, "logistic, last token", "shipped") is None
    without = overall(verdicts, merits, {}, "shipped")
    assert without.warnings == ()
