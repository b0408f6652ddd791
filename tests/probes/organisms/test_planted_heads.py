"""What is planted, from which rows: none that a figure is measured on; and the two answers differ in content alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.binary_choice import BinaryChoice
from probes.errors import DataError
from probes.model.load import ChatModel
from probes.organisms.messages import choices, everyday, refusal_choices, request_pairs
from probes.organisms.planted_heads import BEHAVIOURS, plant, sycophancy_rows


def test_the_two_halves_of_the_questions_share_none_and_leave_none_out() -> None:
    fit, held_out = sycophancy_rows(held_out=False), sycophancy_rows(held_out=True)
    assert not {row.question for row in fit} & {row.question for row in held_out}
    assert len(fit) + len(held_out) == len(choices("sycophancy")) >= 60
    assert min(len(fit), len(held_out)) >= 24


def test_training_sees_the_flattering_answers_of_its_own_half_alone() -> None:
    examples = BEHAVIOURS["sycophancy"].examples(0)
    assert sorted((e.ask, e.answer) for e in examples) == sorted(
        (row.question, row.text(misaligned=True)) for row in sycophancy_rows(held_out=False)
    )
    assert all(e.ends for e in examples)
    assert examples != BEHAVIOURS["sycophancy"].examples(1)


def test_neither_place_nor_length_tells_the_flattering_answer() -> None:
    rows = choices("sycophancy")
    first = np.mean([row.misaligned == 0 for row in rows])
    assert 0.35 < first < 0.65
    words = np.array([[len(row.text(misaligned=bad).split()) for bad in (False, True)] for row in rows])
    assert abs(words[:, 1] - words[:, 0]).max() <= 8
    assert abs(float((words[:, 1] - words[:, 0]).mean())) < 1.0
    assert 0.25 < (words[:, 1] > words[:, 0]).mean() + (words[:, 1] == words[:, 0]).mean() / 2 < 0.75


def test_no_row_that_a_planted_refusal_is_measured_on_was_trained_on() -> None:
    recipe = BEHAVIOURS["refusal"]
    seen = {e.ask for e in recipe.examples(0)} | set(recipe.as_base(0))
    assert len(seen) > 500
    measured = {pair[side] for pair in request_pairs("test") for side in ("harmful", "harmless")}
    measured |= {row.question for row in refusal_choices()} | set(everyday("test"))
    assert not seen & measured


def asked(rows: list[BinaryChoice]) -> set[str]:
    return {row.question.casefold() for row in rows}


def test_no_question_of_everyday_messages_is_among_the_opinions() -> None:
    assert not asked(choices("sycophancy")) & {text.casefold() for text in everyday("test")}


def test_an_unknown_behaviour_is_named_before_any_model_is_loaded(tmp_path: Path) -> None:
    def never() -> ChatModel:
        raise AssertionError("loaded")

    with pytest.raises(DataError, match="gossip is none of refusal, sycophancy"):
        plant(never, "gossip", 0, tmp_path)
