"""Which probes the server cannot read from token ids."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probes.capture.aggregation import parse_aggregation
from probes.vllm.score import refusals
from probes.vllm.turns import TurnMarks

MARKS = TurnMarks({"user": (1,), "assistant": (2,)}, frozenset({1, 2}), frozenset())


def probe(aggregation: str) -> Any:
    return SimpleNamespace(name="p", aggregation=parse_aggregation(aggregation))


@pytest.mark.parametrize(
    "written", ["mean(response)", "ema_max(0.3, response)", "last_prompt", "top_mean(2, 4, turns)"]
)
def test_what_is_read(written: str) -> None:
    assert refusals([probe(written)], MARKS) == []


def test_an_answers_last_token_is_never_read() -> None:
    (why,) = refusals([probe("last_response"), probe("last_prompt")], MARKS)
    assert "response_ends_early" in why
    assert refusals([probe("last_response")], MARKS, early=True) == []


def test_turns_that_no_control_token_marks() -> None:
    (why,) = refusals([probe("mean(user)"), probe("mean(prompt)")], None)
    assert "control token" in why
