"""The paper's other level: each harmful request answered with *its own* head ablated (arXiv 2410.13708 section 3.3).

The head is the first by Ships of that request alone (`docs/science.md` C.1 steps 4 and 5), so that requests are
answered under heads of their own. The paper's headline (harmful queries answered 16 times as often) is of this level.
Controls are in the same head, a random shift as large, and in another head of the same block; beside them stands the
paper's other ablation, of the same heads.

Contract: `PerQuery.run` answers the first requests of the held-out harmful ones; `AblationRunner` judges them, and has
answered them before without an ablation. No text is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.capture.sites import Site
from probes.directions import Floats
from probes.hashing import hash_texts
from probes.heads.ablation import Ablation, switch
from probes.heads.attribution import top_heads
from probes.model.load import ChatModel
from probes.result_cache import ResultCache
from probes.steer.generation import Reply, generate
from probes.steer.outcomes import GenerationOutcome
from probes.studies.framework.verdict import Judgement
from probes.studies.safety_heads.trials import (
    AblationRunner,
    Role,
    effect,
    random_shift,
    verdict,
    verdict_by_refusals,
)

_BATCH = 50
_NAME = "first head of each request"


@dataclass(frozen=True)
class QueryTrial:
    """One head for each request, and how it is ablated."""

    name: str
    heads: tuple[Site, ...]
    ablation: Ablation
    role: Role


def query_trials(scores: Floats, ablation: Ablation, *, draws: int, seed: int = 0) -> list[QueryTrial]:
    """Trials by Ships `scores` (requests, layers, heads): ablated, scaled, and `draws` controls of each kind."""
    heads = tuple(top_heads(one, 1)[0] for one in scores)
    trials = [
        QueryTrial(_NAME, heads, ablation, "ablated"),
        QueryTrial(f"{_NAME}: scaling contribution", heads, Ablation("scaling", ablation.eps), "scaling"),
    ]
    rng = np.random.default_rng(seed)
    count = scores.shape[2]
    for i in range(draws):
        shift = random_shift(ablation, seed + i)
        trials.append(QueryTrial(f"{_NAME}: random shift {i + 1}", heads, shift, "random shift"))
        if count > 1:
            drawn = [Site("head", h.layer, (h.head + 1 + int(rng.integers(count - 1))) % count) for h in heads]
            trials.append(QueryTrial(f"{_NAME}: random heads {i + 1}", tuple(drawn), ablation, "random heads"))
    return trials


class PerQuery:
    """Answers held-out harmful requests, each with a head of its own ablated."""

    def __init__(
        self, chat: ChatModel, prompts: Sequence[str], runner: AblationRunner, cache: ResultCache, max_new_tokens: int
    ) -> None:
        self._chat, self._prompts, self._runner, self._cache = chat, list(prompts), runner, cache
        self._tokens = max_new_tokens

    def run(self, trials: Sequence[QueryTrial]) -> dict[str, Any]:
        """Figures of every trial, how often each head was chosen, and the verdicts by both measures.

        What has no effect, or breaks the text, needs no controls: then only the paper's two ablations are tried.
        """
        n = len(self._prompts)
        before, own = self._runner.before(n), self._outcome(trials[0])
        unablated = {"harmful": self._runner.figures(before)}

        def figures(trial: QueryTrial, outcome: GenerationOutcome) -> dict[str, Any]:
            differences = self._runner.compared(before, own, outcome)
            if trial is trials[0]:
                differences = {k: v for k, v in differences.items() if not k.startswith("gap")}
            return {"role": trial.role, "harmful": self._runner.figures(outcome) | differences}

        tried = {trials[0].name: figures(trials[0], own)}
        controlled = effect(unablated, tried[trials[0].name]) is None
        for trial in trials[1:]:
            if controlled or trial.role == "scaling":
                tried[trial.name] = figures(trial, self._outcome(trial))
        judged: dict[str, Judgement] = {
            "verdict": verdict(unablated, tried),
            "verdict_by_refusals": verdict_by_refusals(unablated, tried),
        }
        chosen = Counter(map(str, trials[0].heads))
        return {
            "requests": n,
            "heads": dict(chosen.most_common()),
            "before": unablated,
            "trials": tried,
            **{name: judgement.as_dict() for name, judgement in judged.items()},
        }

    def _outcome(self, trial: QueryTrial) -> GenerationOutcome:
        heads = ",".join(map(str, trial.heads))
        name = f"query {hash_texts(self._prompts)} {self._runner.fingerprint} {self._tokens} {heads} {trial.ablation}"
        stored = self._cache.get(name)
        if stored is not None:
            return GenerationOutcome.of(stored)
        outcome = self._runner.judged("harmful", self._answers(trial))
        self._cache.put(name, outcome.plain())
        return outcome

    def _answers(self, trial: QueryTrial) -> list[Reply]:
        ids = [self._chat.token_ids(p) for p in self._prompts]
        # Sorted as `generate` sorts, so that rows of heads are those of the batch.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        answers: dict[int, Reply] = {}
        for chosen in (order[i : i + _BATCH] for i in range(0, len(order), _BATCH)):
            with switch(self._chat.layout, trial.ablation, {trial.heads[i].layer for i in chosen}) as on:
                on.rows([[trial.heads[i]] for i in chosen])
                batch = [ids[i] for i in chosen]
                replies = generate(self._chat, batch, max_new_tokens=self._tokens, batch_size=_BATCH)
            answers |= dict(zip(chosen, replies, strict=True))
        return [answers[i] for i in range(len(ids))]
