"""Verdicts over turns: escalations, requests that are split, and conversations that go nowhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.capture.aggregation import Aggregation
from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.capture.trajectory import trajectory
from probes.directions import Direction
from probes.errors import DataError
from probes.scoring import Reader, all_scores
from tests.support.models.tiny import shared_chat

values = st.lists(st.floats(-3, 3), min_size=1, max_size=12)
decays = st.floats(0.05, 1)


def asked(scores: list[float]) -> tuple[list[tuple[int, float]], list[str]]:
    """A system turn, and the user's turns with the assistant's between them: turns 1, 3, 5 ... are scored."""
    roles = ["system", *["user", "assistant"] * len(scores)][:-1]
    return [(2 * i + 1, value) for i, value in enumerate(scores)], roles


@given(values, decays, st.floats(-1, 1))
def test_it_is_what_it_says(scores: list[float], decay: float, floor: float) -> None:
    found = trajectory(*asked(scores), decay=decay, floor=floor)
    assert found is not None
    last = len(scores) - 1
    faded = [min(x, floor) + max(x - floor, 0) * decay ** (last - i) for i, x in enumerate(scores)]
    assert found.level == pytest.approx(max(faded))
    assert found.path_length == pytest.approx(sum(abs(scores[i + 1] - scores[i]) for i in range(last)))
    assert found.rise == pytest.approx(max([0.0, *(scores[j] - scores[i] for j in range(last + 1) for i in range(j))]))
    assert found.top_turn == 2 * scores.index(max(scores)) + 1
    assert found.turn_new == (scores.index(max(scores)) == last)


@given(values, decays)
def test_the_order_of_the_turns_is_theirs(scores: list[float], decay: float) -> None:
    """A template may write turns in another order than they were sent."""
    turns, roles = asked(scores)
    assert trajectory(turns[::-1], roles, decay=decay) == trajectory(turns, roles, decay=decay)


@given(values, decays, st.floats(-3, 3))
def test_a_further_turn_fades_what_was_by_one_step_at_most(scores: list[float], decay: float, more: float) -> None:
    before, after = trajectory(*asked(scores), decay=decay), trajectory(*asked([*scores, more]), decay=decay)
    assert before is not None
    assert after is not None
    assert after.level >= min(before.level, decay * before.level) - 1e-12
    assert after.path_length >= before.path_length
    assert after.rise >= before.rise
    assert trajectory(*asked([*scores, more]), decay=1.0).level == pytest.approx(max(*scores, more))  # type: ignore[union-attr]


def test_an_escalation_is_seen_though_no_turn_is_high_alone() -> None:
    """Each step is small; what tells it from talk that goes up and down is how far it climbs."""
    escalating = trajectory(*asked([0.05, 0.15, 0.25, 0.35, 0.45, 0.55]))
    wandering = trajectory(*asked([0.3, 0.4, 0.3, 0.4, 0.3, 0.4]))
    assert escalating is not None
    assert wandering is not None
    assert escalating.path_length == pytest.approx(wandering.path_length)
    assert escalating.rise == pytest.approx(0.5)
    assert wandering.rise == pytest.approx(0.1)
    assert (escalating.top_turn, escalating.turn_new) == (11, True)


def test_a_request_that_small_talk_follows_fades_turn_by_turn() -> None:
    levels = []
    for chat in range(6):
        found = trajectory(*asked([0.1, 1.0, *[0.05] * chat]), decay=0.8)
        assert found is not None
        levels.append(found.level)
        assert (found.top_turn, found.turn_new) == (3, chat == 0)
    assert levels == pytest.approx([0.8**age for age in range(6)])
    # Until something else is higher than what is left of it.
    later = trajectory(*asked([0.1, 1.0, *[0.05] * 5, 0.4]), decay=0.8)
    assert later is not None
    assert later.level == pytest.approx(0.4)
    assert later.top_turn == 3


def test_turns_that_wait_for_an_answer_are_new() -> None:
    roles = ["user", "assistant", "user", "tool", "user"]
    for top, new in ((0, False), (2, True), (3, True), (4, True)):
        found = trajectory([(i, 1.0 if i == top else 0.0) for i in (0, 2, 3, 4)], roles)
        assert found is not None
        assert (found.top_turn, found.turn_new) == (top, new)
    closed = trajectory([(0, 1.0)], ["user", "assistant"])
    assert closed is not None
    assert not closed.turn_new


def test_negative_scores_do_not_rise_by_fading() -> None:
    found = trajectory(*asked([-2.0, -2.5, -2.5]), decay=0.5)
    assert found is not None
    assert (found.level, found.rise) == (-2.0, 0.0)


def test_turns_without_a_finite_score_are_left_out() -> None:
    turns, roles = asked([0.1, math.nan, 0.3, math.inf])
    assert trajectory(turns, roles) == trajectory([turns[0], turns[2]], roles)
    assert trajectory([(1, math.nan)], roles) is None
    assert trajectory([], []) is None


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.01, math.nan])
def test_a_decay_that_is_no_share_is_refused(decay: float) -> None:
    with pytest.raises(DataError, match=r"decay: .* is not above 0 and at most 1"):
        trajectory([(0, 1.0)], ["user"], decay=decay)


@pytest.mark.parametrize("turns", [[(2, 1.0)], [(-1, 1.0)], [(0, 1.0), (0, 2.0)]])
def test_scores_of_turns_that_are_not_there_are_refused(turns: list[tuple[int, float]]) -> None:
    with pytest.raises(DataError, match="scores: each is of another turn from 0 to 1"):
        trajectory(turns, ["user", "assistant"])


def test_it_reads_what_a_scorer_gives() -> None:
    """The turn that a probe reads highest is the one that is pointed at, and the message's score is its own."""
    chat = shared_chat("llama")
    rng = np.random.default_rng(0)
    direction = Direction(Site("residual", 1), rng.standard_normal(32), rng.standard_normal(32), 1.0)
    reader = Reader((direction,), Aggregation("max_rolling_mean", "user", 4))
    talk = [
        *({"role": "user", "content": "Tell me about bread."}, {"role": "assistant", "content": "It rises."}),
        *({"role": "user", "content": "And about yeast?"}, {"role": "assistant", "content": "It eats sugar."}),
        {"role": "user", "content": "Thank you!"},
    ]
    scores = all_scores(chat, [encode(chat, talk, spans=True)], [reader], turns=True)
    assert scores.turns is not None
    found = trajectory(scores.turns[0][0], [turn["role"] for turn in talk], decay=1.0)
    assert found is not None
    assert found.level == pytest.approx(float(scores.total[0, 0]), abs=1e-5)
    assert dict(scores.turns[0][0])[found.top_turn] == found.level
