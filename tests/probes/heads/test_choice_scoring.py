"""Many trials in one forward pass, with the prompt and the lower blocks shared: the figures of one trial at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from probes.binary_choice import BinaryChoice, render_choice
from probes.capture.sites import Site, site_width
from probes.directions import Direction
from probes.errors import DataError, ModelError
from probes.heads import choice_scoring
from probes.heads.choice_scoring import PLAIN, ChoiceScorer, SteeringTrial, letters, likelihoods, one_at_a_time
from probes.heads.row_steering import Shift
from probes.model.layout import Layout
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.result_cache import ResultCache
from probes.steer.generation import generate
from probes.steer.steering import steering
from tests.support.models.tiny import FAMILIES, MULTIMODAL, hook_count, make_adapter, shared_chat, tiny_chat

# Longer than the families' sliding windows (16 and 24 tokens).
ROW = BinaryChoice("What should I do about a mole, my dear old friend?", ("See a doctor soon.", "Go, go, go."), 1)
OTHER = BinaryChoice("Tea?", ("Yes.", "No, thank you."), 0)


def trial(layout: Layout, *sites: Site, alpha: float = 5.0, seed: int = 0) -> SteeringTrial:
    rng = np.random.default_rng(seed)
    shifts = []
    for site in sites:
        width = site_width(site, layout)
        shifts.append(Shift(Direction(site, rng.standard_normal(width), np.zeros(width), 0.7), alpha))
    return SteeringTrial(f"{'+'.join(map(str, sites))} x{alpha:g} {seed}", tuple(shifts))


def trials_of(layout: Layout) -> list[SteeringTrial]:
    heads = [Site("head", b, h) for b in range(layout.n_blocks) for h in range(layout.n_heads)]
    made = [PLAIN, *(trial(layout, s, alpha=(-6.0, 6.0)[i % 2], seed=i) for i, s in enumerate(heads))]
    made += [trial(layout, Site("residual", b), seed=20 + b) for b in range(layout.n_blocks)]
    made.append(trial(layout, Site("final"), seed=30))
    made.append(trial(layout, Site("head", 2, 1), Site("head", 0, 3), Site("residual", 1), seed=31))
    return made


@pytest.mark.parametrize("family", [*FAMILIES, *MULTIMODAL])
def test_all_ways_give_the_figures_of_one_trial_at_a_time(family: str) -> None:
    chat = shared_chat(family)
    trials = trials_of(chat.layout)
    count = hook_count(chat.model)
    slow = np.array([one_at_a_time(chat, ROW, t) for t in trials])
    assert np.abs(slow[1:] - slow[0]).max(1).min() > 1e-4  # every trial does something
    whole = likelihoods(chat, ROW, trials, share="nothing")
    prompt = likelihoods(chat, ROW, trials, share="prompt")
    shared = likelihoods(chat, ROW, trials)
    in_pieces = likelihoods(chat, ROW, trials, token_budget=100)
    for found in (whole, prompt, shared, in_pieces):
        np.testing.assert_allclose(found, slow, atol=1e-5)
    assert hook_count(chat.model) == count
    assert not any("forward" in block.__dict__ for block in chat.layout.blocks)


def test_an_adapter_in_use_and_the_base_are_told_apart(tmp_path: Path) -> None:
    chat = tiny_chat("llama")
    add_adapter(chat, AdapterSpec(make_adapter(tmp_path / "one"), 1.0, "one"))
    trials = trials_of(chat.layout)[:6]
    tuned = likelihoods(chat, ROW, trials)
    np.testing.assert_allclose(tuned, [one_at_a_time(chat, ROW, t) for t in trials], atol=1e-5)
    with chat.base():
        base = likelihoods(chat, ROW, trials)
    assert np.abs(base - tuned).max() > 0.01


def test_a_pass_that_fails_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = shared_chat("llama")
    before = likelihoods(chat, ROW, [PLAIN])

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(choice_scoring, "_mean_log_probability", broken)
        with pytest.raises(ZeroDivisionError):
            likelihoods(chat, ROW, trials_of(chat.layout))
    assert not any("forward" in block.__dict__ for block in chat.layout.blocks)
    np.testing.assert_array_equal(likelihoods(chat, ROW, [PLAIN]), before)


def test_chunks_keep_every_trial_once_and_within_the_budget() -> None:
    trials = trials_of(shared_chat("llama").layout)
    for budget in (1, 50, 10**6):
        chunks = list(choice_scoring._chunks(trials, 20, budget, 3, by_depth=True))
        assert sorted(i for c in chunks for i in c) == list(range(len(trials)))
        assert max(map(len, chunks)) <= max(1, budget // 20)


def test_letters_in_batches_are_letters_one_at_a_time() -> None:
    chat = shared_chat("llama")
    trials = trials_of(chat.layout)[:7]
    asked = [(render_choice(chat, ROW, "letters", swapped=s)) for s in (False, True)]
    said: dict[str, str | None] = {}

    def parsed(text: str) -> str | None:
        # A tiny model writes no letters: what it wrote stands for one.
        return said.setdefault(text, (None, "A", "B")[len(said) % 3])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice_scoring, "parse_letter", parsed)
        together = letters(chat, ROW, trials, batch_size=5)
        for i, one in enumerate(trials):
            with steering(chat, [s.intervention() for s in one.shifts]) as state:
                texts = [generate(chat, [p], max_new_tokens=8, steered=state)[0].text for p in asked]
            wanted = [
                {None: -1.0, "B": 1.0, "A": 0.0}[said[texts[0]]],
                {None: -1.0, "A": 1.0, "B": 0.0}[said[texts[1]]],
            ]
            assert together[i].tolist() == wanted, i
    assert len(said) > 3


def test_an_answer_without_a_letter_is_undefined_and_neither_choice() -> None:
    found = ChoiceScorer(shared_chat("llama"), "letters")([PLAIN], [ROW, OTHER])
    assert found.undefined.tolist() == [[1.0, 1.0]]
    assert found.misaligned.tolist() == found.aligned.tolist() == [[0.0, 0.0]]


def test_letters_count_both_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = shared_chat("llama")
    values = {"one": [1.0, 1.0], "split": [1.0, 0.0], "half": [0.0, -1.0]}
    monkeypatch.setattr(
        choice_scoring, "letters", lambda _chat, _row, ts, **_: np.array([values.get(t.name, [0, 0]) for t in ts])
    )
    found = ChoiceScorer(chat, "letters")([SteeringTrial(n) for n in values], [ROW])
    assert found.margin[:, 0].tolist() == [1.0, 0.0, -0.5]
    assert found.misaligned[:, 0].tolist() == [1.0, 0.5, 0.0]
    assert found.aligned[:, 0].tolist() == [0.0, 0.5, 0.5]
    assert found.undefined[:, 0].tolist() == [0.0, 0.0, 0.5]


def fake(monkeypatch: pytest.MonkeyPatch, values: dict[str, list[float]]) -> None:
    """Log-probabilities (aligned, misaligned) by the trial's name."""
    monkeypatch.setattr(
        choice_scoring, "likelihoods", lambda _chat, _row, ts, **_: np.array([values[t.name] for t in ts], dtype=float)
    )


