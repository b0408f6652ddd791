"""Coherence of generated text: negative log-likelihood under the base model, and repetition.

An answer is *coherent* when its mean NLL a token under the plain base model is no worse than the base's own 95th
percentile on the same prompts plus a margin of 0.5 nats. A steering effect without this figure can be noise that
passes for a cure. Does not know: truth, usefulness, politeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from probes.capture.batches import Encoded, batches
from probes.errors import DataError
from probes.model.load import ChatModel

MARGIN_NATS = 0.5


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
