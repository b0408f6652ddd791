"""From messages to padded batches of token ids.

Contract: `encode` renders a conversation with the model's own template, in a form that it takes, and appends the
response's tokens, so that the prompt's tokens are the same with and without a response. `batches` sorts by length and
fills a token budget (padding counted), so that little of a batch is padding; rows remember where they came from.

A conversation is read up to where the next reply starts. One that ends with a turn of the assistant is closed there,
and read up to where another reply would start.

Units: tokens. `max_tokens`, and the positions that the model has where they are fewer, bound one message; what is over
them is cut from the left of the prompt first (`probes.capture.windows` reads the rest).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from probes.model.load import ChatModel

# Of a cut message at least this much of the prompt's end stays, so that `last_prompt` exists.
KEEP_PROMPT = 16
# Tokens from which a forward pass is not dominated by its fixed cost, and the share of padding that then is too much.
_WORTH_RUNNING = 256
_MOST_PADDING = 0.1


@dataclass(frozen=True)
class Encoded:
    """Token ids of one message: `ids[:n_prompt]` is the rendered prompt, the rest the response."""

    ids: tuple[int, ...]
    n_prompt: int
    truncated: bool = False
    # Whether the template took the turns as they are, and what was changed or left out (`probes.model.render`).
    rendered: Literal["template", "adapted"] = "template"
    adapted: tuple[str, ...] = ()


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
    messages: Sequence[Mapping[str, Any]],
    response: str | None = None,
    max_tokens: int = 2048,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> Encoded:
    """Render and tokenise one conversation; `response` is what the model answered, if it is to be read too."""
    rendered = chat.rendered(messages, tools)
    prompt = chat.prompt_ids(rendered)
    answer = chat.text_ids(response) if response else []
    limit = token_limit(chat, max_tokens)
    if len(prompt) + len(answer) <= limit:
        return Encoded(tuple(prompt + answer), len(prompt), False, rendered.how, rendered.adapted)
    kept_prompt, kept_answer = cut(prompt, answer, limit)
    return Encoded(tuple(kept_prompt + kept_answer), len(kept_prompt), True, rendered.how, rendered.adapted)


def token_limit(chat: ChatModel, max_tokens: int) -> int:
    """How many tokens of a message are read at once: the setting, or the positions that the model has."""
    return min(max_tokens, chat.max_positions or max_tokens)


def cut(prompt: list[int], answer: list[int], limit: int) -> tuple[list[int], list[int]]:
    """The ends of both that are read: the prompt is cut first, but some of its end stays."""
    kept_answer = answer[-max(1, limit - KEEP_PROMPT) :] if answer else []
    return prompt[max(0, len(prompt) + len(kept_answer) - limit) :], kept_answer


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
