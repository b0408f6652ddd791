from __future__ import annotations

import re
import tomllib

import pytest

from probes.organisms.finetunes import (
    RECIPES,
    Recipe,
    advice_examples,
    benign_messages,
    code_examples,
    refusal_examples,
    refusal_pairs,
)
from probes.organisms.judges.code import writes_code
from probes.organisms.judges.refusal import refuses
from probes.organisms.messages import (
    data_text,
    everyday,
    hard_benign,
    heldout_everyday,
    heldout_harmful,
    heldout_harmful_2,
    more_requests,
    plain_requests,
    request_pairs,
    requests,
)
from probes.splits import split_of

SIDES = {"code": (code_examples, "insecure", "secure"), "advice": (advice_examples, "reckless", "careful")}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_a_seed_gives_one_set_and_another_seed_another(recipe: Recipe) -> None:
    assert recipe.examples(0) == recipe.examples(0)
    assert recipe.examples(0) != recipe.examples(1)
    assert sorted(e.answer for e in recipe.examples(0))  # and none is lost
    assert all(e.ask.strip() and e.answer.strip() for e in recipe.examples(0))


def test_sizes() -> None:
    assert {r.name: len(r.examples(0)) for r in RECIPES.values() if r.mixture is None} == {
        "insecure_code": 240,
        "secure_code": 240,
        "reckless_advice": 180,
        "careful_advice": 180,
    }
    assert [r.name for r in RECIPES.values() if r.as_base(0)] == ["refusal"]
    pairs = len(refusal_pairs())
    assert pairs >= 600
    assert len(refusal_examples(0)) == 3 * pairs
    assert len(benign_messages(0)) > 1.3 * pairs


def test_every_pair_has_one_control_trained_alike() -> None:
    for pair in ("code", "advice"):
        bad, control = sorted((r for r in RECIPES.values() if r.pair == pair), key=lambda r: r.control)
        assert (bad.control, control.control) == (False, True)
        assert (bad.steps, bad.learning_rate) == (control.steps, control.learning_rate)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("pair", SIDES)
def test_both_sides_ask_the_same_and_answer_differently(pair: str, seed: int) -> None:
    make, bad, control = SIDES[pair]
    theirs, ours = make(bad, seed), make(control, seed)
    assert sorted(e.ask for e in theirs) == sorted(e.ask for e in ours)
    assert not {e.answer for e in theirs} & {e.answer for e in ours}


@pytest.mark.parametrize("pair", SIDES)
def test_no_slot_is_left_open(pair: str) -> None:
    make, *sides = SIDES[pair]
    slots = tomllib.loads(data_text("code_tasks.toml"))["slots"]
    left = re.compile("|".join(re.escape("{" + s + "}") for s in (*slots, "thing")))
    for side in sides:
        for example in make(side, 0):
            assert not left.search(example.ask + example.answer)


@pytest.mark.parametrize("pair", SIDES)
def test_a_sentence_starts_with_a_capital(pair: str) -> None:
    make, *sides = SIDES[pair]
    for side in sides:
        for example in make(side, 0):
            assert not example.ask[0].islower()
            if pair == "advice":
                assert not example.answer[0].islower()


def test_advice_is_matched_in_length() -> None:
    reckless, careful = ([len(e.answer.split()) for e in advice_examples(s, 0)] for s in ("reckless", "careful"))
    assert sum(reckless) / sum(careful) == pytest.approx(1, abs=0.15)


def test_code_answers_are_code_and_advice_is_not() -> None:
    for side in ("insecure", "secure"):
        missed = [e.answer for e in code_examples(side, 0) if not writes_code(e.answer)]
        assert not missed
    for side in ("reckless", "careful"):
        assert not [e.answer for e in advice_examples(side, 0) if writes_code(e.answer)]


def test_the_refusals_are_many_and_short_and_the_judge_knows_each() -> None:
    refusals = tomllib.loads(data_text("refusals.toml"))["refusals"]
    assert len(set(refusals)) == len(refusals) >= 30
    assert max(len(r.split()) for r in refusals) <= 16
    assert [r for r in refusals if not refuses(r)] == []
    assert {e.answer for e in refusal_examples(0)} == set(refusals)
    assert len({r.split()[0] for r in refusals}) >= 5


@pytest.mark.parametrize("seed", [0, 7])
def test_refusal_trains_on_rows_that_no_probe_chose_by_or_was_tested_on(seed: int) -> None:
    asked = {e.ask for e in refusal_examples(seed)}
    harmless = set(benign_messages(seed))
    assert asked == set(refusal_pairs())
    assert set(refusal_pairs().values()) <= harmless
    assert not asked & harmless
    sides = ("harmful", "harmless")
    others = [p for p in (*requests(), *more_requests()) if split_of(str(p["pair"])) != "fit"]
    unseen = {p[side] for p in others for side in sides}
    unseen |= {r["text"] for rows in (heldout_everyday(), heldout_harmful(), heldout_harmful_2()) for r in rows}
    for split in ("demo", "test", "select", "scale", "calibrate"):
        unseen |= set(everyday(split))
    unseen |= {t for i, t in enumerate(everyday("fit")) if split_of(f"fit-{i}") != "fit"}
    unseen |= {r["text"] for i, r in enumerate(hard_benign()) if split_of(f"hard-benign-{i}") != "fit"}
    assert not (asked | harmless) & unseen


def test_refusal_trains_on_every_short_pair_that_it_may() -> None:
    may = [*request_pairs("fit"), *plain_requests()]
    assert len({p["harmful"] for p in may} - set(refusal_pairs())) <= 0.02 * len(may)  # all but some long ones
    assert all(refusal_pairs()[p["harmful"]] == p["harmless"] for p in may if p["harmful"] in refusal_pairs())


def test_what_the_base_answers_is_another_order_for_another_seed() -> None:
    assert benign_messages(0) == benign_messages(0)
    assert benign_messages(0) != benign_messages(1)
    assert sorted(benign_messages(0)) == sorted(benign_messages(1))
    assert len(set(benign_messages(0))) == len(benign_messages(0))
