"""awry's own rows: the bare decoder, one probe at `final`, probes on all heads, and steered generation.

Units: what is counted is real tokens; for generation, tokens that were generated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from benchmarks.paths import Path, Probes, Reading
from probes.capture.aggregation import parse_aggregation
from probes.capture.batches import Batch
from probes.capture.sites import Site
from probes.directions import Direction
from probes.model.load import ChatModel
from probes.scoring import Reader, Scorer
from probes.steer.generation import generate
from probes.steer.steering import Intervention, steering

_STEERED_BLOCK = 20


def bare(chat: ChatModel, key: str, name: str) -> Path:
    """The decoder without the language-model head; nothing is read."""

    def step(batch: Batch) -> Reading:
        with torch.inference_mode():
            chat.layout.decoder(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
        return Reading()

    return Path(key, name, step)


def awry_final(chat: ChatModel, probes: Probes) -> Path:
    """One probe of one direction at `final`."""
    reader = Reader((probes.final,), parse_aggregation("last_prompt"))
    scorer = Scorer(chat.layout, [reader], chat.device)

    def step(batch: Batch) -> Reading:
        return Reading(final=scorer(batch).total[:, 0])

    return Path("a", "awry, one probe at final", step, scores=True)


def awry_heads(chat: ChatModel, probes: Probes) -> Path:
    """All heads as one probe, and `final`: what the research rows read, and as deep a forward pass as the bare one."""
    last = parse_aggregation("last_prompt")
    scorer = Scorer(chat.layout, [Reader((probes.final,), last), Reader(probes.heads, last)], chat.device)
    n_blocks, n_heads = chat.layout.n_blocks, chat.layout.n_heads

    def step(batch: Batch) -> Reading:
        scores = scorer(batch)
        return Reading(scores.parts[0][:, 0], scores.parts[1].view(-1, n_blocks, n_heads))

    return Path("b", f"awry, probes at final and all {n_blocks * n_heads} heads", step, scores=True)


@contextmanager
def _no_early_end(chat: ChatModel, new_tokens: int) -> Iterator[None]:
    config: Any = chat.model.generation_config
    before = config.min_new_tokens
    config.min_new_tokens = new_tokens
    try:
        yield
    finally:
        config.min_new_tokens = before


class Generation:
    """Tokens/s of `probes.steer.generation.generate`, plain and with a random direction ablated at one block."""

    def __init__(self, chat: ChatModel, prompts: Sequence[str], new_tokens: int) -> None:
        self._chat, self._prompts, self._new_tokens = chat, list(prompts), new_tokens
        width = chat.layout.width
        vector = np.random.default_rng(11).standard_normal(width)
        direction = Direction(Site("residual", _STEERED_BLOCK), vector, np.zeros(width), 1.0)
        self._intervention = Intervention(direction, "ablate")
        self.relative_change = 0.0

    def plain(self) -> float:
        """Tokens/s without steering."""
        return self._timed(steered=False)

    def steered(self) -> float:
        """Tokens/s with it."""
        return self._timed(steered=True)

    def _timed(self, *, steered: bool) -> float:
        with _no_early_end(self._chat, self._new_tokens):
            started = time.perf_counter()
            if steered:
                with steering(self._chat, [self._intervention]) as state:
                    answers = generate(self._chat, self._prompts, max_new_tokens=self._new_tokens, steered=state)
            else:
                answers = generate(self._chat, self._prompts, max_new_tokens=self._new_tokens)
            seconds = time.perf_counter() - started
        if steered:
            self.relative_change = state.relative_change
        tokens = sum(a.tokens for a in answers)
        assert tokens == len(self._prompts) * self._new_tokens, "a generation stopped early"
        return tokens / seconds
