"""Scores of messages under probes: one prefill, no language-model head, no activation leaves the device.

A token's value under a direction (`probes.planes`) is 0 at the aligned mean and 1 at the misaligned mean (units:
class gaps). Values are summed up by the probe's aggregation (`probes.capture.aggregation`).

Several directions (heads, or blocks) become one score by their `mean`, taken token by token, or by their `max`: each
direction's score is put into the units of benign messages, `(score - mean) / deviation` by `standard`, and the highest
counts.

Contract: `Scorer(layout, readers, device)` builds the matrices once; `scorer(batch)` gives the scores of its rows, each
with the number of tokens that it was read from, and with `turns` what each turn of the message gave by itself;
`Arithmetic(readers, order)(values, batch)` is its second half, for values that are there already, of any engine. Where
a span has no token the score is NaN and the count 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Batch, Encoded, batches
from probes.directions import Direction
from probes.errors import DirectionError
from probes.model.layout import Layout
from probes.model.load import ChatModel
from probes.projection import Projection

# The turns of one message with what each of them gave: (turn, score).
TurnScores = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Reader:
    """What one score is made of: directions, how their tokens are summed up, and how the directions are combined.

    `standard` holds mean and deviation of each direction's score over benign messages; without it a maximum takes the
    scores as they are.
    """

    directions: tuple[Direction, ...]
    aggregation: Aggregation
    combine: Literal["mean", "max"] = "mean"
    standard: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        if self.combine not in ("mean", "max"):
            raise DirectionError(f"combine: {self.combine!r} is none of mean, max")
        if self.standard is None:
            return
        if self.combine == "mean":
            raise DirectionError("standard: only a maximum over directions is taken of standardised scores")
        if len(self.standard) != len(self.directions):
            raise DirectionError(f"standard: {len(self.standard)} pairs for {len(self.directions)} directions")
        if not all(math.isfinite(mean) and 0 < deviation < math.inf for mean, deviation in self.standard):
            raise DirectionError("standard: each pair is a finite mean and a deviation above 0 of benign scores")

    def combined(self, parts: Tensor) -> Tensor:
        """One score from the directions' own, (..., directions) -> (...)."""
        if self.combine == "mean":
            return parts.mean(-1)
        if self.standard is not None:
            mean, deviation = torch.tensor(self.standard, dtype=parts.dtype, device=parts.device).unbind(1)
            parts = (parts - mean) / deviation
        return parts.amax(-1)


@dataclass(frozen=True)
class Scores:
    """`total` (rows, readers) and `parts[r]` (rows, directions of reader r), for head maps, in float32 on the CPU.

    `counts` (rows, readers) is how many tokens of the reader's span a row has. `turns[r][row]`, where asked for, are
    the turns that the span is made of, each with its score: for a maximum the highest window that ends in the turn (a
    turn in which none ends is left out), else the aggregate of the turn's tokens alone.
    """

    total: Tensor
    parts: list[Tensor]
    counts: Tensor
    turns: list[list[TurnScores]] | None = None


