"""Interventions: subtract, ablate or add a direction while the model runs, and leave it as it was found.

With a raw direction v at a site, u = v/|v|, mu the aligned mean and sigma the spread of projections:

- `subtract`: h - a v (emergent-misalignment directions, arXiv 2606.20225; `docs/science.md` A.1 step 5)
- `ablate`:   h - ((h - mu) . u) u, the default: the centred projection is removed, the strength a scales it
- `add`:      h + a sigma u (the head form of HSI, arXiv 2502.05945; `docs/science.md` B.1 step 5)

Positions are `all` (every prompt and answer token) or `last` (the last prompt token and every generated one), with
and without a KV cache alike. Arithmetic is float32 whatever the model's dtype. `Steering.relative_change` reports
|delta| / |h| over the positions that were changed.

Does not know: left or right padding for `last`. `begin(prompt_width)` says where prompts end: one index for all rows,
as in left-padded generation, or one a row. Many interventions in one forward pass: `probes.heads.row_steering`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from probes.capture.sites import attach, check_site, site_width
from probes.directions import Direction, Floats
from probes.errors import SteeringError
from probes.model.kv_cache import cache_of, tokens_held
from probes.model.load import ChatModel

Mode = Literal["subtract", "ablate", "add"]
Positions = Literal["all", "last"]


@dataclass(frozen=True)
class Intervention:
    """One direction, how it acts, where in the text and how strongly.

    `along` (a unit vector) makes it a norm-matched control: at every token the same amount as without it, pushed along
    another vector. In mode `ablate` too, where the amount differs from token to token.
    """

    direction: Direction
    mode: Mode = "ablate"
    strength: float = 1.0
    positions: Positions = "all"
    along: Floats | None = None

    def __str__(self) -> str:
        return f"{self.mode} x{self.strength:g} at {self.direction.site}, positions {self.positions}"


@dataclass
class Steering:
    """What an active intervention knows: where it is in the text, and how much it changed."""

    prompt_width: int | Sequence[int] | None = None
    calls: int = 0
    _start: int = 0
    _seen: int = 0
    _mask: Tensor | None = None
    _changed: Tensor | None = None

    def begin(self, prompt_width: int | Sequence[int]) -> None:
        """A new batch whose prompts end after `prompt_width` tokens, one number or one a row; for positions `last`."""
        self.prompt_width = prompt_width
        self._seen = 0

    def track(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pre-hook of the decoder: how many tokens its cache holds, and which of its input are padding."""
        cache = cache_of(kwargs)
        held = 0 if cache is None else tokens_held(cache)
        # A state does not know how many tokens went into it.
        self._start = self._seen if held is None else held
        given = kwargs.get("input_ids", kwargs.get("inputs_embeds")) if not args else args[0]
        self._seen = self._start + (given.shape[1] if given is not None else 0)
        mask = kwargs.get("attention_mask")
        self._mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self.calls += 1

    def where(self, positions: Positions, x: Tensor) -> Tensor | None:
        """Which positions of x (rows, tokens, ...) are edited, (1 or rows, tokens); None for all of them."""
        if positions == "all":
            return None
        if self.prompt_width is None:
            raise SteeringError("positions `last` need the prompt's width: call begin(prompt_width) first")
        at = (self._start + torch.arange(x.shape[1], device=x.device)).unsqueeze(0)
        width = self.prompt_width
        ends = width if isinstance(width, int) else torch.tensor(width, device=x.device).unsqueeze(1)
        return (at >= ends - 1).to(x.dtype)

    def measure(self, ratio: Tensor, counted: Tensor) -> None:
        """Add |delta| / |h| of some vectors, with what each counts: both (rows, tokens) or (rows, tokens, heads)."""
        if self._mask is not None:
            mask = self._mask[:, -ratio.shape[1] :]
            counted = counted * (mask if ratio.dim() == 2 else mask.unsqueeze(2))
        sums = torch.stack([(ratio * counted).sum(), counted.expand_as(ratio).sum()]).double()
        self._changed = sums if self._changed is None else self._changed + sums

    @property
    def relative_change(self) -> float:
        """Mean |delta| / |h| over the positions changed so far; 0 when none was."""
        if self._changed is None:
            return 0.0
        total, count = self._changed.tolist()
        return float(total / count) if count > 0 else 0.0


