"""What planes, plans and checks need to know of a model's shape, whatever engine holds its modules.

Contract: `Facts` is fulfilled by `probes.model.layout.Layout`, and by `ModelFacts`, which needs no module: another
engine fills it in from what it knows. Blocks and heads count from 0. Widths are values of one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from probes.errors import SiteError


class HeadFacts(Protocol):
    """The query heads of one block; `width` is that of one head's slice at the output projection's input."""

    @property
    def count(self) -> int: ...

    @property
    def width(self) -> int: ...


class Facts(Protocol):
    """The shape of one decoder; `heads_at` raises SiteError, with the reason, where a block has no heads to read."""

    @property
    def n_blocks(self) -> int: ...

    @property
    def width(self) -> int: ...

    def heads_at(self, layer: int) -> HeadFacts: ...


@dataclass(frozen=True)
class BlockHeads:
    """The query heads of one block."""

    count: int
    width: int


@dataclass(frozen=True)
class ModelFacts:
    """See the module. `heads[l]` are those of block l, or the reason why it has none that can be read."""

    width: int
    heads: tuple[BlockHeads | str, ...]

    @property
    def n_blocks(self) -> int:
        return len(self.heads)

    def heads_at(self, layer: int) -> BlockHeads:
        return heads_or_reason(self.heads, layer)


T = TypeVar("T")


def heads_or_reason(heads: Sequence[T | str], layer: int) -> T:
    """The heads of a block. SiteError, with the reason and the blocks that have some, where it has none."""
    found = heads[layer]
    if not isinstance(found, str):
        return found
    others = [str(block) for block, one in enumerate(heads) if not isinstance(one, str)]
    with_heads = f"blocks with heads: {', '.join(others)}" if others else "no block of this model has heads"
    raise SiteError(f"site: block {layer} has no heads that can be read: {found}; {with_heads}")
