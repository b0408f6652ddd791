"""From messages to padded batches of token ids.

Contract: `encode` renders a conversation with the model's own template, in a form that it takes, and appends the
response's tokens, so that the prompt's tokens are the same with and without a response. `batches` groups messages of
similar length under a token budget (padding counted); rows remember where they came from.

A conversation is read up to where the next reply starts. One that ends with a turn of the assistant is closed there,
and read up to where another reply would start.

With `spans`, each token also belongs to the turn whose own text it is (`probes.model.spans`), and `Batch.span` gives
the tokens of a span by its name: `user` are all turns of the user and of roles that are not known, `last_user` is the
last of them that has text, `system` are system and developer turns, `tool` the results of tools. A turn that the limit
cut away has no tokens; `nothing_of` says why a message has none of a span.

Units: tokens. `max_tokens`, and the positions that the model has where they are fewer, bound one message; what is over
them is cut from the left of the prompt first (`probes.capture.windows` reads the rest).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from probes.capture.aggregation import Span
from probes.capture.grouping import by_cost
from probes.errors import ProbesError
from probes.model.load import ChatModel
from probes.model.spans import PromptTokens, TurnSpan, role_of

# Of a cut message at least this much of the prompt's end stays, so that `last_prompt` exists.
KEEP_PROMPT = 16
# A cut prompt starts at a whole multiple of this share of the limit: as a conversation grows, its beginning stays.
_CUTS = 8

SPANS_NOT_KNOWN = "the tokenizer does not say where a turn's tokens are"
TURN_NOT_FOUND = "text of a turn not found among the prompt's tokens"
_ROLES: Mapping[Span, tuple[str, ...]] = {
    "user": ("user", "other"),
    "last_user": ("user", "other"),
    "system": ("system", "developer"),
    "tool": ("tool", "function"),
}


@dataclass(frozen=True)
class Encoded:
    """Token ids of one message: `ids[:n_prompt]` is the rendered prompt, the rest the response."""

    ids: tuple[int, ...]
    n_prompt: int
    truncated: bool = False
    # Whether the template took the turns as they are, and what was changed or left out (`probes.model.render`).
    rendered: Literal["template", "adapted"] = "template"
    adapted: tuple[str, ...] = ()
    # The turns' own tokens where they were asked for, in their order, and the last user turn that has text.
    turns: tuple[TurnSpan, ...] = ()
    last_user: int | None = None
    spans: Literal["not asked", "known", "not known"] = "not asked"

    def ranges(self, span: Span) -> list[TurnSpan]:
        """The turns' own tokens within a span. ProbesError where they were not asked for."""
        if self.spans == "not asked":
            raise ProbesError(f"span: {span} by its turns, and the message was encoded without them (spans=True)")
        if span == "prompt":
            return list(self.turns)
        if span == "response":
            return []
        if span == "turns":
            return list(self.turns)
        roles = _ROLES[span]
        return [t for t in self.turns if t.role in roles and (span != "last_user" or t.turn == self.last_user)]


@dataclass(frozen=True)
class Batch:
    """Right-padded ids (rows, tokens) with their masks; `rows[i]` is the input index of row i."""

    ids: Tensor
    mask: Tensor
    prompt: Tensor
    response: Tensor
    rows: tuple[int, ...]
    items: tuple[Encoded, ...] = ()
    _spans: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())

    def span(self, name: Span) -> Tensor:
        """Which tokens are of a span, (rows, tokens) bool."""
        if name == "prompt":
            return self.prompt
        if name == "response":
            return self.response
        if name not in self._spans:
            made = torch.zeros(self.ids.shape, dtype=torch.bool)
            for row, item in enumerate(self.items):
                for part in item.ranges(name):
                    made[row, part.start : part.stop] = True
                # What stands first is an attention sink, whatever token it is: its activations are many times larger
                # than all others' (arXiv 2402.17762). It is text only where a template writes nothing before it, or
                # where the start of a message is cut away.
                if made[row, 1:].any():
                    made[row, 0] = False
            self._spans[name] = made.to(self.ids.device)
        return self._spans[name]

    def turn_of(self, name: Span) -> Tensor:
        """The turn of each token of a span, (rows, tokens), and -1 where it is of none; the later one of two."""
        made = torch.full(self.ids.shape, -1)
        for row, item in enumerate(self.items):
            for part in item.ranges(name):
                made[row, part.start : part.stop] = part.turn
        made[~self.span(name).to(made.device)] = -1
        return made.to(self.ids.device)


