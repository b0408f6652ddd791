from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.heads.choice_scoring import PLAIN
from probes.model.load import user_message
from probes.result_cache import ResultCache
from probes.steer.coherence import answer_nll
from probes.steer.generation import generate
from probes.studies.head_steering.open_answers import CONTROL, OpenAnswerRunner
from probes.studies.metric import JudgeMetric
from tests.support.models.planted_study import is_bad, messages
from tests.support.models.studies import chat_with_adapters

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
TEXTS = messages(12)


def bench(folder: Path, control: str | None) -> OpenAnswerRunner:
    chat = chat_with_adapters(folder / "adapters")
    cache = ResultCache(folder / "kept", {"control": control})
    return OpenAnswerRunner(chat, TEXTS, JudgeMetric("bad", is_bad), cache, max_new_tokens=6, control=control)


def test_a_control_adapter_is_the_reference_of_style(tmp_path: Path) -> None:
    """What reads well under it passes, and its own answers are what it would say."""
    chat = chat_with_adapters(tmp_path / "adapters")
    runner = bench(tmp_path, "style")
    prompts = [chat.render(user_message(text)) for text in TEXTS]
    assert runner.control is not None
    chat.use("style")
    said = [reply.text for reply in generate(chat, prompts, max_new_tokens=6)]
    own = answer_nll(chat, prompts, said, base=False)
    assert np.allclose(np.asarray(runner.control.outcome.nll_style), own, rtol=1e-4)
    assert runner.coherence.style == CONTROL.name
    # Nine of ten of its own answers at least are within its own 95th percentile.
    assert runner.coherence.parts(runner.control.outcome)["NLL"].mean() >= 0.9
    assert runner.coherence.nll_style == pytest.approx(float(np.quantile(own, 0.95)) + 0.5, rel=1e-3)
    assert bench(tmp_path / "none", None).coherence.style is None


def test_the_adapter_in_use_answers_in_a_trial_and_stays_in_use(tmp_path: Path) -> None:
    runner = bench(tmp_path, "style")
    plain = runner.run(PLAIN)
    chat = chat_with_adapters(tmp_path / "others")
    prompts = [chat.render(user_message(text)) for text in TEXTS]
    said = [reply.text for reply in generate(chat, prompts, max_new_tokens=6)]
    assert plain.outcome.behaviour.tolist() == [is_bad(text) for text in said]
    assert plain.outcome.behaviour.any()
    assert np.allclose(plain.nll_unsteered, answer_nll(chat, prompts, said, base=False), rtol=1e-4)
    # Cached: the same without the model.
    assert np.array_equal(bench(tmp_path, "style").run(PLAIN).outcome.nll, plain.outcome.nll)
