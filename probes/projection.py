"""Activations projected on directions inside the forward pass; no activation leaves the device.

Contract: `Projection(layout, directions, device)` builds the matrices (`probes.planes`) once; a call runs the decoder
as far as the deepest site and gives (rows, tokens, columns) in float32, the columns grouped by site: `order[d]` is that
of direction d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probes.capture.sites import Observer, Site, observing
from probes.directions import Direction
from probes.model.layout import Layout
from probes.planes import planes


class Projection:
    """See the module."""

    def __init__(self, layout: Layout, directions: Sequence[Direction], device: torch.device) -> None:
        self.layout = layout
        self.device = device
        made, self.order = planes(layout, directions)
        self._planes = {place: (weights.to(device), offsets.to(device)) for place, (weights, offsets) in made.items()}

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
