"""Limits on an evaluation's figures: how they are written, and what passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.errors import DataError
from probes.evaluation import Interval, evaluate
from probes.limits import METRICS, Figure, check_limits, figures_of, parse_limits


def shown(under: list[str], over: list[str], **figures: Interval | None) -> list[tuple[str, bool, str | None]]:
    named = {name: Figure(found, "" if found else "too few: 9 are there") for name, found in figures.items()}
    found = check_limits(parse_limits(under, over, attacks=False), named)
    return [(each.limit.name, each.reason is None, each.reason) for each in found]


AUROC = Interval(0.8, 0.7, 0.9, 50)


def test_a_figure_at_its_limit_passes() -> None:
    assert shown(["auroc=0.8"], ["fpr=0.05"], auroc=AUROC, fpr=Interval(0.05, 0.01, 0.1, 100)) == [
        ("auroc", True, None),
        ("fpr", True, None),
    ]


def test_what_is_missed_is_said_with_the_figure_and_its_interval() -> None:
    # 0.79996 must not be shown as the 0.8 that was wanted.
    assert shown(["auroc=0.8"], [], auroc=Interval(0.79996, 0.7, 0.9, 50))[0][2] == (
        "auroc is 0.79996 [0.7, 0.9], under 0.8"
    )
    assert shown([], ["fpr=0.05"], fpr=Interval(0.2, 0.1, 0.3, 50))[0][2] == "fpr is 0.2 [0.1, 0.3], over 0.05"


def test_the_ends_of_the_interval_can_be_limited() -> None:
    assert shown(["auroc:low=0.75", "auroc:high=0.9", "auroc=0.8"], [], auroc=AUROC) == [
        ("auroc:low", False, "auroc:low is 0.7 (auroc 0.8 [0.7, 0.9]), under 0.75"),
        ("auroc:high", True, None),
        ("auroc", True, None),
    ]
    assert not shown([], ["fpr:high=0.09"], fpr=Interval(0.05, 0.01, 0.1, 100))[0][1]


def test_too_few_is_not_passed() -> None:
    assert shown(["tpr-at-fpr-0.001=0"], [], **{"tpr-at-fpr-0.001": None}) == [
        ("tpr-at-fpr-0.001", False, "tpr-at-fpr-0.001 is too few: 9 are there")
    ]


def test_a_figure_that_is_no_number_is_not_passed() -> None:
    nan = Interval(float("nan"), 0.0, 1.0, 50)
    assert [passed for _, passed, _ in shown(["auroc=0"], ["fpr=1"], auroc=nan, fpr=nan)] == [False, False]


def test_every_metric_has_its_figure() -> None:
    labels = np.arange(400) < 200
    result = evaluate(labels + np.linspace(0, 0.5, 400), labels)
    rate: dict[str, Any] = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 200}
    figures = figures_of(result, {"threshold": 0.5, "tpr": rate, "fpr": rate}, None)
    assert set(figures) == {*METRICS["fail_under"], *METRICS["fail_over"]} - {"worst-tpr"}
    assert figures["tpr-at-fpr-0.01"].interval is None
    assert figures["tpr-at-fpr-0.01"].why_not == "too few: 200 aligned messages, at least 300 are needed"


@pytest.mark.parametrize(
    ("under", "over", "said"),
    [
        (["auroc"], [], "fail_under: 'auroc' is not METRIC=VALUE, such as auroc=0.8"),
        ([], ["0.1"], "fail_over: '0.1' is not METRIC=VALUE, such as fpr=0.05"),
        (
            ["f1=0.5"],
            [],
            "fail_under: 'f1' is none of auroc, tpr, tpr-at-fpr-0.01, tpr-at-fpr-0.001, worst-tpr",
        ),
        ([], ["tnr=0.5"], "fail_over: 'tnr' is none of fpr"),
        (["fpr=0.05"], [], "fail_under: fpr is better the lower it is; write --fail-over fpr=0.05"),
        ([], ["tpr:low=0.5"], "fail_over: tpr is better the higher it is; write --fail-under tpr:low=0.5"),
        (["tpr=80"], [], "fail_under: tpr: '80' is no number from 0 to 1, such as 0.05"),
        (["tpr=nan"], [], "fail_under: tpr: 'nan' is no number from 0 to 1"),
        (["tpr="], [], "fail_under: tpr: '' is no number from 0 to 1"),
        (["tpr:mean=0.5"], [], "fail_under: 'tpr:mean': after the colon comes low or high"),
        (["tpr=0.5", "tpr=0.6"], [], "fail_under: tpr is given twice"),
        (["worst-tpr=0.5"], [], "fail_under: worst-tpr is a figure of the attack suite; give --attacks too"),
    ],
)
def test_mistakes_are_named(under: list[str], over: list[str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_limits(under, over, attacks=False)
    assert str(caught.value).startswith(said)