def encode(
    chat: ChatModel,
    messages: Sequence[Mapping[str, Any]],
    response: str | None = None,
    max_tokens: int = 2048,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    spans: bool = False,
) -> Encoded:
    """Render and tokenise one conversation; `response` is what the model answered, if it is to be read too.

    `spans`: find the turns' own tokens too, which costs a second rendering.
    """
    rendered = chat.rendered(messages, tools)
    answer = chat.text_ids(response) if response else []
    limit = token_limit(chat, max_tokens)
    if not spans:
        prompt = chat.prompt_ids(rendered)
        kept_prompt, kept_answer, truncated = _fit(prompt, answer, limit)
        return Encoded(tuple(kept_prompt + kept_answer), len(kept_prompt), truncated, rendered.how, rendered.adapted)
    tokens = chat.prompt_tokens(rendered)
    return with_turns(tokens, answer, limit, last_user(messages), rendered.how, rendered.adapted)


def with_turns(
    tokens: PromptTokens,
    answer: list[int],
    limit: int,
    last: int | None,
    how: Literal["template", "adapted"],
    adapted: tuple[str, ...],
) -> Encoded:
    """A prompt whose turns were looked for, with its answer, cut to the limit; `last` is `last_user` of its message."""
    prompt, kept, truncated = _fit(tokens.ids, answer, limit)
    gone = len(tokens.ids) - len(prompt)
    turns = tuple(
        TurnSpan(t.turn, t.role, max(0, t.start - gone), t.stop - gone) for t in tokens.turns or () if t.stop > gone
    )
    if tokens.turns is None:
        adapted = (*adapted, SPANS_NOT_KNOWN)
    elif tokens.lost:
        adapted = (*adapted, TURN_NOT_FOUND)
    known: Literal["known", "not known"] = "not known" if tokens.turns is None else "known"
    return Encoded(tuple(prompt + kept), len(prompt), truncated, how, adapted, turns, last, known)


def last_user(messages: Sequence[Mapping[str, Any]]) -> int | None:
    """The last of the user's turns that has text."""
    texts = ((i, turn.get("content")) for i, turn in enumerate(messages) if role_of(turn) in _ROLES["last_user"])
    return max((i for i, text in texts if (text.strip() if isinstance(text, str) else text)), default=None)


def nothing_of(encoded: Encoded, span: Span) -> str | None:
    """Why a message has no token of a span, in closed wording; None where it has some."""
    if span in ("prompt", "response"):
        there = encoded.n_prompt if span == "prompt" else len(encoded.ids) - encoded.n_prompt
        return None if there else f"the message has no {span}"
    if encoded.ranges(span):
        return None
    if encoded.spans == "not known":
        return SPANS_NOT_KNOWN
    if TURN_NOT_FOUND in encoded.adapted:
        return TURN_NOT_FOUND
    role = "user" if span == "last_user" else span
    return f"the message has no text of a {role} turn" + (" within the limit" if encoded.truncated else "")


def _fit(prompt: list[int], answer: list[int], limit: int) -> tuple[list[int], list[int], bool]:
    if len(prompt) + len(answer) <= limit:
        return prompt, answer, False
    return *cut(prompt, answer, limit), True


def token_limit(chat: ChatModel, max_tokens: int) -> int:
    """How many tokens of a message are read at once: the setting, or the positions that the model has."""
    return min(max_tokens, chat.max_positions or max_tokens)


def cut(prompt: list[int], answer: list[int], limit: int) -> tuple[list[int], list[int]]:
    """The ends of both that are read: the prompt is cut first, but some of its end stays. It is cut in steps, so that a
    conversation that goes on begins where it did."""
    kept_answer = answer[-max(1, limit - KEEP_PROMPT) :] if answer else []
    over = max(0, len(prompt) + len(kept_answer) - limit)
    step = max(1, limit // _CUTS)
    return prompt[min(-(-over // step) * step, max(over, len(prompt) - KEEP_PROMPT)) :], kept_answer


def batches(
    items: Sequence[Encoded], device: torch.device, *, token_budget: int = 2048, max_rows: int | None = None
) -> Iterator[Batch]:
    """Padded batches, shortest first, grouped by what they cost; a message over the budget gets a batch of its own."""
    lengths = [len(item.ids) for item in items]
    for group in by_cost(lengths, budget=token_budget, max_rows=max_rows):
        yield collate([items[i] for i in group], device, group)


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
        items=tuple(items),
    )
