"""The parts of a decoder by the names under which vLLM's own modules have them.

Contract: `Shape.of(layout)` takes the layout of transformers' class, whose modules may be on the meta device, so that a
site means the same in both engines. vLLM keeps the names of the final norm, and in each block with heads of the
projection whose input they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from probes.errors import LayoutError
from probes.model.block_heads import Heads
from probes.model.layout import Layout


@dataclass(frozen=True)
class Shape:
    """See the module."""

    layout: Layout
    norm: str
    projections: tuple[str | None, ...]

    @classmethod
    def of(cls, layout: Layout) -> Shape:
        """LayoutError for a model of several residual streams."""
        if layout.stream is not None:
            raise LayoutError("the model has several residual streams, of which vLLM shows one")
        norm = next(name for name, child in layout.decoder.named_children() if child is layout.final_norm)
        return cls(layout, norm, tuple(map(_projection, layout.blocks, layout.heads)))


def _projection(block: nn.Module, heads: Heads | str) -> str | None:
    if isinstance(heads, str):
        return None
    name: str = next(name for name, module in block.named_modules() if module is heads.projection)
    return name
