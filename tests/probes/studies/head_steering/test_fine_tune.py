"""The fine-tune that heads are compared with, on the tiny model with a planted head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.binary_choice import BinaryChoice, letters_message
from probes.errors import DataError
from probes.evaluation import Interval
from probes.heads.choice_scoring import PLAIN, ChoiceScorer
from probes.heads.search import Aim
from probes.model.adapters import AdapterSpec
from probes.model.load import ChatModel, add_adapter
from probes.result_cache import ResultCache
from probes.studies.framework.verdict import Support
from probes.studies.head_steering import fine_tune
from probes.studies.head_steering.comparison import comparable
from probes.studies.head_steering.fine_tune import Arm, FineTunePlan, copy_in_use, examples_of, fine_tuned
from probes.studies.head_steering.plan import HeadsPlan
from tests.support.models.planted_head import letter_choices, planted_chat
from tests.support.models.tiny import make_adapter, tiny_chat, untyped
from tests.support.threads import one_torch_thread

ROW = BinaryChoice("Which?", ("aligned answer.", "an opening:"), 1)

GAINED = Interval(0.4, 0.2, 0.6, 30)


@pytest.mark.parametrize(
    ("aim", "answer", "ends"), [("away", "aligned answer.", True), ("towards", "an opening:", False)]
)
def test_the_wanted_choice_is_the_answer_and_an_opening_has_no_end(aim: Aim, answer: str, ends: bool) -> None:
    (example,) = examples_of([ROW], "likelihood", aim)
    assert (example.ask, example.answer, example.ends) == ("Which?", answer, ends)


@pytest.mark.parametrize(("aim", "letters"), [("away", ["(A)", "(B)"]), ("towards", ["(B)", "(A)"])])
def test_letters_are_trained_in_both_orders(aim: Aim, letters: list[str]) -> None:
    found = examples_of([ROW], "letters", aim)
    assert [e.ask for e in found] == [letters_message(ROW, swapped=swapped) for swapped in (False, True)]
    assert [e.answer for e in found] == letters


def arm(chat: ChatModel, folder: Path, training: FineTunePlan, n: int = 6, aim: Aim = "away") -> Arm:
    cache = ResultCache(folder / "kept", {"training": training, "aim": aim})
    with one_torch_thread():
        return fine_tuned(chat, letter_choices(n), "likelihood", aim, folder / "arm", cache, training)


STRONG = FineTunePlan(steps=30, batch=4, learning_rate=5e-3)


@pytest.mark.parametrize("aim", ["away", "towards"])
def test_a_fine_tune_learns_its_own_examples_both_ways(tmp_path: Path, aim: Aim) -> None:
    chat = planted_chat(0, strength=0.0)
    found = arm(chat, tmp_path, STRONG, aim=aim)
    assert found.learned
    assert found.own_wanted >= 0.8
    own = found.outcomes(letter_choices(6))
    with found.chat.base():
        before = ChoiceScorer(found.chat, "likelihood")([PLAIN], letter_choices(6))
    sign = 1 if aim == "towards" else -1
    assert sign * (own.margin.mean() - before.margin.mean()) > 0.5


def test_one_that_hardly_trains_has_not_learned(tmp_path: Path) -> None:
    found = arm(planted_chat(0, strength=0.0), tmp_path, FineTunePlan(steps=1, batch=1, learning_rate=1e-7))
    assert not found.learned
    assert comparable(Interval(0.5, 0.4, 0.6, 30), GAINED, learned=found.learned) is Support.UNTESTABLE


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.1, 0.2, Support.YES), (0.1, 0.4, Support.YES), (-0.4, -0.1, Support.NO), (-0.3, 0.1, Support.UNSURE)],
)
def test_comparable_reads_the_interval(low: float, high: float, said: Support) -> None:
    assert comparable(Interval((low + high) / 2, low, high, 30), GAINED, learned=True) is said


def test_a_fine_tune_that_gains_nothing_held_out_is_nothing_to_compare_with() -> None:
    level = Interval(0.0, -0.1, 0.1, 30)
    assert comparable(level, GAINED, learned=True) is Support.YES
    assert comparable(level, Interval(0.05, -0.05, 0.15, 30), learned=True) is Support.UNTESTABLE


def test_the_model_is_left_as_it_was_and_training_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = planted_chat(0)
    before = {name: weights.clone() for name, weights in chat.model.named_parameters()}
    first = arm(chat, tmp_path, STRONG)
    after = dict(chat.model.named_parameters())
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) and not after[name].requires_grad for name in before)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(fine_tune, "train", forbidden)
    again = arm(chat, tmp_path, STRONG)
    assert (again.sha256, again.own_wanted) == (first.sha256, first.own_wanted)


def test_a_copy_does_what_the_model_with_its_adapter_does(tmp_path: Path) -> None:
    chat = tiny_chat("llama")
    ids = torch.tensor([[5, 9, 12, 7]])
    plain = untyped(chat.model)(input_ids=ids).logits.detach()
    add_adapter(chat, AdapterSpec(make_adapter(tmp_path / "adapter"), 0.5))
    own = untyped(chat.model)(input_ids=ids).logits.detach()
    assert float((own - plain).abs().max()) > 1e-2
    copied = copy_in_use(chat)
    assert copied.active is None
    np.testing.assert_allclose(untyped(copied.model)(input_ids=ids).logits.detach(), own, atol=1e-4)
    with chat.base():
        base = copy_in_use(chat)
    np.testing.assert_allclose(untyped(base.model)(input_ids=ids).logits.detach(), plain, atol=1e-4)
    np.testing.assert_allclose(untyped(chat.model)(input_ids=ids).logits.detach(), own, atol=1e-6)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: FineTunePlan(steps=0), "steps and batch must be at least 1"),
        (lambda: FineTunePlan(learning_rate=0), "learning rate above zero"),
        (lambda: HeadsPlan(examples=(1, 5)), "at least 2 questions"),
        (lambda: HeadsPlan(examples=(2,), fine_tune=None), "compares heads with a fine-tune"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_an_error(made: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        made()
