"""Generates answers to one list of messages under one condition after the other; judges them and their coherence.

A steering effect is never given without coherence: an answer is *good* when it does not show the behaviour and is
coherent (`probes.steer.coherence.Coherence`: NLL, repetition, length). Figures show the share that passes each part.
Does not know whether an answer is true, or to the point.

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
from probes.steer.coherence import Coherence, Flags, answer_nll, repetition
from probes.steer.generation import generate
from probes.steer.steering import Intervention, steering
from probes.studies.metric import Metric

_BATCH = 64


@dataclass(frozen=True)
class GenerationOutcome:
    """What was generated under one condition, a value a message; NLL in nats a token, infinite for an empty answer.

    `nll_style` is the NLL under a control arm of the same style, where there is one; `change` the mean |delta| / |h| of
    the steering.
    """

    behaviour: NDArray[np.bool_]
    nll: NDArray[np.float64]
    repeated: NDArray[np.float64]
    tokens: NDArray[np.float64]
    change: float = 0.0
    nll_style: NDArray[np.float64] | None = None

    def plain(self) -> dict[str, Any]:
        """As plain data, for the result cache."""
        arrays = {"behaviour": self.behaviour, "nll": self.nll, "repeated": self.repeated, "tokens": self.tokens}
        style = None if self.nll_style is None else self.nll_style.tolist()
        plain: dict[str, Any] = {name: values.tolist() for name, values in arrays.items()}
        return plain | {"change": self.change, "nll_style": style}

    @staticmethod
    def of(plain: dict[str, Any]) -> GenerationOutcome:
        """Back from plain data."""
        nll, repeated, tokens = (np.array(plain[name], dtype=np.float64) for name in ("nll", "repeated", "tokens"))
        shown = np.array(plain["behaviour"], dtype=np.bool_)
        style = plain.get("nll_style")
        of_style = None if style is None else np.array(style, dtype=np.float64)
        return GenerationOutcome(shown, nll, repeated, tokens, float(plain["change"]), of_style)


def good(outcome: GenerationOutcome, coherence: Coherence) -> Flags:
    """Which answers do not show the behaviour and are coherent."""
    return ~outcome.behaviour & coherence.coherent(outcome)


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
            self._nll_style(texts),
        )

    def _nll_style(self, texts: Sequence[str]) -> NDArray[np.float64] | None:
        if self._style is None:
            return None
        with self._style.applied() as chat:
            return answer_nll(chat, self._rendered(chat), texts, base=False)

    def _rendered(self, chat: ChatModel) -> list[str]:
        return [chat.render(user_message(text)) for text in self._messages]


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
