from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp, ttest_ind
from scipy.stats import t as student

from probes.errors import DataError
from probes.evaluation import (
    Interval,
    OperatingPoint,
    auroc,
    evaluate,
    jackknife_interval,
    operating_point,
    paired_difference,
    rate,
    rows_needed,
    student_interval,
)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@example((0, 7))
@example((7, 7))
def test_a_rate_has_scipys_exact_binomial_interval(counts: tuple[int, int]) -> None:
    successes, n = counts
    got = rate(successes, n)
    wanted = binomtest(successes, n).proportion_ci(0.95, "exact")
    assert (got.value, got.n) == (successes / n, n)
    assert got.low == pytest.approx(wanted.low, abs=1e-10)
    assert got.high == pytest.approx(wanted.high, abs=1e-10)
    assert got.low <= got.value <= got.high


def test_a_rate_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        rate(0, 0)


def best_tpr(positive: list[float], negative: list[float], target: float) -> tuple[float, float]:
    """The highest TPR of any threshold whose FPR is at or under the target, by trying them all."""
    best = (0.0, 0.0)
    for threshold in {*positive, *negative}:
        false = sum(s >= threshold for s in negative) / len(negative)
        if false <= target:
            best = max(best, (sum(s >= threshold for s in positive) / len(positive), false))
    return best


# Few distinct values, so that ties between and within the classes are common.
ties = st.integers(-3, 8).map(float)


@given(
    st.lists(ties, min_size=1, max_size=40),
    st.lists(ties, min_size=30, max_size=120),
    st.sampled_from([0.1, 0.13, 0.3]),
)
def test_an_operating_point_is_the_best_that_does_not_exceed_its_target(
    positive: list[float], negative: list[float], target: float
) -> None:
    scores = np.array([*positive, *negative])
    labels = np.arange(len(scores)) < len(positive)
    point = operating_point(scores, labels, target)
    assert point.target_fpr == target
    if len(negative) < 3 / target:
        assert point == OperatingPoint(target, None, None)
        return
    tpr, _ = best_tpr(positive, negative, target)
    assert point.fpr is not None
    assert point.tpr is not None
    assert point.fpr <= target
    assert point.tpr.value == pytest.approx(tpr)
    assert point.tpr.n == len(positive)


def test_the_largest_rate_under_the_target_and_not_the_nearest() -> None:
    # One benign score more and the rate would be 1.4 %, nearer to 1 % than the 0.57 % that is under it.
    negative = np.concatenate([np.zeros(346), [5.0, 5.0], [3.0, 3.0, 3.0]])
    positive = np.array([6.0, 4.0, 4.0, 2.0])
    labels = np.arange(355) < 4
    point = operating_point(np.concatenate([positive, negative]), labels, 0.01)
    assert point.fpr == pytest.approx(2 / 351)
    assert point.tpr is not None
    assert point.tpr.value == 0.75


@pytest.mark.parametrize(("target", "needed"), [(0.01, 300), (0.001, 3000)])
def test_too_few_negatives_have_no_figure(target: float, needed: int) -> None:
    for negatives, few in ((needed - 1, True), (needed, False)):
        scores = np.linspace(0, 1, negatives + 2)
        labels = np.arange(negatives + 2) >= negatives
        point = operating_point(scores, labels, target)
        assert (point.tpr is None) is few
        assert (str(point) == "too few") is few
    assert str(point) == "1.00 [0.16, 1.00]"


def pairs(positive: list[float], negative: list[float]) -> float:
    """AUROC by its meaning: how often a positive is above a negative, ties counted half."""
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return sum(wins) / len(wins)


@given(st.lists(ties, min_size=1, max_size=30), st.lists(ties, min_size=1, max_size=30), st.integers(1, 40))
def test_auroc_by_pairs_and_its_interval_contains_it(positive: list[float], negative: list[float], groups: int) -> None:
    scores = np.array([*positive, *negative])
    labels = np.arange(len(scores)) < len(positive)
    got = auroc(scores, labels, [i % groups for i in range(len(scores))])
    assert got.value == pytest.approx(pairs(positive, negative))
    assert 0 <= got.low <= got.value + 1e-12
    assert got.value - 1e-12 <= got.high <= 1
    assert got.low < got.high
    assert got.n == len(scores)


