"""From messages to padded batches of token ids.

Contract: `encode` renders a conversation with the model's own template and appends the response's tokens, so that
the prompt's tokens are the same with and without a response. `batches` sorts by length and fills a token budget
(padding counted), so that little of a batch is padding; rows remember where they came from.

Units: tokens. `max_tokens` bounds one message; what is over it is cut from the left of the prompt first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.model.load import ChatModel, Message

# Of a cut message at least this much of the prompt's end stays, so that `last_prompt` exists.
_KEEP_PROMPT = 16
# Tokens from which a forward pass is not dominated by its fixed cost, and the share of padding that then is too much.
_WORTH_RUNNING = 256
_MOST_PADDING = 0.1


@dataclass(frozen=True)
class Encoded:
    """Token ids of one message: `ids[:n_prompt]` is the rendered prompt, the rest the response."""

    ids: tuple[int, ...]
    n_prompt: int
    truncated: bool = False


@dataclass(frozen=True)
class Batch:
    """Right-padded ids (rows, tokens) with their masks; `rows[i]` is the input index of row i."""

    ids: Tensor
    mask: Tensor
    prompt: Tensor
    response: Tensor
    rows: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())


def encode(
    chat: ChatModel,
    messages: Sequence[Message],
    response: str | None = None,
    max_tokens: int = 2048,
) -> Encoded:
    """Render and tokenise one conversation; `response` is what the model answered, if it is to be read too."""
    prompt = chat.token_ids(chat.render(messages))
    answer = chat.token_ids(response) if response else []
    if len(prompt) + len(answer) <= max_tokens:
        return Encoded(tuple(prompt + answer), len(prompt))
    kept_answer = answer[-max(1, max_tokens - _KEEP_PROMPT) :] if answer else []
    kept_prompt = prompt[max(0, len(prompt) + len(kept_answer) - max_tokens) :]
    return Encoded(tuple(kept_prompt + kept_answer), len(kept_prompt), truncated=True)


def batches(
    items: Sequence[Encoded], device: torch.device, *, token_budget: int = 2048, max_rows: int = 64
) -> Iterator[Batch]:
    """Padded batches, shortest first; a single message over the budget gets a batch of its own.

    A batch that is worth running closes before its padding passes a tenth.
    """
    order = sorted(range(len(items)), key=lambda i: len(items[i].ids))
    group: list[int] = []
    real = 0
    for i in order:
        width = len(items[i].ids)
        padded = width * (len(group) + 1)
        wasteful = real >= _WORTH_RUNNING and real + width < (1 - _MOST_PADDING) * padded
        if group and (padded > token_budget or len(group) >= max_rows or wasteful):
            yield collate([items[j] for j in group], device, group)
            group, real = [], 0
        group.append(i)
        real += width
    if group:
        yield collate([items[j] for j in group], device, group)


def collate(items: Sequence[Encoded], device: torch.device, rows: Sequence[int] | None = None) -> Batch:
    """One right-padded batch. Padding is id 0 under a mask: its value reaches no score."""
    width = max(len(x.ids) for x in items)
    ids = torch.zeros(len(items), width, dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
    length = torch.tensor([len(x.ids) for x in items]).unsqueeze(1)
    n_prompt = torch.tensor([x.n_prompt for x in items]).unsqueeze(1)
    position = torch.arange(width).unsqueeze(0)
    mask = position < length
    prompt = position < n_prompt
    return Batch(
        ids=ids.to(device),
        mask=mask.to(device),
        prompt=prompt.to(device),
        response=(mask & ~prompt).to(device),
        rows=tuple(rows if rows is not None else range(len(items))),
    )
