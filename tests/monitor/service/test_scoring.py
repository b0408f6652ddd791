"""A batch that breaks: transient errors are tried again, memory halves it, and the bad message stands alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monitor.service.batch_rows import Outcome
from monitor.service.scoring import BatchScorer
from monitor.telemetry import metrics
from probes.model.load import ChatModel
from probes.scoring import Scorer
from tests.support.stream.worker import MAX_TOKENS, make_probe, scores_of, wire_message

PROMPTS = [f"prompt {n}" for n in range(8)]


@pytest.fixture
def scorer(chat: ChatModel) -> BatchScorer:
    """Reads all prompts in one forward, as long as nothing breaks. Made first: making a probe reads too."""
    return BatchScorer(chat, [make_probe(chat)], token_budget=4096, max_tokens=MAX_TOKENS, skip_over_long=False)


def score(scorer: BatchScorer, prompts: list[str]) -> list[Outcome]:
    return scorer([wire_message(id=f"m{n}", prompt=p) for n, p in enumerate(prompts)])


def splits(reason: str) -> float:
    return float(metrics.BATCH_SPLITS.labels(reason)._value.get())


def failing(monkeypatch: pytest.MonkeyPatch, fails: Any) -> list[int]:
    """`fails(rows, call)` gives the error of a forward, or None. Returns the number of rows of each."""
    sizes: list[int] = []
    forward = Scorer.__call__

    def call(self: Scorer, batch: Any) -> Any:
        sizes.append(len(batch.rows))
        error = fails(len(batch.rows), len(sizes))
        if error is not None:
            raise error
        return forward(self, batch)

    monkeypatch.setattr(Scorer, "__call__", call)
    return sizes


def test_what_comes_and_goes_is_tried_once_more(scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = splits("error")
    sizes = failing(monkeypatch, lambda _rows, call: RuntimeError("a hiccup") if call == 1 else None)
    assert {o.status for o in score(scorer, PROMPTS)} == {"scored"}
    assert sizes == [8, 8]
    assert splits("error") == before


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_out_of_memory_halves_at_once(
    chat: ChatModel, scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = splits("out_of_memory")
    sizes = failing(monkeypatch, lambda rows, _call: error if rows > 2 else None)
    found = score(scorer, PROMPTS)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert splits("out_of_memory") == before + 3
    monkeypatch.undo()
    scores = [o.scores[0].score for o in found]
    assert scores == pytest.approx(scores_of(chat, make_probe(chat), PROMPTS), abs=1e-4)


def test_a_message_too_large_for_memory_fails_alone(scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda _rows, _call: torch.OutOfMemoryError("CUDA"))
    found = score(scorer, PROMPTS[:3])
    assert [(o.status, o.reason) for o in found] == [("failed", "scoring failed: OutOfMemoryError")] * 3


def test_a_single_message_is_tried_once_more_too(scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = failing(monkeypatch, lambda _rows, call: RuntimeError("a hiccup") if call == 1 else None)
    assert [o.status for o in score(scorer, PROMPTS[:1])] == ["scored"]
    assert sizes == [1, 1]