def by_hand(scores: list[float], labels: list[bool], groups: list[int]) -> float:
    """Obuchowski's variance of an AUROC by its formulas (1997, section 2), pair by pair."""
    pos, neg = ([i for i, bad in enumerate(labels) if bad is side] for side in (True, False))

    def placed(i: int, others: list[int]) -> float:
        wins = [(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for j in others]
        return sum(wins) / len(wins) if labels[i] else 1 - sum(wins) / len(wins)

    value = sum(placed(i, neg) for i in pos) / len(pos)
    every = sorted(set(groups))
    above = [sum(placed(i, neg) - value for i in pos if groups[i] == g) for g in every]
    below = [sum(placed(j, pos) - value for j in neg if groups[j] == g) for g in every]
    with_pos, with_neg = len({groups[i] for i in pos}), len({groups[j] for j in neg})
    s10 = with_pos / ((with_pos - 1) * len(pos)) * sum(a * a for a in above)
    s01 = with_neg / ((with_neg - 1) * len(neg)) * sum(b * b for b in below)
    s11 = len(every) / (len(every) - 1) * sum(a * b for a, b in zip(above, below, strict=True))
    return s10 / len(pos) + s01 / len(neg) + 2 * s11 / (len(pos) * len(neg))


@pytest.mark.parametrize("kind", ["rows", "pairs", "groups of some"])
def test_aurocs_interval_is_obuchowskis_on_the_logit(kind: str) -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(60) < 24
    scores = np.round(rng.normal(0, 1, 60) + labels, 1)
    drawn = rng.integers(0, 15, 60).tolist()
    groups = {"rows": list(range(60)), "pairs": [i % 24 for i in range(60)], "groups of some": drawn}[kind]
    least = min(len({g for g, bad in zip(groups, labels, strict=True) if bad is np.bool_(s)}) for s in (True, False))
    got = auroc(scores, labels, None if kind == "rows" else groups)
    spread = got.value * (1 - got.value)
    variance = (least * by_hand(scores.tolist(), labels.tolist(), groups) + 2 * spread / least) / (least + 2)
    half = student.ppf(0.975, least - 1) * np.sqrt(variance) / spread
    ends = [np.log(end / (1 - end)) - np.log(got.value / (1 - got.value)) for end in (got.low, got.high)]
    assert ends == pytest.approx([-half, half])


def test_pairs_that_go_together_narrow_aurocs_interval() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 40)
    scores = np.concatenate([shared + 0.5, shared]) + rng.normal(0, 0.3, 80)
    labels = np.arange(80) < 40
    paired, loose = (auroc(scores, labels, groups) for groups in ([i % 40 for i in range(80)], None))
    assert paired.value == loose.value
    assert paired.high - paired.low < 0.7 * (loose.high - loose.low)


