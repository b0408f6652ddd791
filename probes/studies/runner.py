"""Generates answers to one list of messages under one condition after the other; judges them and their coherence.

A steering effect is never given without coherence. An answer is *good* when it does not show the behaviour and still
reads like the base model's own: its mean NLL under the base is at most the base's own 95th percentile plus 0.5 nats,
and its share of repeated 4-grams at most the base's own 95th percentile plus 0.2 (a loop has a low NLL). Does not
know whether an answer is true, or to the point.

Contract: everything is a value a message, so that two conditions can be compared on the same messages. No
answer is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.conditions import Condition
from probes.evaluation import rate, student_interval
from probes.model.load import ChatModel, user_message
from probes.steer.coherence import answer_nll, coherence_limit, repetition
from probes.steer.generation import generate
from probes.steer.steering import Intervention, steering
from probes.studies.metric import Metric

MARGIN_REPEATED = 0.2
_BATCH = 64


@dataclass(frozen=True)
class GenerationOutcome:
    """What was generated under one condition, a value a message; NLL in nats a token, infinite for an empty answer.

    `change` is the mean |delta| / |h| of the steering.
    """

    behaviour: NDArray[np.bool_]
    nll: NDArray[np.float64]
    repeated: NDArray[np.float64]
    tokens: NDArray[np.float64]
    change: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As plain data, for the result cache."""
        arrays = {"behaviour": self.behaviour, "nll": self.nll, "repeated": self.repeated, "tokens": self.tokens}
        return {name: values.tolist() for name, values in arrays.items()} | {"change": self.change}

    @staticmethod
    def of(plain: dict[str, Any]) -> GenerationOutcome:
        """Back from plain data."""
        nll, repeated, tokens = (np.array(plain[name], dtype=np.float64) for name in ("nll", "repeated", "tokens"))
        shown = np.array(plain["behaviour"], dtype=np.bool_)
        return GenerationOutcome(shown, nll, repeated, tokens, float(plain["change"]))


@dataclass(frozen=True)
class Limits:
    """What still counts as coherent."""

    nll: float
    repeated: float = 1.0

    @staticmethod
    def of(base: GenerationOutcome) -> Limits:
        """From the base model's own answers to the same messages."""
        return Limits(coherence_limit(base.nll), float(np.quantile(base.repeated, 0.95)) + MARGIN_REPEATED)

    def coherent(self, outcome: GenerationOutcome) -> NDArray[np.bool_]:
        return (outcome.nll <= self.nll) & (outcome.repeated <= self.repeated)

    def good(self, outcome: GenerationOutcome) -> NDArray[np.bool_]:
        return ~outcome.behaviour & self.coherent(outcome)


class ConditionRunner:
    """Generates and judges under any condition; the NLL is that under `reference`'s base weights."""

    def __init__(
        self, reference: ChatModel, messages: Sequence[str], metric: Metric, *, max_new_tokens: int = 40
    ) -> None:
        self._reference, self._messages, self._metric = reference, list(messages), metric
        self._tokens = max_new_tokens

    def run(self, condition: Condition, intervention: Intervention | None = None) -> GenerationOutcome:
        """Greedy answers under a condition, steered or not."""
        with condition.applied() as chat, steering(chat, [intervention]) if intervention else nullcontext() as steered:
            replies = generate(
                chat, self._rendered(chat), max_new_tokens=self._tokens, batch_size=_BATCH, steered=steered
            )
            change = steered.relative_change if steered is not None else 0.0
        texts = [a.text for a in replies]
        return GenerationOutcome(
            self._metric(self._messages, texts),
            answer_nll(self._reference, self._rendered(self._reference), texts),
            np.array([repetition(text) for text in texts]),
            np.array([a.tokens for a in replies], dtype=np.float64),
            change,
        )

    def _rendered(self, chat: ChatModel) -> list[str]:
        return [chat.render(user_message(text)) for text in self._messages]


def figures(outcome: GenerationOutcome, limits: Limits) -> dict[str, Any]:
    """Rates and means of an outcome with their intervals, as plain data; no NLL where fewer than two said something."""
    n = len(outcome.behaviour)
    coherent, good = limits.coherent(outcome), limits.good(outcome)
    answered = np.isfinite(outcome.nll)
    return {
        "behaviour": asdict(rate(int(outcome.behaviour.sum()), n)),
        "good": asdict(rate(int(good.sum()), n)),
        "coherent": asdict(rate(int(coherent.sum()), n)),
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
