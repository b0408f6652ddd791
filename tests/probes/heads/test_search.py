"""A head known to move the choice is found, random ones are not; figures in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from probes.binary_choice import BinaryChoice, ChoiceSplits, Form, contrast_texts, split_choices
from probes.capture.sites import Site, observing
from probes.directions import difference_in_means
from probes.errors import DataError, DirectionError, SiteError
from probes.heads.choice_scoring import PLAIN, ChoiceOutcomes, ChoiceScorer, SteeringTrial
from probes.heads.search import (
    ChoiceActivations,
    Search,
    SearchPlan,
    SiteDirections,
    best_dose,
    dose_curves,
    effects,
    family,
    joint,
    objective,
    probe_accuracy,
    read_activations,
    search,
    site_directions,
)
from tests.support.models.planted_head import PLANTED, letter_choices, planted_chat
from tests.support.models.tiny import HEAD_DIM, N_BLOCKS, N_HEADS, shared_chat, untyped

HEADS = [Site("head", b, h) for b in range(N_BLOCKS) for h in range(N_HEADS)]
PLAN = SearchPlan(alpha=4, alphas=(1.0, 2.0, 4.0, 8.0), search_questions=8, keep=6, max_heads=3)


def searched(
    seed: int, strength: float = 3.0, mixed: bool = False, plan: SearchPlan = PLAN
) -> tuple[Search, SiteDirections, ChoiceScorer, ChoiceSplits]:
    chat = planted_chat(seed, strength)
    splits = split_choices(letter_choices(60, seed, mixed=mixed))
    directions = site_directions(read_activations(chat, splits.search, "likelihood", HEADS))
    ask = ChoiceScorer(chat, "likelihood")
    return search(ask, directions, splits.search, splits.retest, plan), directions, ask, splits


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_head_is_found_and_stands_out(seed: int) -> None:
    found, *_ = searched(seed)
    others = [abs(i.value) for s, i in found.singles.items() if s != PLANTED]
    assert found.heads[0] == PLANTED
    assert PLANTED in found.survivors
    assert found.singles[PLANTED].value > 3 * max(others)
    assert found.retest[PLANTED].low > 0
    assert found.alpha < 0
    assert found.warnings == []


@pytest.mark.parametrize("seed", range(4))
def test_without_a_plant_that_head_does_not_stand_out(seed: int) -> None:
    found, *_ = searched(seed, strength=0.0)
    others = [abs(i.value) for s, i in found.singles.items() if s != PLANTED]
    assert abs(found.singles[PLANTED].value) < 2 * max(others)
    assert max(i.value for i in found.singles.values()) < 0.6


@pytest.mark.parametrize("strength", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_where_labels_are_thrown_by_a_coin_no_head_survives(seed: int, strength: float) -> None:
    found, *_ = searched(seed, strength, mixed=True)
    assert found.survivors == ()
    assert found.heads  # the best of them are still shown
    assert "no head survived the re-test" in found.warnings[0]


def test_towards_is_the_other_sign() -> None:
    found, directions, ask, splits = searched(0, plan=dataclasses.replace(PLAN, aim="towards"))
    assert found.heads[0] == PLANTED
    assert found.alpha > 0
    outcomes = ask([PLAIN, joint(directions, [PLANTED], 4.0), joint(directions, [PLANTED], -4.0)], splits.heldout)
    moved = outcomes.margin.mean(1) - outcomes.margin[0].mean()
    assert moved[1] > 0.5
    assert moved[2] < -0.5


@pytest.mark.parametrize("form", ["likelihood", "letters"])
def test_directions_and_scales_in_closed_form(form: Form) -> None:
    """From single unpadded forwards, at the last token of each text, which closes the turn."""
    chat = shared_chat("llama")
    rows = letter_choices(6)
    found = site_directions(read_activations(chat, rows, form, HEADS))
    sides: dict[bool, list[NDArray[np.float64]]] = {False: [], True: []}
    for row in rows:
        for misaligned, items in zip((False, True), contrast_texts(chat, row, form), strict=True):
            for item in items:
                seen: list[torch.Tensor] = []
                with torch.no_grad(), observing(chat.layout, {Site("head", 1): seen.append}) as run:
                    run(input_ids=torch.tensor([item.ids]))
                sides[misaligned].append(seen[0][0, -1, 2].double().numpy())
    good, bad = np.array(sides[False]), np.array(sides[True])
    direction = found.by_site[Site("head", 1, 2)]
    gap = bad.mean(0) - good.mean(0)
    np.testing.assert_allclose(direction.vector, gap, atol=1e-5)
    everything = np.concatenate([good, bad])
    assert direction.sigma == pytest.approx((everything @ gap / np.linalg.norm(gap)).std(), rel=1e-4)
    assert found.sizes[Site("head", 1, 2)] == pytest.approx(np.linalg.norm(everything, axis=1).mean(), rel=1e-4)
    assert direction.vector.shape == (HEAD_DIM,)


def activations(
    rng: np.random.Generator,
    changed: dict[Site, NDArray[np.float32]] | None = None,
    labels: list[bool] | None = None,
) -> ChoiceActivations:
    values = {s: rng.standard_normal((12, HEAD_DIM)).astype(np.float32) for s in HEADS}
    return ChoiceActivations(values | (changed or {}), np.array(labels or [True, False] * 6))


def test_a_head_with_a_zero_direction_is_left_out_with_its_reason() -> None:
    dead = Site("head", 0, 1)
    read = activations(np.random.default_rng(0), {dead: np.ones((12, HEAD_DIM), np.float32)})
    found = site_directions(read)
    assert dead not in found.by_site
    assert len(found.by_site) == len(HEADS) - 1
    assert "zero direction" in found.skipped[dead]
    with pytest.raises(DirectionError, match="no head has a direction"):
        site_directions(read.only([dead]))


def test_a_dead_head_is_a_warning_of_the_search() -> None:
    chat = planted_chat(0)
    with torch.no_grad():
        # One KV group is silent: its two query heads have nothing to say.
        untyped(chat.model).model.layers[0].self_attn.v_proj.weight[:HEAD_DIM] = 0
    splits = split_choices(letter_choices(40))
    directions = site_directions(read_activations(chat, splits.search, "likelihood", HEADS))
    found = search(ChoiceScorer(chat, "likelihood"), directions, splits.search, splits.retest, PLAN)
    assert any("2 heads have no direction" in w and "head[0,0], head[0,1]" in w for w in found.warnings)
    assert not {Site("head", 0, 0), Site("head", 0, 1)} & set(found.singles)


@pytest.mark.parametrize("labels", [[True] * 12, [False] * 12])
def test_one_class_only_is_an_error(labels: list[bool]) -> None:
    with pytest.raises(DataError, match="both a misaligned and an aligned row"):
        site_directions(activations(np.random.default_rng(0), labels=labels))


def test_activations_that_are_not_finite_name_their_head() -> None:
    chat = planted_chat(0)
    with torch.no_grad():
        untyped(chat.model).model.layers[1].self_attn.v_proj.weight[HEAD_DIM] = float("nan")
    with pytest.raises(DirectionError, match=r"head\[1,2\] are not finite"):
        read_activations(chat, letter_choices(4), "likelihood", HEADS)


def test_a_head_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SiteError, match=r"head\[0,9\] .* query heads 0..3"):
        read_activations(shared_chat("llama"), letter_choices(4), "likelihood", [Site("head", 0, 9)])


def test_probe_accuracy_is_counted_on_the_other_split() -> None:
    rng = np.random.default_rng(1)
    labels = np.array([True, False] * 30)
    told = rng.standard_normal((60, HEAD_DIM)).astype(np.float32)
    told[labels, 0] += 6
    noise = rng.standard_normal((60, HEAD_DIM)).astype(np.float32)
    fit = ChoiceActivations({HEADS[0]: told, HEADS[1]: noise}, labels)
    # In the other split the first head tells nothing any more, and the second tells everything the other way round.
    test = ChoiceActivations({HEADS[0]: noise, HEADS[1]: noise}, ~labels)
    found = probe_accuracy(fit, fit)
    assert found[HEADS[0]] == 1.0
    found = probe_accuracy(fit, test)
    assert found[HEADS[0]] < 0.75
    assert found[HEADS[1]] < 0.4


def outcomes(margins: list[list[float]], undefined: list[float]) -> ChoiceOutcomes:
    margin = np.array(margins, dtype=float)
    part = np.broadcast_to(np.array(undefined, dtype=float)[:, None], margin.shape)
    return ChoiceOutcomes(margin, (margin > 0) * (1 - part), (margin <= 0) * (1 - part), part)


def test_effects_have_the_aims_sign_and_broken_text_is_never_best() -> None:
    found = outcomes([[1, 1], [0, -1], [-5, -5]], [0.0, 0.0, 0.5])
    away, towards = SearchPlan(aim="away"), SearchPlan(aim="towards")
    assert effects(found, found.row(0), away).tolist() == [[0, 0], [1, 2], [6, 6]]
    assert effects(found, found.row(0), towards).tolist() == [[0, 0], [-1, -2], [-6, -6]]
    assert objective(found, found.row(0), away).tolist() == [0, 1.5, -np.inf]


# Tests of the search's rules: a scorer that knows by a trial's heads and alpha what it does.


def told(effect: Callable[[frozenset[Site], float], tuple[float, float]]) -> ChoiceScorer:
    """`effect(heads, alpha)` gives a trial's margin and its share of undefined answers; all questions are alike."""

    def score(trials: Sequence[SteeringTrial], rows: Sequence[BinaryChoice]) -> ChoiceOutcomes:
        figures = [effect(frozenset(s.site for s in t.shifts), t.shifts[0].alpha if t.shifts else 0.0) for t in trials]
        # A little of a difference between questions, so that intervals have a width.
        wobble = 1 + 0.01 * np.arange(len(rows))
        return outcomes([[margin * w for w in wobble] for margin, _ in figures], [share for _, share in figures])

    return cast(ChoiceScorer, score)


