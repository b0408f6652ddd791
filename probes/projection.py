"""Activations projected on directions inside the forward pass; no activation leaves the device.

A token's value under a direction is `(x - mu) . v / (v . v)`: 0 at the aligned mean, 1 at the misaligned mean (units:
class gaps). Directions at one site, and all heads of a block, are one matrix, so that a site costs one product.

Contract: `Projection(layout, directions, device)` builds the matrices once; a call runs the decoder as far as the
deepest site and gives (rows, tokens, columns) in float32, the columns grouped by site: `order[d]` is that of direction
d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.capture.sites import Observer, Site, check_site, observing, site_width
from probes.directions import Direction
from probes.errors import DirectionError
from probes.model.layout import Layout


class Projection:
    """See the module."""

    def __init__(self, layout: Layout, directions: Sequence[Direction], device: torch.device) -> None:
        self.layout = layout
        self.device = device
        columns: dict[Site, list[int]] = {}
        for number, direction in enumerate(directions):
            check_site(direction.site, layout)
            width = site_width(direction.site, layout)
            if direction.vector.shape != (width,):
                raise DirectionError(
                    f"direction at {direction.site}: {direction.vector.shape[0]} values, the site has {width}"
                )
            place = direction.site if direction.site.kind != "head" else Site("head", direction.site.layer)
            columns.setdefault(place, []).append(number)
        self._planes = {
            place: self._plane(place, [directions[n] for n in assigned]) for place, assigned in columns.items()
        }
        by_column = {n: column for column, n in enumerate(n for assigned in columns.values() for n in assigned)}
        self.order = [by_column[number] for number in range(len(directions))]

    def _plane(self, place: Site, assigned: Sequence[Direction]) -> tuple[Tensor, Tensor]:
        heads = self.layout.heads_at(place.layer).count if place.kind == "head" else 1
        width = site_width(place, self.layout)
        weights = np.zeros((heads, width, len(assigned)))
        offsets = np.zeros(len(assigned))
        for column, direction in enumerate(assigned):
            scaled = direction.vector / direction.norm**2
            weights[max(direction.site.head, 0), :, column] = scaled
            offsets[column] = direction.centre.dot(scaled)
        flat = weights.reshape(heads * width, len(assigned))
        return (
            torch.tensor(flat, dtype=torch.float32, device=self.device),
            torch.tensor(offsets, dtype=torch.float32, device=self.device),
        )

    def _plane_on(self, place: Site, device: torch.device) -> tuple[Tensor, Tensor]:
        """A site's matrices on the device where its block computes: of several, it is not that of the first block."""
        weights, offsets = self._planes[place]
        if weights.device != device:
            self._planes[place] = weights, offsets = weights.to(device), offsets.to(device)
        return weights, offsets

    @torch.inference_mode()
    def __call__(self, ids: Tensor, mask: Tensor | None, **others: Any) -> Tensor:
        """Values of (rows, tokens) ids; `others` are further arguments of the decoder."""
        values: dict[Site, Tensor] = {}

        def observer(place: Site) -> Observer:
            def observe(x: Tensor) -> None:
                weights, offsets = self._plane_on(place, x.device)
                flat = x.flatten(2) if place.kind == "head" else x
                values[place] = (flat.to(weights.dtype) @ weights - offsets).to(self.device)

            return observe

        with observing(self.layout, {place: observer(place) for place in self._planes}) as run:
            run(input_ids=ids, attention_mask=mask, **others)
        made = [values[place] for place in self._planes]
        return made[0] if len(made) == 1 else torch.cat(made, 2)
