"""Scoring one batch of messages with all loaded probes in one prefill; a batch that breaks is split.

Contract: `BatchScorer(...)(messages)` gives one Outcome a message, in order, never fewer: scored, truncated, skipped or
failed with a reason. A batch that runs out of memory is halved; one that breaks otherwise is tried once more, then
halved until the bad message stands alone. Reasons hold the class of an error, never its text, since a library's error
may quote the prompt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from monitor.service.batch_rows import Outcome, ProbeScore
from monitor.stream.wire import WireMessage
from monitor.telemetry import metrics
from probes.capture.batches import Encoded, batches, encode
from probes.card import Probe
from probes.model.load import ChatModel
from probes.scoring import Scorer


class BatchScorer:
    """Scores batches with one model and its probes; `tokens` and `seconds` are totals since the start."""

    def __init__(
        self,
        chat: ChatModel,
        probes: Sequence[Probe],
        *,
        token_budget: int,
        max_tokens: int,
        skip_over_long: bool,
    ) -> None:
        self._chat = chat
        self._probes = tuple(probes)
        self._scorer = Scorer(chat.layout, [p.reader for p in probes], chat.device)
        self._reads_responses = any(p.aggregation.span == "response" for p in probes)
        self._token_budget = token_budget
        self._max_tokens = max_tokens
        self._skip_over_long = skip_over_long
        self.tokens = 0
        self.seconds = 0.0

    def __call__(self, messages: Sequence[WireMessage]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        with metrics.stage("tokenize"):
            encoded = self._encode_all(messages, outcomes)
        order = list(encoded)
        started, before = time.perf_counter(), self.tokens
        with metrics.stage("forward"):
            self._score([encoded[i] for i in order], order, outcomes)
        self.seconds += time.perf_counter() - started
        metrics.TOKENS.inc(self.tokens - before)
        return [outcomes[i] for i in range(len(messages))]

    def _encode_all(self, messages: Sequence[WireMessage], outcomes: dict[int, Outcome]) -> dict[int, Encoded]:
        """Encoded messages by index; those that cannot be scored get their outcome here."""
        encoded: dict[int, Encoded] = {}
        for i, message in enumerate(messages):
            try:
                tokens = self._encode(message)
            except Exception as error:
                outcomes[i] = _failed(error, "tokenising")
                continue
            if tokens.truncated and self._skip_over_long:
                reason = f"longer than max_tokens={self._max_tokens} (over_long=skip)"
                outcomes[i] = Outcome("skipped", reason=reason)
            else:
                encoded[i] = tokens
        return encoded

    def _encode(self, message: WireMessage) -> Encoded:
        response = message.response if self._reads_responses else None
        return encode(self._chat, message.turns, response, self._max_tokens)

    def _score(
        self, messages: Sequence[Encoded], indices: Sequence[int], outcomes: dict[int, Outcome], *, again: bool = True
    ) -> None:
        if not messages:
            return
        try:
            outcomes.update(self._forward(messages, indices))
        except Exception as error:
            memory = _out_of_memory(error)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if again and not memory:
                # A transient error (a kernel that timed out, a full queue) should not cost a message its score.
                self._score(messages, indices, outcomes, again=False)
            elif len(messages) == 1:
                outcomes[indices[0]] = _failed(error, "scoring")
            else:
                metrics.BATCH_SPLITS.labels("out_of_memory" if memory else "error").inc()
                half = len(messages) // 2
                for part in (slice(half), slice(half, None)):
                    self._score(messages[part], indices[part], outcomes, again=False)

    def _forward(self, messages: Sequence[Encoded], indices: Sequence[int]) -> dict[int, Outcome]:
        outcomes = {}
        for batch in batches(messages, self._chat.device, token_budget=self._token_budget):
            scores = self._scorer(batch)
            self.tokens += batch.tokens
            for position, row in enumerate(batch.rows):
                parts = [part[position].tolist() for part in scores.parts]
                outcomes[indices[row]] = self._outcome(messages[row], scores.total[position].tolist(), parts)
        return outcomes

    def _outcome(self, message: Encoded, totals: Sequence[float], parts: Sequence[Sequence[float]]) -> Outcome:
        scores, reasons = [], []
        for probe, total, heads in zip(self._probes, totals, parts, strict=True):
            if math.isfinite(total):
                scores.append(ProbeScore(probe, total, _head_scores(probe, heads)))
            elif probe.aggregation.span == "response" and message.n_prompt == len(message.ids):
                reasons.append(f"{probe.name} reads responses and the message has none")
            else:
                reasons.append(f"{probe.name} gave no finite score (dtype overflow?)")
        tokens = len(message.ids)
        reason = "; ".join(reasons) or None
        if not scores:
            overflow = reason is not None and "finite" in reason
            return Outcome("failed" if overflow else "skipped", tokens=tokens, reason=reason)
        return Outcome("truncated" if message.truncated else "scored", tuple(scores), tokens, reason)


def _head_scores(probe: Probe, parts: Sequence[float]) -> tuple[tuple[int, int, float], ...]:
    sites = [d.site for d in probe.directions]
    return tuple((s.layer, s.head, v) for s, v in zip(sites, parts, strict=True) if s.kind == "head")


def _out_of_memory(error: Exception) -> bool:
    # A host out of memory is MemoryError, or a RuntimeError of torch's CPU allocator.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _failed(error: Exception, doing: str) -> Outcome:
    return Outcome("failed", reason=f"{doing} failed: {type(error).__name__}")
