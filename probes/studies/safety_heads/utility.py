"""What ablating heads costs: ordinary questions, each with a right and a wrong answer, compared by likelihood.

arXiv 2410.13708 section 4.3 runs zero-shot benchmarks (BoolQ, RTE, WinoGrande, ARC, OpenBookQA), which are scored the
same way: the answer with the larger log-probability is the model's. Ours are few and easy, so that a small loss cannot
be seen on them; a model that is broken can. The log-probability of the right answers, a token, moves before any choice
does, and is given beside the choices.

Contract: `Utility.of(trial)` gives, as plain data, `right` (a rate), `lost` (right before less right now, paired),
`nats` (mean log-probability of the right answers, nats a token) and `nats_lost`. Stored in the result cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from probes.directions import Floats
from probes.errors import DataError
from probes.evaluation import paired_difference, rate, student_interval
from probes.hashing import hash_texts
from probes.heads.ablation import ablating
from probes.model.load import ChatModel, user_message
from probes.result_cache import ResultCache
from probes.steer.coherence import answer_nll
from probes.studies.safety_heads.trials import BEFORE, AblationTrial


@dataclass(frozen=True)
class Question:
    """An ordinary question with a right and a wrong answer of much the same form."""

    text: str
    right: str
    wrong: str


class Utility:
    """Scores the questions under one trial after the other, beside the model as it is."""

    def __init__(self, chat: ChatModel, questions: Sequence[Question], cache: ResultCache) -> None:
        if len(questions) < 2:
            raise DataError(f"questions: {len(questions)} given; an interval needs at least 2")
        self._chat, self._questions, self._cache = chat, list(questions), cache
        self._prompts = [chat.render(user_message(q.text)) for q in questions]
        self._before = self._scores(BEFORE)

    def of(self, trial: AblationTrial) -> dict[str, Any]:
        """Figures under `trial`."""
        right, wrong = self._scores(trial)
        before, chosen = self._before[0] > self._before[1], right > wrong
        return {
            "right": asdict(rate(int(chosen.sum()), len(chosen))),
            "lost": asdict(paired_difference(before, chosen)),
            "nats": asdict(student_interval(right)),
            "nats_lost": asdict(student_interval(self._before[0] - right)),
        }

    def _scores(self, trial: AblationTrial) -> tuple[Floats, Floats]:
        """Mean log-probabilities (nats a token) of the right and of the wrong answers."""
        asked = hash_texts(f"{q.text}\0{q.right}\0{q.wrong}" for q in self._questions)
        name = f"questions {asked} {trial.key}"
        stored: list[list[float]] | None = self._cache.get(name)
        if stored is None:
            answers = [q.right for q in self._questions] + [q.wrong for q in self._questions]
            with ablating(self._chat, trial.heads, trial.ablation) if trial.heads else nullcontext():
                nats = -answer_nll(self._chat, self._prompts * 2, answers, base=False)
            stored = [nats[: len(self._questions)].tolist(), nats[len(self._questions) :].tolist()]
            self._cache.put(name, stored)
        right, wrong = (np.array(values, dtype=np.float64) for values in stored)
        return right, wrong
