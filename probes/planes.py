"""Directions as the matrices that project a token's activations, one for each place where some are read.

A token's value under a direction is `(x - mu) . v / (v . v)`: 0 at the aligned mean, 1 at the misaligned mean (units:
class gaps). Directions at one site, and all heads of a block, are one matrix, so that a place costs one product:
`values = x @ weights - offsets`.

Contract: `planes(facts, directions)` gives {place: (weights (width of the place, columns), offsets (columns,))} in
float32 on the CPU, and `order`: `order[d]` is the column of direction d where the places' columns stand side by side in
the dict's order. A place is a site; that of heads is `Site("head", block)`, whose input is all heads of the block side
by side, (heads x width of a head). Any engine projects with these, and `probes.scoring` sums up what it gives. Needs no
model: `facts` is its shape (`probes.model.facts`). Raises SiteError and DirectionError for what does not fit that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from probes.capture.sites import Site, check_site, site_width
from probes.directions import Direction
from probes.errors import DirectionError
from probes.model.facts import Facts

Planes = dict[Site, tuple[Tensor, Tensor]]


def place_of(site: Site) -> Site:
    """Where a site's activations come from: heads from their block's."""
    return site if site.kind != "head" else Site("head", site.layer)


def place_width(place: Site, facts: Facts) -> int:
    """Values of one token at a place."""
    return site_width(place, facts) * (facts.heads_at(place.layer).count if place.kind == "head" else 1)


def planes(facts: Facts, directions: Sequence[Direction]) -> tuple[Planes, list[int]]:
    """See the module."""
    columns: dict[Site, list[int]] = {}
    for number, direction in enumerate(directions):
        check_site(direction.site, facts)
        width = site_width(direction.site, facts)
        if direction.vector.shape != (width,):
            raise DirectionError(
                f"direction at {direction.site}: {direction.vector.shape[0]} values, the site has {width}"
            )
        columns.setdefault(place_of(direction.site), []).append(number)
    made = {place: _plane(facts, place, [directions[n] for n in assigned]) for place, assigned in columns.items()}
    by_column = {n: column for column, n in enumerate(n for assigned in columns.values() for n in assigned)}
    return made, [by_column[number] for number in range(len(directions))]


def _plane(facts: Facts, place: Site, assigned: Sequence[Direction]) -> tuple[Tensor, Tensor]:
    width = site_width(place, facts)
    heads = place_width(place, facts) // width
    weights = np.zeros((heads, width, len(assigned)))
    offsets = np.zeros(len(assigned))
    for column, direction in enumerate(assigned):
        scaled = direction.vector / direction.norm**2
        weights[max(direction.site.head, 0), :, column] = scaled
        offsets[column] = direction.centre.dot(scaled)
    flat = weights.reshape(heads * width, len(assigned))
    return torch.tensor(flat, dtype=torch.float32), torch.tensor(offsets, dtype=torch.float32)
