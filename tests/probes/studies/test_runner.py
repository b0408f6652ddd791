from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.capture.sites import Site
from probes.conditions import Condition
from probes.directions import Direction
from probes.model.load import ChatModel
from probes.steer.coherence import MARGIN_REPEATED, Coherence, coherence_limit
from probes.steer.outcomes import GenerationOutcome, good
from probes.steer.steering import Intervention
from probes.studies.metric import JudgeMetric
from probes.studies.runner import ConditionRunner, figures
from tests.support.models.planted_study import BAD, is_bad, load_adapter, messages, planted_chat
from tests.support.models.tiny import hook_count

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
METRIC = JudgeMetric("brace", is_bad)


def outcome(
    behaviour: list[int],
    nll: list[float] | NDArray[np.float64],
    repeated: list[float] | None = None,
    change: float = 0.0,
) -> GenerationOutcome:
    n = len(behaviour)
    return GenerationOutcome(
        np.array(behaviour, dtype=bool),
        np.array(nll, dtype=float),
        np.array(repeated or [0.0] * n),
        np.full(n, 10.0),
        change,
    )


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    chat = planted_chat(0)
    load_adapter(chat, tmp_path_factory.mktemp("adapters"), 0, "bad", **BAD)
    return chat


def test_an_outcome_survives_json() -> None:
    found = outcome([1, 0, 1], [0.5, np.inf, 2.0], [0.0, 0.25, 1.0], 0.125)
    back = GenerationOutcome.of(json.loads(json.dumps(found.plain())))
    for name in ("behaviour", "nll", "repeated", "tokens"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
        assert getattr(back, name).dtype == getattr(found, name).dtype
    assert back.change == 0.125


def test_good_is_no_behaviour_and_reads_like_the_base() -> None:
    base = outcome([0] * 20, np.linspace(0.5, 1.0, 20), [0.0] * 19 + [0.1])
    limits = Coherence.of(base)
    assert limits.nll == coherence_limit(base.nll)
    assert limits.repeated == pytest.approx(np.quantile(base.repeated, 0.95) + MARGIN_REPEATED)
    assert limits.tokens == 2.5
    found = outcome(
        [0, 1, 0, 0, 0, 0], [0.9, 0.9, limits.nll + 0.01, 0.1, np.inf, 0.9], [0, 0, 0, limits.repeated + 0.01, 0, 0]
    )
    found.tokens[4:] = 0, 2
    np.testing.assert_array_equal(good(found, limits), [True, False, False, False, False, False])
    np.testing.assert_array_equal(limits.coherent(found), [True, True, False, False, False, False])
    # Each part alone lets pass what another one stops.
    parts = {name: flags.tolist() for name, flags in limits.parts(found).items()}
    assert parts == {
        "NLL": [True, True, False, True, False, True],
        "repetition": [True, True, True, False, True, True],
        "length": [True, True, True, True, False, False],
    }
    assert str(limits).startswith(f"NLL at most {limits.nll:.2f} nats a token under the base model; at most 0.2")


def test_a_style_that_is_not_the_bases_own_is_no_broken_text() -> None:
    """A control arm of the same style sets a limit of its own; what reads badly under both is broken still."""
    base, answers = outcome([0] * 20, np.linspace(0.5, 1.0, 20)), outcome([0, 0, 0], [4.0, 4.0, 0.6])
    style = replace(outcome([0] * 20, [4.0] * 20), nll_style=np.linspace(0.2, 0.6, 20))
    limits = Coherence.of(base, style=("the careful arm", style))
    seen = replace(answers, nll_style=np.array([0.5, 4.0, 4.0]))
    assert limits.coherent(seen).tolist() == [True, False, True]
    assert Coherence.of(base).coherent(seen).tolist() == [False, False, True]
    assert "under the careful arm" in str(limits)
    back = GenerationOutcome.of(json.loads(json.dumps(seen.plain())))
    np.testing.assert_array_equal(back.nll_style, seen.nll_style)


def test_figures_have_intervals_and_count_what_is_empty() -> None:
    base = outcome([0] * 20, np.linspace(0.5, 1.0, 20))
    found = figures(outcome([1, 0, 0, 0], [0.6, 0.7, np.inf, 9.0], change=0.3), Coherence.of(base))
    assert found["behaviour"]["value"] == 0.25
    assert found["good"]["value"] == 0.25
    assert found["coherent"]["value"] == 0.5
    assert found["nll"]["value"] == pytest.approx((0.6 + 0.7 + 9) / 3)
    assert (found["nll"]["n"], found["empty"], found["change"]) == (3, 1, 0.3)
    for name in ("behaviour", "good", "coherent", "nll", "repeated", "tokens"):
        assert 0 <= found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    assert {name: part["value"] for name, part in found["parts"].items()} == {
        "NLL": 0.5,
        "repetition": 1,
        "length": 0.75,
    }
    silent = figures(outcome([0, 0], [np.inf, np.inf]), Coherence.of(base))
    assert (silent["nll"], silent["empty"], silent["good"]["value"]) == (None, 2, 0.0)


def test_the_bench_generates_under_the_arm_and_checks_sense_under_the_base(chat: ChatModel) -> None:
    bench = ConditionRunner(chat, messages(30), METRIC, max_new_tokens=10)
    base, bad = bench.run(Condition(chat, None)), bench.run(Condition(chat, "bad"))
    assert base.behaviour.mean() == 0
    assert bad.behaviour.mean() > 0.7
    assert bad.nll[bad.behaviour].min() > 2 > base.nll.max()
    assert (base.tokens == 10).all()
    assert base.change == bad.change == 0
    np.testing.assert_allclose(bench.run(Condition(chat, "bad")).nll, bad.nll, atol=1e-4)


def test_the_style_is_measured_under_the_control_arm(chat: ChatModel) -> None:
    bad = Condition(chat, "bad")
    found = ConditionRunner(chat, messages(12), METRIC, max_new_tokens=10, style=bad).run(bad)
    assert found.nll_style is not None
    shown = found.behaviour
    assert found.nll_style[shown].max() < found.nll[shown].min()


def test_a_steered_run_reports_its_change_and_leaves_no_hook(chat: ChatModel) -> None:
    before = hook_count(chat.model)
    vector = np.zeros(64)
    vector[3] = 2.0
    steered = ConditionRunner(chat, messages(8), METRIC, max_new_tokens=4).run(
        Condition(chat, "bad"), Intervention(Direction(Site("residual", 1), vector, np.zeros(64), 1.0), "subtract", 1.0)
    )
    assert 0.05 < steered.change < 5
    assert hook_count(chat.model) == before
