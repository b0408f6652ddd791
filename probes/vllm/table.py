"""The values of tokens by their place in the KV cache, and the hooks that write them.

Contract: `ValueTable(n_slots, planes, ...)` holds one float32 for each KV slot and column. Hooks project each block's
output as it is made; where the pass has no slots (a warm-up) they do nothing. A block of the KV cache that prefix
caching gives to another request still has its tokens' values: they live as long as its keys and values do.

Memory: slots x columns x 4 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probes.capture.sites import Site
from probes.errors import LayoutError
from probes.vllm.modules import Parts, heads_of, normed_of, stream_of

# The weights (width, columns) and offsets (columns,) of a site, and the columns of the table that they fill.
Plane = tuple[Tensor, Tensor, slice]


class ValueTable:
    """`slots_of_pass()` gives the KV slot of each token of the running pass, or None."""

    def __init__(
        self,
        n_slots: int,
        planes: Mapping[Site, tuple[Tensor, Tensor]],
        device: torch.device,
        slots_of_pass: Callable[[], Tensor | None],
    ) -> None:
        self._slots_of_pass = slots_of_pass
        self._planes: dict[Site, Plane] = {}
        columns = 0
        for place, (weights, offsets) in planes.items():
            stop = columns + offsets.shape[0]
            self._planes[place] = weights.to(device), offsets.to(device), slice(columns, stop)
            columns = stop
        # Padding has slot -1: its values go to the last row, which nobody reads.
        self._values = torch.full((n_slots + 1, columns), torch.nan, device=device)

    @property
    def columns(self) -> int:
        return int(self._values.shape[1])

    def attach(self, parts: Parts) -> None:
        """Hooks at the sites of the planes. LayoutError where vLLM's model has not got one."""
        for place in self._planes:
            if place.kind == "final":
                parts.norm.register_forward_hook(self._after(place, normed_of))
            elif place.kind == "residual":
                parts.blocks[place.layer].register_forward_hook(self._after(place, stream_of))
            else:
                projection = parts.projections[place.layer]
                if projection is None:
                    raise LayoutError(f"heads of block {place.layer}: vLLM's model has no projection of that name")
                projection.register_forward_pre_hook(self._before(place))

    def read(self, slots: Sequence[int]) -> tuple[Tensor, torch.Event | None]:
        """The values of these slots, (slots, columns), on the CPU; they are there once the event is, where there is
        one."""
        device = self._values.device
        index = torch.tensor(slots, dtype=torch.long).to(device, non_blocking=True)
        values = self._values[index].to("cpu", non_blocking=True)
        if device.type == "cpu":
            return values, None
        event = torch.Event(device.type)
        event.record()
        return values, event

    def _after(self, place: Site, read: Callable[[Any], Tensor]) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            self._write(place, read(output))

        return hook

    def _before(self, place: Site) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            self._write(place, heads_of(args))

        return hook

    @torch.inference_mode()
    def _write(self, place: Site, x: Tensor) -> None:
        slots = self._slots_of_pass()
        if slots is None:
            return
        if x.shape[0] < slots.shape[0]:
            raise LayoutError(f"{place}: vLLM runs fewer tokens through it than are in the pass")
        weights, offsets, columns = self._planes[place]
        values = x[: slots.shape[0]].to(weights.dtype) @ weights - offsets
        rows = torch.where(slots < 0, self._values.shape[0] - 1, slots)
        self._values[rows, columns] = values
