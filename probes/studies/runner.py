"""Generates answers to one list of messages under one condition after the other; judges them and their coherence.

A steering effect is never given without coherence: an answer is *good* when it does not show the behaviour and is
coherent (`probes.steer.coherence.Coherence`: NLL, repetition, length). Figures show the share that passes each part.
Does not know whether an answer is true, or to the point.

Contract: everything is a value a message, so that two conditions can be compared on the same messages. No
answer is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.conditions import Condition
from probes.evaluation import rate, student_interval
from probes.model.load import ChatModel, user_message
from probes.steer.coherence import Coherence, answer_nll
from probes.steer.outcomes import GenerationOutcome, answered, good, outcome_of
from probes.steer.steering import Intervention
from probes.studies.metric import Metric

_BATCH = 64


class ConditionRunner:
    """Generates and judges under any condition; the NLL is that under `reference`'s base weights.

    `style` is a control arm of the same style, whose NLL is measured beside it.
    """

    def __init__(
        self,
        reference: ChatModel,
        messages: Sequence[str],
        metric: Metric,
        *,
        max_new_tokens: int = 40,
        style: Condition | None = None,
    ) -> None:
        self._reference, self._messages, self._metric, self._style = reference, list(messages), metric, style
        self._tokens = max_new_tokens

    def run(self, condition: Condition, intervention: Intervention | None = None) -> GenerationOutcome:
        """Greedy answers under a condition, steered or not."""
        steered = [intervention] if intervention else []
        with condition.applied() as chat:
            prompts = self._rendered(chat)
            replies, change = answered(chat, prompts, steered, max_new_tokens=self._tokens, batch_size=_BATCH)
        texts = [reply.text for reply in replies]
        style = style_nll(self._style, self._messages, texts)
        behaviour = self._metric(self._messages, texts)
        reference = self._reference
        return outcome_of(replies, behaviour, reference, self._rendered(reference), change=change, nll_style=style)

    def _rendered(self, chat: ChatModel) -> list[str]:
        return [chat.render(user_message(text)) for text in self._messages]


def style_nll(style: Condition | None, messages: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64] | None:
    """The NLL of each answer (nats a token) under the control arm of the same style; None without one."""
    if style is None:
        return None
    with style.applied() as chat:
        return answer_nll(chat, [chat.render(user_message(text)) for text in messages], texts, base=False)


def figures(outcome: GenerationOutcome, coherence: Coherence) -> dict[str, Any]:
    """Rates and means of an outcome with their intervals, as plain data; no NLL where fewer than two said something.

    `parts` are the rates of the three parts of coherence.
    """
    n = len(outcome.behaviour)
    coherent, fine = coherence.coherent(outcome), good(outcome, coherence)
    answered = np.isfinite(outcome.nll)
    return {
        "behaviour": asdict(rate(int(outcome.behaviour.sum()), n)),
        "good": asdict(rate(int(fine.sum()), n)),
        "coherent": asdict(rate(int(coherent.sum()), n)),
        "parts": {name: asdict(rate(int(ok.sum()), n)) for name, ok in coherence.parts(outcome).items()},
        "nll": _mean(outcome.nll[answered]) if answered.sum() > 1 else None,
        "repeated": _mean(outcome.repeated),
        "tokens": _mean(outcome.tokens),
        "empty": int((~answered).sum()),
        "change": outcome.change,
    }


def _mean(values: NDArray[np.float64]) -> dict[str, Any]:
    """A mean of what is never negative."""
    interval = student_interval(values)
    return asdict(replace(interval, low=max(0.0, interval.low)))