def some_directions(sites: Sequence[Site]) -> SiteDirections:
    return site_directions(activations(np.random.default_rng(3)).only(sites))


ROWS = letter_choices(16)
A, B, C, D = HEADS[:4]
TOWARDS = SearchPlan(aim="towards", alpha=8, alphas=(2.0, 4.0, 8.0), strongest=60, keep=4, search_questions=4)


def test_a_pair_that_breaks_at_the_old_alpha_is_joined_at_a_lower_one() -> None:
    """A alone is best at 8; A with C breaks there and does most at 4; A with B breaks everywhere."""

    def effect(heads: frozenset[Site], alpha: float) -> tuple[float, float]:
        if not heads:
            return 0.0, 0.0
        if heads == {A, C}:
            return 0.9 * alpha, 0.5 if alpha > 4 else 0.0
        if len(heads) > 1:
            return 0.1, 0.5
        return {A: 0.1, B: 0.09, C: 0.08}[next(iter(heads))] * alpha, 0.5 if alpha > 8 else 0.0

    found = search(told(effect), some_directions([A, B, C]), ROWS[:8], ROWS[8:], TOWARDS)
    assert found.heads == (A, C)
    assert found.alpha == 4.0
    assert found.steps[1]["added"] == str(C)
    assert found.steps[1]["kept"]


