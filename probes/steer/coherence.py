"""Coherence of generated text: the one measure of it, and the one definition of a good answer.

An answer is *coherent* when all three parts hold, each against a reference's own answers to the same messages:

- *NLL*: its mean negative log-likelihood a token under the reference is at most the reference's own 95th percentile
  plus 0.5 nats. The reference is the base model; where a study has a control arm of the same style (a fine-tune on
  harmless data of the same form), an answer that reads well under that arm passes too: a style that is not the base's
  own is no broken text;
- *repetition*: its share of repeated 4-grams is at most the reference's 95th percentile plus 0.2 (a loop has a low
  NLL);
- *length*: it has at least a quarter as many tokens as the reference's 5th percentile, and one at least.

It is *good* when it is coherent and does not show the behaviour. A steering effect without these can be noise that
passes for a cure. Does not know: truth, usefulness, politeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from probes.capture.batches import Encoded, batches
from probes.errors import DataError
from probes.model.load import ChatModel

MARGIN_NATS, MARGIN_REPEATED = 0.5, 0.2
_SHORTEST = 0.25
Flags = NDArray[np.bool_]
Values = NDArray[np.float64]


class Measured(Protocol):
    """What is measured of answers, a value each: NLL in nats a token, infinite for an empty answer.

    `nll_style` is that under the control arm of the same style, None where there is none.
    """

    @property
    def nll(self) -> Values: ...
    @property
    def nll_style(self) -> Values | None: ...
    @property
    def repeated(self) -> Values: ...
    @property
    def tokens(self) -> Values: ...


@dataclass(frozen=True)
class Coherence:
    """Limits of the three parts, and whose answers set them; `style` names the control arm of the same style."""

    reference: str
    nll: float
    repeated: float
    tokens: float
    style: str | None = None
    nll_style: float | None = None

    @staticmethod
    def of(base: Measured, reference: str = "the base model", style: tuple[str, Measured] | None = None) -> Coherence:
        """From the reference's own answers; `style` is a control arm's name and its own answers to the same messages.

        DataError when the reference answered none of them with a word.
        """
        own = [base] if style is None else [base, style[1]]
        of_style = None if style is None else style[1].nll_style
        return Coherence(
            reference,
            coherence_limit(base.nll),
            max(float(np.quantile(m.repeated, 0.95)) for m in own) + MARGIN_REPEATED,
            max(1.0, _SHORTEST * min(float(np.quantile(m.tokens, 0.05)) for m in own)),
            style[0] if style is not None and of_style is not None else None,
            None if of_style is None else coherence_limit(of_style),
        )

    def parts(self, answers: Measured) -> dict[str, Flags]:
        """Which answers pass each part, by its name."""
        reads_well = answers.nll <= self.nll
        if self.nll_style is not None and answers.nll_style is not None:
            reads_well = reads_well | (answers.nll_style <= self.nll_style)
        return {
            "NLL": reads_well,
            "repetition": answers.repeated <= self.repeated,
            "length": np.isfinite(answers.nll) & (answers.tokens >= self.tokens),
        }

    def coherent(self, answers: Measured) -> Flags:
        passed: Flags = np.logical_and.reduce(list(self.parts(answers).values()))
        return passed

    def __str__(self) -> str:
        other = "" if self.style is None else f", or {self.nll_style:.2f} under {self.style}"
        return (
            f"NLL at most {self.nll:.2f} nats a token under {self.reference}{other}; at most {self.repeated:.2f} of "
            f"the 4-grams repeated; at least {self.tokens:.0f} tokens"
        )


def answer_nll(
    chat: ChatModel, prompts: Sequence[str], answers: Sequence[str], *, token_budget: int = 1024, base: bool = True
) -> NDArray[np.float64]:
    """Mean NLL (nats a token) of each answer given its rendered prompt, under the base model or the one in use.

    An empty answer gets infinity: it says nothing.
    """
    items = []
    for prompt, text in zip(prompts, answers, strict=True):
        head = chat.token_ids(prompt)
        items.append(Encoded((*head, *chat.token_ids(text)), len(head)))
    nll = np.full(len(items), np.inf)
    with torch.inference_mode(), chat.base() if base else nullcontext():
        for batch in batches(items, chat.device, token_budget=token_budget):
            logits = chat.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
            gold = logits[:, :-1].float().log_softmax(-1).gather(2, batch.ids[:, 1:].unsqueeze(2)).squeeze(2)
            counted = batch.response[:, 1:]
            count = counted.sum(1)
            mean = -(gold * counted).sum(1) / count.clamp(min=1)
            for row, value, n in zip(batch.rows, mean.tolist(), count.tolist(), strict=True):
                if n:
                    nll[row] = value
    return nll


def coherence_limit(base_nll: NDArray[np.float64]) -> float:
    """The largest NLL (nats a token) that still counts as coherent, from the base model's own answers, (messages,).

    DataError when the base answered none of them with a word.
    """
    finite = base_nll[np.isfinite(base_nll)]
    if not len(finite):
        raise DataError("coherence: the base model answers none of the messages with a word; nothing to compare with")
    return float(np.quantile(finite, 0.95)) + MARGIN_NATS


def repetition(text: str) -> float:
    """Share of a text's runs of four words that were there before: 0 for prose, near 1 for a loop."""
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
