"""A head known to move the choice is found, random ones are not; figures in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

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
    choose_alpha,
    effects,
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
    assert found.singles[PLANTED].value > 4 * max(others)
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


def test_where_every_alpha_breaks_the_text_the_smallest_is_taken() -> None:
    chat = planted_chat(0)
    splits = split_choices(letter_choices(30))
    directions = site_directions(read_activations(chat, splits.search, "likelihood", [PLANTED]))

    def broken(trials: Sequence[SteeringTrial], rows: Sequence[BinaryChoice]) -> ChoiceOutcomes:
        n = len(rows)
        return outcomes([[0.0] * n] + [[-9.0] * n] * (len(trials) - 1), [0.0] + [1.0] * (len(trials) - 1))

    alpha, _ = choose_alpha(cast(ChoiceScorer, broken), directions, [PLANTED], splits.retest, PLAN)
    assert alpha == -1.0


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
