"""The benchmark's traffic: chat messages of 8 to 512 tokens made from our own everyday messages, in arrival order.

Contract: `arrivals(chat, n)` is the same list every time. Lengths are the n mid-quantiles of a log-normal (median 24
tokens, sigma 1.3) cut to 8..512, so that 12 messages have the shape of 60; a seeded shuffle makes them arrive in no
order. A message of L tokens is everyday messages joined with spaces and cut there; the chat template comes on top (30
tokens for SmolLM2), and decoding and encoding again may move a length by a token.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from statistics import NormalDist

import torch

from probes.capture.batches import Batch, Encoded, collate, encode
from probes.model.load import ChatModel, user_message
from probes.organisms.messages import everyday

_MEDIAN, _SIGMA, _SHORTEST, _LONGEST = 24, 1.3, 8, 512
_SEED = 20260101


def lengths(n: int) -> list[int]:
    """Tokens of each message before the template, in arrival order."""
    normal = NormalDist()
    drawn = [_MEDIAN * math.exp(_SIGMA * normal.inv_cdf((i + 0.5) / n)) for i in range(n)]
    cut = [min(_LONGEST, max(_SHORTEST, round(x))) for x in drawn]
    random.Random(_SEED).shuffle(cut)
    return cut


def arrivals(chat: ChatModel, n: int) -> list[Encoded]:
    """`n` rendered and tokenised messages in arrival order."""
    texts = cycle(everyday("fit"))
    return [encode(chat, user_message(_text(chat, texts, length))) for length in lengths(n)]


def _text(chat: ChatModel, texts: Iterator[str], length: int) -> str:
    ids: list[int] = []
    joined: list[str] = []
    while len(ids) < length:
        joined.append(next(texts))
        ids = chat.token_ids(" ".join(joined))
    text: str = chat.tokenizer.decode(ids[:length])
    return text


def padded_batches(items: Sequence[Encoded], device: torch.device, size: int = 8) -> list[Batch]:
    """Research code's batches: `size` messages as they arrive, padded to the longest."""
    starts = range(0, len(items), size)
    return [collate(items[i : i + size], device, range(i, min(i + size, len(items)))) for i in starts]


def short_prompts(chat: ChatModel, n: int) -> list[str]:
    """The `n` shortest everyday messages, rendered."""
    return [chat.render(user_message(text)) for text in sorted(everyday("fit"), key=len)[:n]]
