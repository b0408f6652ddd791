"""Scores of messages under probes: one prefill, no language-model head, no activation leaves the device.

A token's value under a direction is `(x - mu) . v / (v . v)`: 0 at the aligned mean, 1 at the misaligned mean (units:
class gaps). A probe with several directions (head-level) averages their values. Values are summed up by the probe's
aggregation (`probes.capture.aggregation`).

Contract: `Scorer(layout, readers, device)` builds the matrices once; `scorer(batch)` gives (rows, readers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Batch, Encoded, batches
from probes.capture.sites import Observer, Site, check_site, observing, site_width
from probes.directions import Direction
from probes.errors import DirectionError
from probes.model.layout import Layout
from probes.model.load import ChatModel


@dataclass(frozen=True)
class Reader:
    """What one score is made of: directions (one, or one a head) and how tokens are summed up."""

    directions: tuple[Direction, ...]
    aggregation: Aggregation


@dataclass(frozen=True)
class Scores:
    """`total` (rows, readers); `parts[r]` (rows, directions of reader r), for head maps. Float32, on the CPU."""

    total: Tensor
    parts: list[Tensor]


class Scorer:
    """Projects activations on all readers' directions inside the forward pass."""

    def __init__(self, layout: Layout, readers: Sequence[Reader], device: torch.device) -> None:
        self.readers = tuple(readers)
        self._layout = layout
        columns: dict[Site, list[tuple[int, int, Direction]]] = {}
        for r, reader in enumerate(self.readers):
            for d, direction in enumerate(reader.directions):
                check_site(direction.site, layout)
                width = site_width(direction.site, layout)
                if direction.vector.shape != (width,):
                    raise DirectionError(
                        f"direction at {direction.site}: {direction.vector.shape[0]} values, the site has {width}"
                    )
                place = direction.site if direction.site.kind != "head" else Site("head", direction.site.layer)
                columns.setdefault(place, []).append((r, d, direction))
        self._planes = {place: self._plane(place, assigned, device) for place, assigned in columns.items()}
        # Where each reader's directions ended up: (place, column), in the reader's order.
        where = {(r, d): (place, c) for place, assigned in columns.items() for c, (r, d, _) in enumerate(assigned)}
        self._columns = [[where[r, d] for d in range(len(x.directions))] for r, x in enumerate(self.readers)]

    def _plane(
        self, place: Site, assigned: list[tuple[int, int, Direction]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        heads = self._layout.n_heads if place.kind == "head" else 1
        width = site_width(place, self._layout)
        weights = np.zeros((heads, width, len(assigned)))
        offsets = np.zeros(len(assigned))
        for column, (_, _, direction) in enumerate(assigned):
            scaled = direction.vector / direction.norm**2
            weights[max(direction.site.head, 0), :, column] = scaled
            offsets[column] = direction.centre.dot(scaled)
        flat = weights.reshape(heads * width, len(assigned))
        return (
            torch.tensor(flat, dtype=torch.float32, device=device),
            torch.tensor(offsets, dtype=torch.float32, device=device),
        )

    def __call__(self, batch: Batch) -> Scores:
        """Run the decoder over the batch as far as the deepest site and return the scores."""
        values: dict[Site, Tensor] = {}

        def observer(place: Site) -> Observer:
            weights, offsets = self._planes[place]

            def observe(x: Tensor) -> None:
                flat = x.flatten(2) if place.kind == "head" else x
                values[place] = flat.to(weights.dtype) @ weights - offsets

            return observe

        with (
            torch.inference_mode(),
            observing(self._layout, {place: observer(place) for place in self._planes}) as run,
        ):
            run(input_ids=batch.ids, attention_mask=batch.mask)
            read = [self._read(r, values, batch) for r in range(len(self.readers))]
            total = torch.stack([score for score, _ in read], dim=1)
        return Scores(total.cpu(), [parts.cpu() for _, parts in read])

    def _read(self, r: int, values: dict[Site, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """One reader's score (rows,) and its directions' scores (rows, directions)."""
        aggregation = self.readers[r].aggregation
        span = batch.prompt if aggregation.span == "prompt" else batch.response
        tokens = torch.stack([values[place][:, :, c] for place, c in self._columns[r]], dim=2)
        parts = aggregation(tokens, span)
        if len(self._columns[r]) == 1 or aggregation.kind in ("last", "mean"):
            return parts.mean(1), parts
        # Maxima do not commute with the average over heads: average the tokens first.
        return aggregation(tokens.mean(2, keepdim=True), span)[:, 0], parts


def score_all(
    chat: ChatModel,
    items: Sequence[Encoded],
    readers: Sequence[Reader],
    on_done: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Scores of many messages, (messages, readers), in the order of `items`."""
    scorer = Scorer(chat.layout, readers, chat.device)
    scores = np.empty((len(items), len(readers)), dtype=np.float32)
    for batch in batches(items, chat.device):
        scores[list(batch.rows)] = scorer(batch).total.numpy()
        on_done(len(batch.rows))
    return scores
