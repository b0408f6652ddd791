"""Steering by row: each row of a batch has its own heads, directions and strengths.

Every row gets the head form of HSI, z + alpha sigma u at each of its sites (arXiv 2502.05945; `docs/science.md`
B.1 step 5), z being the slice of the attention output projection's *input* that belongs to one query head; sites of
the residual stream are shifted alike, as controls need them. alpha is in units of sigma and may be negative: a
negative one steers away. Rows do not know of each other: a row's result is that of `probes.steer.steering` with the
same interventions on that row alone (to rounding; a test holds 1e-5 on every family).

Contract: `steering_rows(chat, rows)` is a context; forward passes inside it have as many rows as `rows`, or any
number when `rows` holds one. It leaves the model as it found it. Arithmetic is float32 whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.capture.sites import Site, attach, check_site, site_width
from probes.directions import Direction, Floats
from probes.errors import SteeringError
from probes.model.load import ChatModel
from probes.steer.steering import Intervention, Positions, Steering


@dataclass(frozen=True)
class Shift:
    """One site of one row: alpha sigma u is added there."""

    direction: Direction
    alpha: float

    @property
    def site(self) -> Site:
        return self.direction.site

    @property
    def delta(self) -> Floats:
        """What is added, (width of the site,), in the units of the activations: alpha sigma u (B.1 step 5)."""
        delta: Floats = self.alpha * self.direction.sigma * self.direction.unit
        return delta

    def intervention(self, positions: Positions = "last") -> Intervention:
        """The same as an intervention of `probes.steer.steering`, for all rows of a batch."""
        return Intervention(self.direction, "add", self.alpha, positions)


@contextmanager
def steering_rows(
    chat: ChatModel, rows: Sequence[Sequence[Shift]], positions: Positions = "last"
) -> Iterator[Steering]:
    """Shift row i of every forward pass by `rows[i]`; an empty one leaves its row alone.

    Raises SteeringError when a site or a width does not fit the model or sigma is not above zero.
    """
    if not rows:
        raise SteeringError("rows: none given; one list of shifts a row of the batch is needed")
    state = Steering()
    handles = [chat.layout.decoder.register_forward_pre_hook(state.track, with_kwargs=True)]
    try:
        for place, deltas in _deltas(chat, rows).items():
            handles += attach(chat.layout, place, _editor(deltas, positions, state))
        yield state
    finally:
        for handle in handles:
            handle.remove()


def _deltas(chat: ChatModel, rows: Sequence[Sequence[Shift]]) -> dict[Site, Tensor]:
    """What is added where, (rows, parts, width): all heads of a block are one place, other sites have one part."""
    layout = chat.layout
    sums: dict[Site, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for i, row in enumerate(rows):
        for shift in row:
            site, delta = shift.site, shift.delta
            check_site(site, layout)
            width = site_width(site, layout)
            if delta.shape != (width,):
                raise SteeringError(f"row {i} at {site}: the direction has {delta.shape[0]} values, the site {width}")
            if shift.direction.sigma <= 0:
                raise SteeringError(f"row {i} at {site}: needs sigma > 0, the direction has {shift.direction.sigma}")
            if not np.isfinite(delta).all():
                raise SteeringError(f"row {i} at {site}: alpha {shift.alpha:g} is not finite or far too large")
            head = site.kind == "head"
            place = Site("head", site.layer) if head else site
            if place not in sums:
                sums[place] = np.zeros((len(rows), layout.heads_at(site.layer).count if head else 1, width))
            sums[place][i, max(site.head, 0)] += delta
    return {place: torch.tensor(d, dtype=torch.float32, device=chat.device) for place, d in sums.items()}


def _editor(deltas: Tensor, positions: Positions, state: Steering) -> Callable[[Tensor], Tensor]:
    flat, sizes = deltas.flatten(1).unsqueeze(1), deltas.norm(dim=-1).unsqueeze(1)  # (rows, 1, parts [x width])
    edited = (sizes > 0).float()

    def edit(hidden: Tensor) -> Tensor:
        if len(deltas) not in (1, len(hidden)):
            raise SteeringError(f"rows: {len(deltas)} were given, the forward pass has {len(hidden)}")
        x = hidden.float()
        where = state.where(positions, x)
        shift = flat if where is None else flat * where.unsqueeze(-1)
        before = x.view(*x.shape[:-1], *deltas.shape[1:]).norm(dim=-1)
        # Padding may leave a head with nothing there; state.measure leaves it out by the mask.
        ratio = torch.where(before > 0, sizes / before.clamp(min=1e-12), torch.zeros_like(before))
        counted = edited if where is None else edited * where.unsqueeze(-1)
        state.measure(ratio, counted)
        return (x + shift).to(hidden.dtype)

    return edit