class Arithmetic:
    """Scores from the tokens' values, of whatever engine: `order[d]` is the column of the readers' direction d, as
    `probes.planes` gives it. Pure: no model, nothing kept."""

    def __init__(self, readers: Sequence[Reader], order: Sequence[int]) -> None:
        self.readers = tuple(readers)
        self.columns = len(order)
        places, first = [], 0
        for reader in self.readers:
            places.append(list(order[first : first + len(reader.directions)]))
            first += len(reader.directions)
        # A run of neighbours is a slice, which copies nothing.
        self._columns = [slice(p[0], p[-1] + 1) if p == list(range(p[0], p[-1] + 1)) else p for p in places]

    @torch.inference_mode()
    def __call__(self, values: Tensor, batch: Batch, *, turns: bool = False) -> Scores:
        """Scores of a batch from its tokens' values, (rows, tokens, columns)."""
        tokens = [values[:, :, columns] for columns in self._columns]
        read = [self._read(r, x, batch) for r, x in enumerate(tokens)]
        total = torch.stack([score for score, _ in read], dim=1)
        counts = torch.stack([batch.span(r.aggregation.span).sum(1) for r in self.readers], dim=1)
        by_turn = [self._turns(r, x, batch) for r, x in enumerate(tokens)] if turns else None
        return Scores(total.cpu(), [parts.cpu() for _, parts in read], counts.cpu(), by_turn)

    def _read(self, r: int, tokens: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """One reader's score (rows,) and its directions' scores (rows, directions)."""
        reader = self.readers[r]
        span = batch.span(reader.aggregation.span)
        parts = reader.aggregation(tokens, span)
        if not self._mean_first(r):
            return reader.combined(parts), parts
        return reader.aggregation(tokens.mean(2, keepdim=True), span)[:, 0], parts

    def _mean_first(self, r: int) -> bool:
        # Maxima do not commute with the average over directions: it is taken of the tokens.
        reader = self.readers[r]
        return len(reader.directions) > 1 and reader.combine == "mean" and reader.aggregation.is_maximum

    def _turns(self, r: int, tokens: Tensor, batch: Batch) -> list[TurnScores]:
        reader = self.readers[r]
        if self._mean_first(r):
            tokens = tokens.mean(2, keepdim=True)
        turn = batch.turn_of(reader.aggregation.span)
        parts, there = reader.aggregation.by_turn(tokens, batch.span(reader.aggregation.span), turn)
        scores, known = reader.combined(parts).tolist(), there.tolist()
        return [
            tuple((t, score) for t, (score, known) in enumerate(zip(*row, strict=True)) if known)
            for row in zip(scores, known, strict=True)
        ]


class Scorer:
    """Scores under all readers from one forward pass. `columns` is how many values each token gives."""

    def __init__(self, layout: Layout, readers: Sequence[Reader], device: torch.device) -> None:
        self.readers = tuple(readers)
        self.projection = Projection(layout, directions_of(readers), device)
        self.arithmetic = Arithmetic(readers, self.projection.order)

    @property
    def columns(self) -> int:
        return self.arithmetic.columns

    def __call__(self, batch: Batch, *, turns: bool = False) -> Scores:
        """Run the decoder over the batch as far as the deepest site and return the scores."""
        return self.scores(self.projection(batch.ids, batch.mask), batch, turns=turns)

    def scores(self, values: Tensor, batch: Batch, *, turns: bool = False) -> Scores:
        """Scores of a batch from its tokens' values, (rows, tokens, columns): arithmetic alone, no model."""
        return self.arithmetic(values, batch, turns=turns)


def directions_of(readers: Sequence[Reader]) -> list[Direction]:
    """The directions of all readers, in their order."""
    return [direction for reader in readers for direction in reader.directions]


def all_scores(
    chat: ChatModel,
    items: Sequence[Encoded],
    readers: Sequence[Reader],
    on_done: Callable[[int], None] = lambda _: None,
    *,
    turns: bool = False,
) -> Scores:
    """Scores of many messages, their rows in the order of `items`."""
    scorer = Scorer(chat.layout, readers, chat.device)
    total = torch.empty(len(items), len(readers))
    parts = [torch.empty(len(items), len(reader.directions)) for reader in readers]
    counts = torch.zeros(len(items), len(readers), dtype=torch.long)
    by_turn: list[list[TurnScores]] = [[()] * len(items) for _ in readers]
    for batch in batches(items, chat.device):
        rows, scores = list(batch.rows), scorer(batch, turns=turns)
        total[rows], counts[rows] = scores.total, scores.counts
        for r in range(len(readers)):
            parts[r][rows] = scores.parts[r]
            for position, row in enumerate(rows if turns else ()):
                by_turn[r][row] = scores.turns[r][position] if scores.turns is not None else ()
        on_done(len(rows))
    return Scores(total, parts, counts, by_turn if turns else None)


def score_all(
    chat: ChatModel,
    items: Sequence[Encoded],
    readers: Sequence[Reader],
    on_done: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Scores of many messages, (messages, readers), in the order of `items`."""
    scores: NDArray[np.float32] = all_scores(chat, items, readers, on_done).total.numpy()
    return scores
