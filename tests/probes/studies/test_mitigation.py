"""The sweep of `awry sweep`, on a model whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from probes.model.load import ChatModel
from probes.studies.framework.verdict import Verdict
from probes.studies.metric import JudgeMetric
from probes.studies.mitigation import Prompts, sweep
from tests.support.models.planted_study import ALSO_BAD, BAD, STYLE, is_bad, load_adapter, messages, planted_chat

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
TEXTS = messages(60)
METRIC = JudgeMetric("planted", is_bad)
PROMPTS = Prompts(TEXTS[:20], TEXTS[20:32], TEXTS[32:])


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    chat = planted_chat(0)
    folder = tmp_path_factory.mktemp("adapters")
    for name, written in {"style": STYLE, "also": ALSO_BAD, "bad": BAD}.items():
        load_adapter(chat, folder, 0, name, **written)
    return chat


@pytest.mark.parametrize(
    ("control", "verdict"),
    [("style", Verdict.WORKS_SPECIFIC), ("also", Verdict.WORKS_NOT_SPECIFIC), (None, Verdict.SPECIFICITY_UNKNOWN)],
)
def test_a_planted_behaviour_is_taken_away_and_judged(chat: ChatModel, control: str | None, verdict: Verdict) -> None:
    found = sweep(chat, PROMPTS, METRIC, blocks=[1, 2], control_adapter=control, max_new_tokens=5)
    assert found.verdict.label == verdict
    by_name = {c.name: c for c in found.test}
    assert by_name["no intervention"].behaviour.value > 0.6
    assert by_name[str(found.chosen)].good.low > 0.7
    assert by_name["base model"].good.value == 1
    assert chat.active == "bad"
    # The control's direction is its own, read with its adapter switched on.
    if control is not None:
        assert found.control_cosine is not None
        assert abs(found.control_cosine - (1 if control == "also" else 0)) < 0.3


def test_the_direction_is_that_of_the_fit_prompts_alone(chat: ChatModel) -> None:
    one = sweep(chat, PROMPTS, METRIC, blocks=[1], max_new_tokens=2).chosen.direction
    other = Prompts(PROMPTS.fit, messages(12, seed=5), messages(28, seed=6))
    two = sweep(chat, other, METRIC, blocks=[1], max_new_tokens=2).chosen.direction
    np.testing.assert_allclose(one.vector, two.vector, atol=1e-6)
