"""Both measures of refusal, each request's own head, ordinary questions, and the fixed limit of repetition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from probes.capture.sites import Site
from probes.errors import DataError
from probes.heads.ablation import Ablation
from probes.model.load import Message
from probes.result_cache import ResultCache
from probes.steer.generation import Reply
from probes.studies.framework.verdict import Verdict
from probes.studies.safety_heads.per_query import PerQuery, query_trials
from probes.studies.safety_heads.trials import (
    BEFORE,
    REPEATED,
    AblationRunner,
    AblationTrial,
    Class,
    trials_of,
    verdict,
    verdict_by_refusals,
)
from probes.studies.safety_heads.utility import Question, Utility
from tests.support.models.refusing import NO, PLANTED, refusing_chat
from tests.support.models.studies import HARMFUL, HARMLESS, SafetyStudy

CONVERSATIONS: dict[Class, list[Sequence[Message]]] = {
    "harmful": [r.messages for r in HARMFUL[:6]],
    "harmless": [r.messages for r in HARMLESS[:6]],
}
QUESTIONS = [Question(f"{i}", "yes indeed", "not at all") for i in range(4)]


def set_of(heads: Sequence[Site], ablation: Ablation | None = None) -> AblationTrial:
    return trials_of("set", heads, np.zeros((3, 4)), ablation or Ablation(), draws=0)[0]


def test_each_request_has_its_own_head_and_controls_in_the_same_block(safety_study: SafetyStudy) -> None:
    found = safety_study.result["per_query"]
    assert found["requests"] == 12
    assert found["heads"] == {str(PLANTED): 12}
    assert found["before"]["harmful"]["refused"]["value"] == 1
    by_role = {role: [t for t in found["trials"].values() if t["role"] == role] for role in ("ablated", "random shift")}
    assert by_role["ablated"][0]["harmful"]["complied"]["value"] == 1
    assert "gap" not in by_role["ablated"][0]["harmful"]
    for control in by_role["random shift"]:
        assert control["harmful"]["refused"]["value"] == 1
        assert control["harmful"]["gap"]["value"] == control["harmful"]["gap_refused"]["value"] == 1
    assert found["verdict"]["label"] == found["verdict_by_refusals"]["label"] == Verdict.SPECIFICITY_UNKNOWN


def test_heads_follow_their_requests_through_batches_of_other_lengths(tmp_path: Path) -> None:
    """Every second request has the refusing head ablated, and the requests are of many lengths."""
    chat = refusing_chat()
    asked: list[Sequence[Message]] = [
        [{"role": "user", "content": str(r.messages[0]["content"]) + " w" * (7 * i % 11)}]
        for i, r in enumerate(HARMFUL[:10])
    ]
    bench = AblationRunner(
        chat, {"harmful": asked, "harmless": CONVERSATIONS["harmless"]}, NO, ResultCache(tmp_path, {}), max_new_tokens=6
    )
    bench.run(BEFORE)
    refused = bench.before(10).behaviour
    scores = np.zeros((10, chat.layout.n_blocks, chat.layout.n_heads))
    elsewhere = (PLANTED.head + 1) % chat.layout.n_heads
    for i in range(10):
        scores[i, PLANTED.layer, PLANTED.head if i % 2 else elsewhere] = 1
    trials = query_trials(scores, Ablation(), draws=1)
    assert [h.head == PLANTED.head for h in trials[0].heads] == [bool(i % 2) for i in range(10)]
    others = next(t for t in trials if t.role == "random heads")
    assert all(a.layer == b.layer and a != b for a, b in zip(trials[0].heads, others.heads, strict=True))
    per_query = PerQuery(chat, [chat.render(m) for m in asked], bench, ResultCache(tmp_path, {}), 6)
    now = per_query._outcome(trials[0]).behaviour
    assert refused.any()
    assert not now[1::2].any()
    assert (now[::2] == refused[::2]).all()


def test_broken_text_is_an_attack_by_the_papers_measure_and_none_by_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = refusing_chat()
    bench = AblationRunner(chat, CONVERSATIONS, NO, ResultCache(tmp_path, {}), max_new_tokens=6)
    before = bench.run(BEFORE)
    trial = set_of([PLANTED], Ablation(eps=1e-3))
    with monkeypatch.context() as patched:
        loop = [Reply("w " * 30, 30, True)] * 6
        patched.setattr("probes.studies.safety_heads.trials.generate", lambda *_, **__: loop)
        broken = bench.run(trial)
    broken["harmful"] |= bench.against([trial])["set"]
    assert broken["harmful"]["not_refused"]["value"] == 1
    assert broken["harmful"]["complied"]["value"] == 0
    assert broken["harmful"]["times"] == {"not_refused": None, "complied": None}  # none before
    assert verdict(before, {"set": broken}).label is Verdict.NOISE
    assert verdict_by_refusals(before, {"set": broken}).label is Verdict.SPECIFICITY_UNKNOWN


def test_the_limit_of_repetition_does_not_move_with_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = refusing_chat()
    with monkeypatch.context() as patched:
        loop = [Reply("a b c d " * 8, 30, True)] * 6
        patched.setattr("probes.studies.safety_heads.trials.generate", lambda *_, **__: loop)
        bench = AblationRunner(chat, CONVERSATIONS, NO, ResultCache(tmp_path, {}), max_new_tokens=6)
        found = bench.run(BEFORE)["harmful"]
    assert bench.coherence.repeated == REPEATED
    assert found["complied"]["value"] == 0
    assert found["complied_at"]["1"] == 1
    assert found["complied_at"]["0.2"] <= found["complied_at"]["0.4"] <= found["complied_at"]["1"]


def test_questions_are_lost_where_an_ablation_moves_them(tmp_path: Path) -> None:
    chat = refusing_chat()
    utility = Utility(chat, QUESTIONS, ResultCache(tmp_path, {}))
    same = utility.of(BEFORE)
    assert same["lost"]["value"] == same["nats_lost"]["value"] == 0
    every = [Site("head", b, h) for b in range(chat.layout.n_blocks) for h in range(chat.layout.n_heads)]
    moved = utility.of(set_of(every, Ablation("scaling", 0.0)))
    assert abs(moved["nats_lost"]["value"]) > 1e-3
    turned = [Question(q.text, q.wrong, q.right) for q in QUESTIONS]
    other = Utility(chat, turned, ResultCache(tmp_path, {})).of(BEFORE)
    assert same["right"]["value"] + other["right"]["value"] == 1
    with pytest.raises(DataError, match="questions: 1 given"):
        Utility(chat, QUESTIONS[:1], ResultCache(tmp_path, {}))
