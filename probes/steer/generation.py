"""Greedy generation in large batches.

Contract: `generate(model, prompts)` yields one answer for each rendered prompt, in the order of the prompts. Prompts
are sorted by length, left-padded and masked by attention mask (never by token id: in some tokenizers pad is eos).
What acts on the model while it generates (an adapter, a steering context) is the caller's.

Units: `max_new_tokens` is tokens a reply. Greedy, so that a reply is repeatable on one machine; batch mates can
change a reply only through rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from probes.model.load import ChatModel
from probes.steer.steering import Steering


@dataclass(frozen=True)
class Reply:
    """A generated text; `finished` is false when it stopped at the limit."""

    text: str
    tokens: int
    finished: bool


def generate(
    chat: ChatModel,
    prompts: Sequence[str | list[int]],
    *,
    max_new_tokens: int = 40,
    batch_size: int = 50,
    steered: Steering | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Reply]:
    """Greedy replies to rendered prompts (see `ChatModel.render`), or to their token ids; `on_done(n)` is called after
    each batch of n.

    Inside a `steering` context, hand over what it yielded as `steered`, so that it knows where prompts end.
    """
    ids = [chat.token_ids(p) if isinstance(p, str) else p for p in prompts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    answers: dict[int, Reply] = {}
    for chosen in _chunks(order, batch_size):
        if steered is not None:
            steered.begin(max(len(ids[i]) for i in chosen))
        for i, result in zip(chosen, _answer_batch(chat, [ids[i] for i in chosen], max_new_tokens), strict=True):
            answers[i] = result
        on_done(len(chosen))
    return [answers[i] for i in range(len(ids))]


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _answer_batch(chat: ChatModel, ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[Reply]:
    width = max(len(x) for x in ids)
    pad = int(chat.tokenizer.pad_token_id or 0)
    tokens = torch.tensor([[pad] * (width - len(x)) + list(x) for x in ids], device=chat.device)
    mask = torch.tensor([[0] * (width - len(x)) + [1] * len(x) for x in ids], device=chat.device)
    ends = _end_ids(chat)
    generate: Any = chat.model.generate
    with torch.inference_mode(), _greedy(chat, max_new_tokens, pad, sorted(ends)):
        out = generate(input_ids=tokens, attention_mask=mask)
    results = []
    for row in out[:, width:].tolist():
        stop = next((n for n, token in enumerate(row) if token in ends), None)
        own = row if stop is None else row[:stop]
        text = chat.tokenizer.decode(own, skip_special_tokens=True).strip()
        results.append(Reply(text, len(own), stop is not None))
    return results


@contextmanager
def _greedy(chat: ChatModel, max_new_tokens: int, pad: int, ends: list[int]) -> Iterator[None]:
    """Plain greedy decoding, whatever the checkpoint's own generation config says. That one is taken away meanwhile:
    transformers fills up from it what a call leaves open (penalties, beams, forced and forbidden tokens, ...)."""
    from transformers import GenerationConfig

    base: Any = chat.model.get_base_model() if chat.adapters else chat.model  # type: ignore[operator]
    # PEFT keeps one of its own, and puts it into the model at each call.
    holders = [model for model in {id(m): m for m in (chat.model, base)}.values() if "generation_config" in vars(model)]
    own = [model.generation_config for model in holders]
    plain = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, pad_token_id=pad, eos_token_id=ends or None
    )
    for model in holders:
        model.generation_config = plain
    try:
        yield
    finally:
        for model, config in zip(holders, own, strict=True):
            model.generation_config = config


def _end_ids(chat: ChatModel) -> set[int]:
    configured: Any = getattr(getattr(chat.model, "generation_config", None), "eos_token_id", None)
    ends = set(configured) if isinstance(configured, list) else {configured}
    return {int(e) for e in ends | {chat.tokenizer.eos_token_id} if e is not None}
