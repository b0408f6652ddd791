"""A cache that gives a forward pass the keys and values of what stands before its tokens, and collects those of its
own.

Contract: `before(chains)` puts together what is kept for each row, padded on the left where rows differ; `PrefixCache`
is what the decoder is given. Other than transformers' own caches it keeps no joined copy for each block: what attention
reads is made for one block and gone with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from probes.reuse.kept import Kept

Chain = tuple[Kept, ...]


@dataclass(frozen=True)
class Before:
    """Keys and values in turn for each block, (rows, heads, width of the longest, width); `lengths` are the rows'
    own."""

    tensors: tuple[Tensor, ...]
    lengths: tuple[int, ...]

    @property
    def width(self) -> int:
        return max(self.lengths, default=0)

    @property
    def padded(self) -> bool:
        """Whether some row has fewer tokens than another, and so padding on the left."""
        return min(self.lengths, default=0) != self.width


def before(chains: Sequence[Chain]) -> Before:
    """What is kept before each row's tokens; a row may have none."""
    lengths = tuple(sum(kept.tokens for kept in chain) for chain in chains)
    first = max(chains, key=len)
    if not first:
        return Before((), lengths)
    width = max(lengths)
    if all(chain == first for chain in chains):
        groups = [_joined(first, g).expand(len(chains), -1, -1, -1, -1) for g in range(len(first[0].groups))]
    else:
        groups = []
        for g, like in enumerate(first[0].groups):
            made = like.new_zeros(len(chains), like.shape[0], like.shape[1], width, like.shape[3])
            for row, chain in enumerate(chains):
                place = width - lengths[row]
                for kept in chain:
                    made[row, :, :, place : place + kept.tokens] = kept.groups[g]
                    place += kept.tokens
            groups.append(made)
    return Before(tuple(groups[g][:, i] for g, i in first[0].slots), lengths)


def _joined(chain: Chain, group: int) -> Tensor:
    parts = [kept.groups[group] for kept in chain]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, 2)).unsqueeze(0)


def prefix_cache(given: Before, n_blocks: int) -> Any:
    """A cache of transformers that starts with `given`; `collected` then gives what the pass added."""
    from transformers import DynamicCache

    made = DynamicCache()
    made.layers = [
        _layer_class()(*given.tensors[2 * i : 2 * i + 2]) if 2 * i < len(given.tensors) else _layer_class()(None, None)
        for i in range(n_blocks)
    ]
    return made


def collected(made: Any) -> list[Tensor]:
    """Keys and values in turn, (rows, heads, tokens, width), of each block from the first that the pass came to."""
    found: list[Tensor] = []
    for layer in made.layers:
        if layer.added is None:
            break
        found += layer.added
    return found


@cache
def _layer_class() -> Any:
    from transformers.cache_utils import DynamicLayer

    class PrefixLayer(DynamicLayer):  # type: ignore[misc]
        """Keys and values before a pass, and those that it adds."""

        def __init__(self, keys: Tensor | None, values: Tensor | None) -> None:
            super().__init__()
            self.before = None if keys is None or values is None else (keys, values)
            self.added: tuple[Tensor, Tensor] | None = None
            self.is_initialized = True

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            self.added = (key_states, value_states)
            if self.before is None:
                return key_states, value_states
            return torch.cat([self.before[0], key_states], 2), torch.cat([self.before[1], value_states], 2)

        def get_seq_length(self) -> int:
            return 0 if self.before is None else int(self.before[0].shape[2])

    return PrefixLayer