def test_where_every_pair_breaks_the_best_head_stays_alone() -> None:
    def effect(heads: frozenset[Site], alpha: float) -> tuple[float, float]:
        return 0.1 * alpha * len(heads), 0.5 if len(heads) > 1 or alpha > 8 else 0.0

    found = search(told(effect), some_directions([A, B, C]), ROWS[:8], ROWS[8:], TOWARDS)
    assert len(found.heads) == 1
    assert found.alpha == 8.0
    assert found.steps[1]["breaks"]
    assert not found.steps[1]["kept"]


def test_a_head_that_only_breaks_the_text_does_not_survive() -> None:
    """B's effect is the largest, and all of it is broken text; on the search questions or only on the other ones."""

    def effect(heads: frozenset[Site], alpha: float) -> tuple[float, float]:
        return (9.0, 1.0) if B in heads else (0.1 * min(alpha, 8.0) * len(heads), 0.0)

    found = search(told(effect), some_directions([A, B]), ROWS[:8], ROWS[8:], TOWARDS)
    assert found.broken == (B,)
    assert B not in found.singles
    assert found.survivors == found.heads == (A,)
    assert "1 heads only break the text" in found.warnings[0]

    def later(trials: Sequence[SteeringTrial], rows: Sequence[BinaryChoice]) -> ChoiceOutcomes:
        return (
            told(effect)(trials, rows)
            if len(rows) == 8
            else told(lambda heads, _: (9.0 * len(heads), 0.0))(trials, rows)
        )

    found = search(cast(ChoiceScorer, later), some_directions([A, B]), ROWS[:4], ROWS[4:12], TOWARDS)
    assert B in found.singles
    assert found.survivors == found.heads == (A,)