def test_rows_that_are_all_told_apart_have_an_interval_by_the_number_of_groups() -> None:
    scores, labels = np.arange(60.0), np.arange(60) >= 40
    assert auroc(scores, labels) == Interval(1.0, rate(20, 20).low, 1.0, 60)
    assert auroc(scores, ~labels, [i // 5 for i in range(60)]) == Interval(0.0, 0.0, rate(0, 4).high, 60)


def test_the_interval_narrows_with_rows_and_is_about_right() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (40, 640):
        scores = np.concatenate([rng.normal(1, 1, n), rng.normal(0, 1, n)])
        got = auroc(scores, np.arange(2 * n) < n)
        widths.append(got.high - got.low)
        assert got.low < 0.76 < got.high  # the truth for a shift of one standard deviation
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


def test_a_difference_without_a_discordant_row_is_no_point() -> None:
    same = np.arange(30) < 12
    found = paired_difference(same, same)
    assert (found.value, found.n) == (0, 30)
    assert found.low == pytest.approx(-found.high)
    assert found.high == pytest.approx(0.092, abs=0.001)
    opposite = paired_difference(same, ~same)
    assert opposite.value == pytest.approx(-6 / 30)
    assert paired_difference(np.ones(5, np.bool_), np.zeros(5, np.bool_)).high == 1
    with pytest.raises(DataError, match="1 rows; an interval needs at least 2"):
        paired_difference(same[:1], same[:1])


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, 11)
    found = jackknife_interval(float(values.mean()), (values.sum() - values) / 10)
    wanted = student_interval(values)
    assert (found.low, found.high, found.n) == pytest.approx((wanted.low, wanted.high, 11))


def test_the_jackknife_of_two_samples_is_welchs_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 9), rng.normal(1, 4, 21)
    found = jackknife_interval(
        float(a.mean() - b.mean()), (a.sum() - a) / 8 - b.mean(), a.mean() - (b.sum() - b) / 20, n=30
    )
    wanted = ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found.low, found.high, found.n) == pytest.approx((wanted.low, wanted.high, 30))


def test_the_jackknife_of_one_unit_has_no_interval() -> None:
    assert jackknife_interval(0.3, np.array([0.3]), n=4) == Interval(0.3, -np.inf, np.inf, 4)
    assert jackknife_interval(0.3, np.array([])) == Interval(0.3, -np.inf, np.inf, 0)


def test_evaluate_puts_it_together() -> None:
    scores = np.linspace(0, 1, 400)
    labels = np.arange(400) >= 350
    whole = evaluate(scores.astype(np.float32), labels)
    assert (whole.positives, whole.negatives) == (50, 350)
    assert whole.auroc == Interval(1.0, rate(50, 50).low, 1.0, 400)
    assert evaluate(scores, labels, groups=np.arange(400).tolist()).auroc == whole.auroc
    assert evaluate(scores, labels, groups=(np.arange(400) // 2).tolist()).auroc.low == rate(25, 25).low
    assert [p.target_fpr for p in whole.operating_points] == [0.01, 0.001]
    first, second = (p.tpr for p in whole.operating_points)
    assert first is not None
    assert first.value == 1.0
    assert second is None


@pytest.mark.parametrize(("labels", "said"), [([True, True], "only misaligned"), ([False, False], "only aligned")])
def test_one_class_alone_is_an_error(labels: list[bool], said: str) -> None:
    with pytest.raises(DataError, match=said):
        evaluate(np.array([0.0, 1.0]), np.array(labels))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(value: float) -> None:
    with pytest.raises(DataError, match="not finite"):
        evaluate(np.array([0.0, value]), np.array([True, False]))


@pytest.mark.parametrize("level", [0.68, 0.95, 0.999])
def test_a_mean_has_scipys_student_interval(level: float) -> None:
    values = np.random.default_rng(0).normal(3, 2, 11)
    found = student_interval(values, level=level)
    wanted = ttest_1samp(values, 0).confidence_interval(level)
    assert found.n == 11
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), wanted.low, wanted.high))
    with pytest.raises(DataError, match="1 rows; an interval needs at least 2"):
        student_interval(values[:1])


@pytest.mark.parametrize("half", [0.1, 0.2, 0.3])
def test_rows_needed_are_just_enough_for_every_rate(half: float) -> None:
    n = rows_needed(half)
    assert max(r.high - r.low for r in (rate(k, n) for k in range(n + 1))) <= 2 * half
    assert max(r.high - r.low for r in (rate(k, n - 1) for k in range(n))) > 2 * half


@pytest.mark.parametrize("half", [0.0, 0.5, -1.0])
def test_an_interval_that_no_number_of_rows_gives_is_an_error(half: float) -> None:
    with pytest.raises(DataError, match=r"not between 0 and 0\.5"):
        rows_needed(half)
