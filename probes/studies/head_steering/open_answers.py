"""Open-ended answers under head interventions: judged behaviour, and coherence.

A condition's answers are greedy; rates and coherence are those of `probes.studies.runner`, with a control adapter's own
answers as the reference of style where there is one. Beside the NLL under the base model stands that under the model in
use, unsteered (the base plus its adapter). What was measured is cached without the texts, so that a study that was
interrupted generates nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.conditions import Condition
from probes.evaluation import paired_difference, student_interval
from probes.hashing import hash_texts
from probes.heads.choice_scoring import SteeringTrial
from probes.model.load import ChatModel, user_message
from probes.progress import Progress, silent
from probes.result_cache import ResultCache
from probes.steer.coherence import Coherence, answer_nll
from probes.steer.outcomes import GenerationOutcome, answered, outcome_of
from probes.studies.metric import Metric
from probes.studies.runner import figures, style_nll

BASE, CONTROL = SteeringTrial("base model"), SteeringTrial("control arm, no intervention")


@dataclass(frozen=True)
class Answers:
    """One condition: its outcome, and the NLL of each answer under the unsteered model in use (nats a token)."""

    outcome: GenerationOutcome
    nll_unsteered: NDArray[np.float64]


class OpenAnswerRunner:
    """Answers one list of messages under one condition after the other; `control` names a loaded control adapter."""

    def __init__(
        self,
        chat: ChatModel,
        messages: Sequence[str],
        metric: Metric,
        cache: ResultCache,
        *,
        max_new_tokens: int,
        control: str | None = None,
        progress: Progress = silent,
    ) -> None:
        self._chat, self._metric, self._cache, self._progress = chat, metric, cache, progress
        self._messages, self._tokens = list(messages), max_new_tokens
        self._set = hash_texts(messages)[:16]
        self._prompts = [chat.render(user_message(t)) for t in messages]
        self._control_arm = None if control is None else Condition(chat, control)
        self.base = self.run(BASE)
        self.control = None if control is None else self.run(CONTROL)
        style = None if self.control is None else (CONTROL.name, self.control.outcome)
        self.coherence = Coherence.of(self.base.outcome, style=style)

    def run(self, trial: SteeringTrial, of: ChatModel | None = None) -> Answers:
        """Answers under a trial; `PLAIN` is the model in use unsteered, `BASE` the model without its adapter.

        `of` is another model that answers, under a trial with a name of its own; coherence stays that of this one.
        """
        key = f"open:{self._set}:{trial.name}"
        stored = self._cache.get(key)
        if stored is None:
            stored = self._measured(trial, of or self._chat)
            self._cache.put(key, stored)
            shown = float(np.mean(stored["outcome"]["behaviour"]))
            self._progress(f"{trial.name}: {self._metric.name} in {shown:.2f} of {len(self._messages)} answers")
        return Answers(GenerationOutcome.of(stored["outcome"]), np.array(stored["nll_unsteered"], dtype=np.float64))

    def coherent_share(self, answers: Answers) -> float:
        """Share of answers that read like the base model's own."""
        return float(self.coherence.coherent(answers.outcome).mean())

    def figures(self, answers: Answers, before: Answers) -> dict[str, Any]:
        """Rates and means with their intervals as plain data; `behaviour_change` is paired by message."""
        own = answers.nll_unsteered[np.isfinite(answers.nll_unsteered)]
        change = paired_difference(answers.outcome.behaviour, before.outcome.behaviour)
        return figures(answers.outcome, self.coherence) | {
            "behaviour_change": asdict(change),
            "nll_unsteered": asdict(student_interval(own)) if len(own) > 1 else None,
        }

    def _condition(self, trial: SteeringTrial) -> AbstractContextManager[Any]:
        if trial is BASE:
            return self._chat.base()
        return self._control_arm.applied() if trial is CONTROL and self._control_arm is not None else nullcontext()

    def _measured(self, trial: SteeringTrial, answering: ChatModel) -> dict[str, Any]:
        chat = self._chat
        shifts = [s.intervention("last") for s in trial.shifts]
        with self._condition(trial):
            replies, change = answered(answering, self._prompts, shifts, max_new_tokens=self._tokens)
        texts = [reply.text for reply in replies]
        style = style_nll(self._control_arm, self._messages, texts)
        behaviour = self._metric(self._messages, texts)
        outcome = outcome_of(replies, behaviour, chat, self._prompts, change=change, nll_style=style)
        own = answer_nll(chat, self._prompts, texts, base=False) if chat.active else outcome.nll
        return {"outcome": outcome.plain(), "nll_unsteered": own.tolist()}
