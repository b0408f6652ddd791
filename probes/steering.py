"""Interventions: subtract, ablate or add a direction while the model runs, and leave it as it was found.

With a raw direction v at a site, u = v/|v|, mu the aligned mean and sigma the spread of projections:

- `subtract`: h - a v (emergent-misalignment directions, arXiv 2606.20225; `shared/science.md` A.1 step 5)
- `ablate`:   h - ((h - mu) . u) u, the default: the centred projection is removed, the strength a scales it
- `add`:      h + a sigma u (the head form of HSI, arXiv 2502.05945; `shared/science.md` B.1 step 5)

Positions are `all` (every prompt and answer token) or `last` (the last prompt token and every generated one), with
and without a KV cache alike. Arithmetic is float32 whatever the model's dtype. `Steering.relative_change` reports
|delta| / |h| over the positions that were changed.

Does not know: left or right padding for `last`. The prompt's last token must be at the same index in every row, as
it is in left-padded generation; `begin(prompt_width)` says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from probes.directions import Direction
from probes.errors import SteeringError
from probes.models import ChatModel
from probes.sites import check_site, hidden_of, site_width

Mode = Literal["subtract", "ablate", "add"]
Positions = Literal["all", "last"]


@dataclass(frozen=True)
class Intervention:
    """One direction, how it acts, where in the text and how strongly."""

    direction: Direction
    mode: Mode = "ablate"
    strength: float = 1.0
    positions: Positions = "all"

    def __str__(self) -> str:
        return f"{self.mode} x{self.strength:g} at {self.direction.site}, positions {self.positions}"


@dataclass
class Steering:
    """What an active intervention knows: where it is in the text, and how much it changed."""

    prompt_width: int | None = None
    calls: int = 0
    _start: int = 0
    _mask: Tensor | None = None
    _changed: Tensor | None = None

    def begin(self, prompt_width: int) -> None:
        """A new batch whose prompts are `prompt_width` tokens wide; needed for positions `last`."""
        self.prompt_width = prompt_width

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
    handles = [chat.layout.decoder.register_forward_pre_hook(_tracker(state), with_kwargs=True)]
    try:
        for intervention in interventions:
            handles.append(_attach(chat, intervention, state))
        yield state
    finally:
        for handle in handles:
            handle.remove()


def _tracker(state: Steering) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        state._start = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        state._mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        state.calls += 1

    return hook


def _attach(chat: ChatModel, intervention: Intervention, state: Steering) -> Any:
    direction = intervention.direction
    site, layout = direction.site, chat.layout
    check_site(site, layout)
    if direction.vector.shape != (site_width(site, layout),):
        raise SteeringError(
            f"intervention at {site}: the direction has {direction.vector.shape[0]} values, the site "
            f"{site_width(site, layout)}"
        )
    if intervention.mode == "add" and direction.sigma <= 0:
        raise SteeringError(f"intervention at {site}: mode add needs sigma > 0, the direction has {direction.sigma}")
    edit = _editor(intervention, chat.device, state)
    if site.kind == "head":
        part = slice(site.head * layout.head_dim, (site.head + 1) * layout.head_dim)

        def head_hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            joined = inputs[0].clone()
            joined[..., part] = edit(joined[..., part])
            return (joined, *inputs[1:])

        return layout.projections[site.layer].register_forward_pre_hook(head_hook)

    def block_hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        changed = edit(hidden_of(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    module = layout.final_norm if site.kind == "final" else layout.blocks[site.layer]
    return module.register_forward_hook(block_hook)


def _editor(intervention: Intervention, device: torch.device, state: Steering) -> Callable[[Tensor], Tensor]:
    direction, strength = intervention.direction, intervention.strength
    unit = torch.tensor(direction.unit, dtype=torch.float32, device=device)
    shift = {
        "subtract": -strength * direction.norm,
        "add": strength * direction.sigma,
        "ablate": 0.0,
    }[intervention.mode] * unit
    at_centre = float(direction.centre.dot(direction.unit))

    def edit(hidden: Tensor) -> Tensor:
        x = hidden.float()
        if intervention.mode == "ablate":
            delta = -strength * ((x @ unit) - at_centre).unsqueeze(-1) * unit
        else:
            delta = shift.expand_as(x)
        where = _where(intervention.positions, x, state)
        if where is not None:
            delta = delta * where.unsqueeze(-1)
        _measure(delta, x, where, state)
        return (x + delta).to(hidden.dtype)

    return edit


def _where(positions: Positions, x: Tensor, state: Steering) -> Tensor | None:
    """Which positions are edited, (1 or rows, tokens); None for all of them."""
    if positions == "all":
        return None
    if state.prompt_width is None:
        raise SteeringError("positions `last` need the prompt's width: call begin(prompt_width) first")
    at = state._start + torch.arange(x.shape[1], device=x.device)
    return (at >= state.prompt_width - 1).unsqueeze(0).to(x.dtype)


def _measure(delta: Tensor, x: Tensor, where: Tensor | None, state: Steering) -> None:
    counted = torch.ones(x.shape[:2], device=x.device) if where is None else where.expand(x.shape[:2])
    if state._mask is not None:
        counted = counted * state._mask[:, -x.shape[1] :]
    size, change = x.norm(dim=-1), delta.norm(dim=-1)
    ratio = torch.where(size > 0, change / size.clamp(min=1e-12), torch.zeros_like(size))
    sums = torch.stack([(ratio * counted).sum(), counted.sum()]).double()
    state._changed = sums if state._changed is None else state._changed + sums
