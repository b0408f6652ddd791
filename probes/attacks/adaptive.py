"""An attacker who watches the score: a search for a suffix under which a message is no longer flagged.

Contract: `run_adaptive` tries to get each harmful message under a probe's threshold with at most `queries` of its
scores, by the same path as the worker. The message itself stays as it is: only what stands behind it in the same turn
is changed. `random` puts words of a benign vocabulary there and keeps what lowers the score (black box,
`probes.attacks.attempts`); `gradient` asks the model which tokens would lower it (white box,
`probes.attacks.gradient`), and a gradient counts as one query. The report gives the share of messages still flagged
against the budget.

What is not tried: words before the message, rewording it, other turns, other languages or encodings. A real attacker
has those too, so the figures are a floor of what can be done, and no statement of robustness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from probes.attacks.attempts import MOST_WORDS, Attempt, Propose, RandomProposals
from probes.attacks.base import rng_of
from probes.attacks.gradient import GradientProposals
from probes.card import Probe
from probes.errors import DataError
from probes.evaluation import Interval, rate
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.reading import Conversation, score_conversations

Method = Literal["random", "gradient"]
METHODS: tuple[Method, ...] = get_args(Method)
BUDGETS = (0, 10, 25, 50, 100, 200, 500, 1000)
NOT_TRIED = ("words before the message", "rewording", "other turns", "encodings")


@dataclass(frozen=True)
class AdaptivePlan:
    """How the search is run."""

    method: Method = "random"
    queries: int = 100
    seed: int = 0
    max_tokens: int = 2048
    max_windows: int = 8


@dataclass(frozen=True)
class AdaptiveReport:
    """`curve`: (queries, share of messages that are still flagged); `lowered`: by how much, in class gaps, on average.

    `no_gradient`: the share of gradients that were zero.
    """

    probe: str
    version: int
    digest: str
    model: str
    method: Method
    queries: int
    seed: int
    threshold: float
    messages: int
    curve: tuple[tuple[int, Interval], ...]
    lowered: float
    no_gradient: float | None = None
    changes: str = f"a suffix of at most {MOST_WORDS} words or tokens"
    not_tried: tuple[str, ...] = NOT_TRIED

    def plain(self) -> dict[str, Any]:
        """As plain data, for a card and for JSON."""
        document = asdict(self)
        document["curve"] = [{"queries": budget, "flagged": asdict(share)} for budget, share in self.curve]
        document["not_tried"] = list(self.not_tried)
        return document


def run_adaptive(
    chat: ChatModel,
    probe: Probe,
    harmful: Sequence[Conversation],
    vocabulary: Sequence[str],
    plan: AdaptivePlan | None = None,
    progress: Progress = silent,
) -> AdaptiveReport:
    """The search on every message; `vocabulary` are words for suffixes (`probes.attacks.attempts.words_of`)."""
    plan = plan or AdaptivePlan()
    _check(harmful, vocabulary, plan)
    attempts, no_gradient = search(chat, probe, harmful, vocabulary, plan, progress)
    threshold = probe.card.threshold
    budgets = sorted({*(b for b in BUDGETS if b < plan.queries), plan.queries})
    first = np.array([a.history[0] for a in attempts])
    last = np.array([a.best for a in attempts])
    searched = np.isfinite(first) & np.isfinite(last) & (first > threshold)
    return AdaptiveReport(
        probe=probe.name,
        version=probe.card.version,
        digest=probe.digest,
        model=chat.name,
        method=plan.method,
        queries=plan.queries,
        seed=plan.seed,
        threshold=threshold,
        messages=len(attempts),
        curve=tuple(
            (b, rate(sum(a.history[min(b, a.used)] > threshold for a in attempts), len(attempts))) for b in budgets
        ),
        lowered=float((first - last)[searched].mean()) if searched.any() else 0.0,
        no_gradient=no_gradient,
    )


def search(
    chat: ChatModel,
    probe: Probe,
    harmful: Sequence[Conversation],
    vocabulary: Sequence[str],
    plan: AdaptivePlan,
    progress: Progress = silent,
) -> tuple[list[Attempt], float | None]:
    """The attempts as they ended, and the share of gradients that were zero.

    A message is left alone once it is under the threshold.
    """
    attempts = [Attempt(each, rng_of(plan.seed, "adaptive", str(i))) for i, each in enumerate(harmful)]
    propose: Propose = RandomProposals(vocabulary)
    guided: GradientProposals | None = None
    if plan.method == "gradient":
        propose = guided = GradientProposals(chat, probe, vocabulary, plan.max_tokens)

    def scored(conversations: Sequence[Conversation]) -> list[float]:
        values = score_conversations(
            chat, [probe], conversations, max_tokens=plan.max_tokens, max_windows=plan.max_windows
        )[:, 0]
        # A message without a score is not flagged: the attacker has won.
        return [float(v) if np.isfinite(v) else -np.inf for v in values]

    for attempt, score in zip(attempts, scored([a.conversation for a in attempts]), strict=True):
        attempt.history.append(score)
    while active := [a for a in attempts if a.best > probe.card.threshold and a.used < plan.queries]:
        progress(f"query {min(a.used for a in active)} of {plan.queries}: {len(active)} of {len(attempts)} flagged")
        left = plan.queries - max(a.used for a in active)
        proposals = propose(active, left)
        texts = [a.with_suffix(s) for a, suffixes in zip(active, proposals, strict=True) for s in suffixes]
        scores = iter(scored(texts) if texts else [])
        for attempt, suffixes in zip(active, proposals, strict=True):
            if guided is not None:
                attempt.history.append(attempt.best)  # the gradient
            for suffix in suffixes:
                attempt.learn(suffix, next(scores))
    return attempts, guided.zero_share if guided is not None else None


def _check(harmful: Sequence[Conversation], vocabulary: Sequence[str], plan: AdaptivePlan) -> None:
    if plan.method not in METHODS:
        raise DataError(f"adaptive: {plan.method!r} is none of {', '.join(METHODS)}")
    if plan.queries < 1:
        raise DataError(f"queries: {plan.queries}; give at least 1")
    if not harmful:
        raise DataError("harmful: no messages; give at least one")
    if not vocabulary:
        raise DataError("benign: no words to make suffixes of; give benign texts")
