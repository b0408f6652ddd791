"""What the model made of a stretch of tokens: keys and values of each block that was run, and the projections' values.

Tensors of one shape (in most models all keys and values of all blocks) are one tensor, so that taking them out of a
batch and putting them together for another is a copy or two, and not two for each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Kept:
    """`groups` are (tensors, heads, tokens, width), `values` (tokens, columns); `slots` says where block b's keys (2b)
    and values (2b + 1) are: the number of the group, and that within it."""

    groups: tuple[Tensor, ...]
    values: Tensor
    slots: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (*self.groups, self.values))

    def split(self, tokens: int) -> tuple[Kept, Kept]:
        """The first so many tokens, and the rest; copied, so that either can be let go."""
        return self.part(0, tokens), self.part(tokens, self.tokens)

    def part(self, start: int, stop: int) -> Kept:
        """Some of the tokens, copied."""
        groups = tuple(group[:, :, start:stop].clone() for group in self.groups)
        return Kept(groups, self.values[start:stop].clone(), self.slots)


def kept_of(tensors: Sequence[Tensor], row: int, tokens: int, values: Tensor) -> Kept:
    """The first tokens of one row, of keys and values in turn, each (rows, heads, tokens, width), and of its values."""
    by_kind: dict[tuple[object, ...], list[Tensor]] = {}
    slots = []
    kinds: dict[tuple[object, ...], int] = {}
    for tensor in tensors:
        kind = (tensor.shape[1], tensor.shape[3], tensor.dtype, tensor.device)
        number = kinds.setdefault(kind, len(kinds))
        same = by_kind.setdefault(kind, [])
        slots.append((number, len(same)))
        same.append(tensor[row, :, :tokens])
    groups = tuple(torch.stack(same) for same in by_kind.values())
    return Kept(groups, values[:tokens].clone(), tuple(slots))
