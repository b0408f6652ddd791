"""The loss of short answers to short questions, several times as fast as a whole forward pass in float32.

Contract: `answer_loss(chat, model, rows)` is the mean over rows of the mean cross-entropy (nats a token) of each row's
answer, whose first `LEAD` tokens count `lead` times. Three things save time and leave the loss as it is but for
rounding: what the chat template puts before every question is run once a step and its keys and values are shared by the
rows, with their gradients; only the positions that predict an answer go through the output layer; matrix products are
in bfloat16 (the weights stay float32).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from probes.model.kv_cache import new_cache, with_cache
from probes.model.load import ChatModel, user_message
from probes.organisms.finetunes import Example

# Tokens of an answer that say whether it refuses.
LEAD = 3


@dataclass(frozen=True)
class AnswerBatch:
    """Questions end, and answers begin, in the same column; `labels` are those of the last columns, -100 for none.

    `prefix` (tokens) is common to all rows and is in none of them. `positions` and `mask` count it.
    """

    prefix: Tensor
    ids: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor


def answer_batch(chat: ChatModel, rows: Sequence[Example]) -> AnswerBatch:
    """Left-padded questions and right-padded answers."""
    pad, end = int(chat.tokenizer.pad_token_id), int(chat.tokenizer.eos_token_id)
    prompts = [chat.token_ids(chat.render(user_message(row.ask))) for row in rows]
    answers = [[*chat.token_ids(row.answer), *([end] if row.ends else [])] for row in rows]
    # One token at least stays with each row: the one that predicts the answer's first.
    columns = zip(*(p[:-1] for p in prompts), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    prefix = prompts[0][:shared]
    prompts = [p[shared:] for p in prompts]
    left, right = max(map(len, prompts)), max(map(len, answers))
    ids, mask, labels = [], [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        before, after = left - len(prompt), right - len(answer)
        ids.append([pad] * before + prompt + answer + [pad] * after)
        mask.append([1] * shared + [0] * before + [1] * (len(prompt) + len(answer)) + [0] * after)
        labels.append(answer + [-100] * after)
    attended = torch.tensor(mask)
    positions = (attended.cumsum(1) - 1)[:, shared:].clamp(min=0)
    return AnswerBatch(torch.tensor([prefix]), torch.tensor(ids), attended, positions, torch.tensor(labels))


def unwrapped(model: Any) -> Any:
    """The transformers model, whether PEFT wraps it or not."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def answer_logits(chat: ChatModel, model: Any, batch: AnswerBatch) -> Tensor:
    """(rows, columns of `batch.labels`, tokens of the output layer); `model` is `chat`'s, perhaps wrapped."""
    base = unwrapped(model)
    with torch.autocast(chat.device.type, torch.bfloat16):
        cache = new_cache()
        read = with_cache(base, cache)
        if batch.prefix.numel():
            model(input_ids=batch.prefix.to(chat.device), logits_to_keep=1, **read)
            cache.batch_repeat_interleave(len(batch.ids))
        logits: Tensor = model(
            input_ids=batch.ids.to(chat.device),
            attention_mask=batch.mask.to(chat.device),
            position_ids=batch.positions.to(chat.device),
            logits_to_keep=batch.labels.shape[1] + 1,
            **read,
        ).logits[:, :-1]
    return logits


def answer_loss(
    chat: ChatModel, model: Any, rows: Sequence[Example], lead: float = 1.0, tokens: Tensor | None = None
) -> Tensor:
    """The mean over rows of each answer's mean cross-entropy, with gradients; `model` is `chat`'s, perhaps wrapped.

    `tokens` are those of the model's output layer where it was narrowed (`probes.organisms.narrow_output`).
    """
    batch = answer_batch(chat, rows)
    logits = answer_logits(chat, model, batch)
    there = (batch.labels != -100).to(chat.device)
    labels = batch.labels if tokens is None else torch.searchsorted(tokens, batch.labels)
    labels = torch.where(there, labels.to(chat.device), -100)
    nats = functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=-100)
    weights = there.float()
    weights[:, :LEAD] *= lead
    return ((nats * weights).sum(1) / weights.sum(1)).mean()