def test_likelihoods_become_choices_and_a_fall_of_a_nat_is_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"better": [-3.0, -2.5], "fallen": [-3.2, -3.1], "nan": [np.nan, -1.0], PLAIN.name: [-2.0, -3.0]}
    fake(monkeypatch, names)
    found = ChoiceScorer(shared_chat("llama"), "likelihood")(
        [SteeringTrial(n) for n in ("better", "fallen", "nan")], [ROW]
    )
    assert found.margin[:, 0] == pytest.approx([0.5, 0.1, -1.0])
    assert found.misaligned[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert found.undefined[:, 0].tolist() == [0.0, 1.0, 1.0]


def test_a_plain_model_without_figures_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, {PLAIN.name: [np.nan, np.nan]})
    with pytest.raises(ModelError, match="no finite log-probability"):
        ChoiceScorer(shared_chat("llama"), "likelihood")([PLAIN], [ROW])


def test_two_trials_of_one_name_are_an_error() -> None:
    with pytest.raises(DataError, match="same name"):
        ChoiceScorer(shared_chat("llama"), "likelihood")([SteeringTrial("x"), SteeringTrial("x")], [ROW])


def test_what_is_kept_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = shared_chat("llama")
    trials = trials_of(chat.layout)[:5]
    first = ChoiceScorer(chat, "likelihood", ResultCache(tmp_path, {"a": 1}))(trials, [ROW, OTHER])
    real = choice_scoring.likelihoods
    asked: list[list[str]] = []

    def counted(
        chat: ChatModel, row: BinaryChoice, wanted: Sequence[SteeringTrial], **settings: Any
    ) -> NDArray[np.float64]:
        asked.append([t.name for t in wanted])
        return real(chat, row, wanted, **settings)

    monkeypatch.setattr(choice_scoring, "likelihoods", counted)
    again = ChoiceScorer(chat, "likelihood", ResultCache(tmp_path, {"a": 1}))
    np.testing.assert_array_equal(again(trials, [ROW, OTHER]).margin, first.margin)
    assert asked == []
    more = [*trials, trial(chat.layout, Site("head", 2, 2), seed=9)]
    again(more, [ROW])
    assert asked[-1] == [more[-1].name]
    ChoiceScorer(chat, "likelihood", ResultCache(tmp_path, {"a": 2}))(trials[:1], [ROW])
    assert asked[-1] == [PLAIN.name]


@pytest.mark.parametrize("way", ["wrong", "raises"])
def test_a_model_that_cannot_share_is_measured_whole_with_a_warning(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    chat = shared_chat("llama")
    trials = trials_of(chat.layout)[1:4]
    expected = np.array([one_at_a_time(chat, ROW, t) for t in trials])
    real = choice_scoring._Shared._cache

    def cache(self: choice_scoring._Shared, start: int, rows: int) -> Any:
        if way == "raises":
            raise TypeError("no such cache")
        made = real(self, start, rows)
        made.layers[-1].values = made.layers[-1].values + 1
        return made

    monkeypatch.setattr(choice_scoring._Shared, "_cache", cache)
    ask = ChoiceScorer(chat, "likelihood")
    found = ask(trials, [ROW])
    np.testing.assert_allclose(found.margin[:, 0], expected[:, 1] - expected[:, 0], atol=1e-5)
    assert len(ask.warnings) == 1
    assert "measured whole" in ask.warnings[0]


def test_a_question_may_be_a_single_token_and_answers_of_any_length() -> None:
    chat = shared_chat("llama")
    row = BinaryChoice("x", ("y" * 40, "z"), 0)
    trials = trials_of(chat.layout)[:4]
    with torch.no_grad():
        np.testing.assert_allclose(
            likelihoods(chat, row, trials), [one_at_a_time(chat, row, t) for t in trials], atol=1e-5
        )