@contextmanager
def steering(chat: ChatModel, interventions: Sequence[Intervention]) -> Iterator[Steering]:
    """Apply `interventions` to every forward pass of `chat` inside the context; the hooks are gone afterwards.

    Raises SteeringError when a site or a width does not fit the model.
    """
    state = Steering()
    handles = [chat.layout.decoder.register_forward_pre_hook(state.track, with_kwargs=True)]
    try:
        for intervention in interventions:
            handles += _attach(chat, intervention, state)
        yield state
    finally:
        for handle in handles:
            handle.remove()


def _attach(chat: ChatModel, intervention: Intervention, state: Steering) -> list[RemovableHandle]:
    direction = intervention.direction
    site, layout = direction.site, chat.layout
    check_site(site, layout)
    if direction.vector.shape != (site_width(site, layout),):
        raise SteeringError(
            f"intervention at {site}: the direction has {direction.vector.shape[0]} values, the site "
            f"{site_width(site, layout)}"
        )
    along = intervention.along
    if along is not None and (along.shape != direction.vector.shape or abs(float(np.linalg.norm(along)) - 1) > 1e-6):
        raise SteeringError(f"intervention at {site}: `along` must be a unit vector of {len(direction.vector)} values")
    if intervention.mode == "add" and direction.sigma <= 0:
        raise SteeringError(f"intervention at {site}: mode add needs sigma > 0, the direction has {direction.sigma}")
    edit = _editor(intervention, chat.device, state)
    if site.kind != "head":
        return attach(layout, site, edit)
    width = layout.heads_at(site.layer).width
    part = slice(site.head * width, (site.head + 1) * width)

    def one_head(joined: Tensor) -> Tensor:
        changed = joined.clone()
        changed[..., part] = edit(joined[..., part])
        return changed

    return attach(layout, site, one_head)


def change(intervention: Intervention, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What is added to activations (..., width) in float32 at the intervention's site, by the formulas above."""
    direction, strength = intervention.direction, intervention.strength
    unit = torch.tensor(direction.unit, dtype=torch.float32, device=device)
    along = intervention.along
    push = unit if along is None else torch.tensor(along, dtype=torch.float32, device=device)
    shift = {
        "subtract": -strength * direction.norm,
        "add": strength * direction.sigma,
        "ablate": 0.0,
    }[intervention.mode] * push
    at_centre = float(direction.centre.dot(direction.unit))

    def delta(x: Tensor) -> Tensor:
        if intervention.mode == "ablate":
            return -strength * ((x @ unit) - at_centre).unsqueeze(-1) * push
        return shift.expand_as(x)

    return delta


def _editor(intervention: Intervention, device: torch.device, state: Steering) -> Callable[[Tensor], Tensor]:
    changed = change(intervention, device)

    def edit(hidden: Tensor) -> Tensor:
        x = hidden.float()
        delta = changed(x)
        where = state.where(intervention.positions, x)
        if where is not None:
            delta = delta * where.unsqueeze(-1)
        counted = torch.ones(x.shape[:2], device=x.device) if where is None else where.expand(x.shape[:2])
        state.measure(relative(delta, x), counted)
        return (x + delta).to(hidden.dtype)

    return edit


def relative(delta: Tensor, x: Tensor) -> Tensor:
    """|delta| / |x| over the last dimension; 0 where x is zero."""
    size, change = x.norm(dim=-1), delta.norm(dim=-1)
    return torch.where(size > 0, change / size.clamp(min=1e-12), torch.zeros_like(size))