def test_a_head_that_breaks_the_text_is_tried_weaker() -> None:
    def effect(heads: frozenset[Site], alpha: float) -> tuple[float, float]:
        limit = 2.0 if B in heads else 60.0
        return 0.2 * len(heads), 1.0 if alpha > limit else 0.0

    found = search(told(effect), some_directions([A, B]), ROWS[:8], ROWS[8:], TOWARDS)
    assert found.alphas == {A: 8.0, B: 2.0}
    assert set(found.survivors) == {A, B}


def test_where_every_head_breaks_the_text_the_error_says_so() -> None:
    broken = told(lambda heads, _: (0.0, float(bool(heads))))
    with pytest.raises(DataError, match="every head breaks the text at 8"):
        search(broken, some_directions([A]), ROWS[:8], ROWS[8:], TOWARDS)


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (lambda a: (-abs(a - 20), 0.0), [2, 4, 8, 12.8, 20.5, 32.8]),  # up to the first fall
        (lambda a: (a, float(a > 10)), [2, 4, 8, 12.8]),  # up to the first broken text
        (lambda a: (a, 0.0), [2, 4, 8, 12.8, 20.5, 32.8, 52.5]),  # up to the bound
        (lambda a: (-a, 0.0), [2, 4, 8]),
    ],
)
@pytest.mark.parametrize("aim", ["towards", "away"])
def test_strengths_go_on_until_the_effect_falls_or_the_text_breaks(
    effect: Callable[[float], tuple[float, float]], expected: list[float], aim: Literal["away", "towards"]
) -> None:
    plan = dataclasses.replace(TOWARDS, aim=aim)
    directions = some_directions([A])

    def signed(heads: frozenset[Site], alpha: float) -> tuple[float, float]:
        margin, broken = effect(abs(alpha))
        return (plan.sign * margin, broken) if heads else (0.0, 0.0)

    curve = dose_curves(told(signed), {"a": family(directions, [A])}, plan.alphas, ROWS, plan)["a"]
    assert [abs(d.alpha) for d in curve] == expected
    assert all(np.sign(d.alpha) == plan.sign for d in curve)
    finite = [d.objective for d in curve if np.isfinite(d.objective)]
    assert best_dose(curve).objective == max(finite)


def test_where_every_alpha_breaks_the_text_the_weakest_is_taken() -> None:
    broken = told(lambda heads, _: (-9.0 * len(heads), float(bool(heads))))
    curve = dose_curves(broken, {"a": family(some_directions([A]), [A])}, TOWARDS.alphas, ROWS, TOWARDS)["a"]
    assert len(curve) == 3
    assert best_dose(curve).alpha == 2.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": -3.0}, "above zero"),
        ({"alphas": ()}, "above zero"),
        ({"alphas": (0.0, 1.0)}, "above zero"),
        ({"keep": 0}, "at least 1"),
        ({"search_questions": 1}, "at least 2"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_an_error(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        SearchPlan(**settings)


def test_too_few_questions_to_re_test_is_an_error() -> None:
    chat = planted_chat(0)
    rows = letter_choices(8)
    directions = site_directions(read_activations(chat, rows, "likelihood", [PLANTED]))
    with pytest.raises(DataError, match="retest: 1 questions"):
        search(ChoiceScorer(chat, "likelihood"), directions, rows, rows[:1], PLAN)


def test_sigma_and_direction_are_difference_in_means() -> None:
    read = activations(np.random.default_rng(2))
    found = site_directions(read).by_site[HEADS[3]]
    values = read.values[HEADS[3]]
    expected = difference_in_means(HEADS[3], values[read.misaligned], values[~read.misaligned])
    np.testing.assert_array_equal(found.vector, expected.vector)
    assert found.sigma == expected.sigma
