"""Scores of conversations as the worker gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.batches import encode
from probes.card import Probe
from probes.model.load import ChatModel
from probes.scoring import score_all


@dataclass(frozen=True)
class Conversation:
    """A message: its turns, what was answered where that is to be read, and the tools that it names."""

    turns: Sequence[Mapping[str, Any]]
    response: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None


def score_conversations(
    chat: ChatModel,
    probes: Sequence[Probe],
    conversations: Sequence[Conversation],
    *,
    max_tokens: int = 2048,
    max_windows: int = 8,
    on_done: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Scores (conversations, probes) in class gaps; NaN where a probe's span is empty."""
    reads_response = any(p.aggregation.span == "response" for p in probes)
    items = [
        encode(chat, c.turns, c.response if reads_response else None, max_tokens, tools=c.tools) for c in conversations
    ]
    return score_all(chat, items, [p.reader for p in probes], on_done).astype(np.float64)
