"""What was answered to a list of prompts in one way, as values a prompt: the only path from generation to figures.

`answered` generates, steered or not; `outcome_of` measures what coherence is told by (`probes.steer.coherence`) beside
the judged behaviour. Studies differ in the condition that they generate under, in who judges, and in the prompts that
the NLL is conditioned on; this is the same for all of them. No answer is kept in an outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.model.load import ChatModel
from probes.steer.coherence import Coherence, Flags, answer_nll, repetition
from probes.steer.generation import Reply, generate
from probes.steer.steering import Intervention, steering


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


def answered(
    chat: ChatModel,
    prompts: Sequence[str],
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int = 40,
    batch_size: int = 50,
) -> tuple[list[Reply], float]:
    """Greedy answers of the model as it is in use, and the mean |delta| / |h| of the interventions, 0 without any."""
    with steering(chat, interventions) if interventions else nullcontext() as state:
        replies = generate(chat, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, steered=state)
        return replies, 0.0 if state is None else state.relative_change


def outcome_of(
    replies: Sequence[Reply],
    behaviour: NDArray[np.bool_],
    reference: ChatModel,
    prompts: Sequence[str],
    *,
    change: float = 0.0,
    nll_style: NDArray[np.float64] | None = None,
) -> GenerationOutcome:
    """The outcome of judged answers; their NLL is that after `prompts` under `reference`'s base weights."""
    texts = [reply.text for reply in replies]
    return GenerationOutcome(
        behaviour,
        answer_nll(reference, prompts, texts),
        np.array([repetition(text) for text in texts]),
        np.array([reply.tokens for reply in replies], dtype=np.float64),
        change,
        nll_style,
    )
