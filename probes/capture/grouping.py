"""Which messages go into one forward pass: the cheapest way to cut a list that is sorted by length.

A pass costs what its padded tokens cost and, whatever its size, as much as `fixed` tokens more: with a small model on a
CPU some ten, with a large one on a GPU, where short passes wait for launches, hundreds. So few messages of unlike
lengths are read together where passes are dear, and padding is avoided where tokens are.

Units: tokens. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# On a CPU with a small model; `probes.reuse.check` measures it.
FIXED_TOKENS = 32


def by_cost(
    lengths: Sequence[int], *, budget: int, fixed: int = FIXED_TOKENS, max_rows: int | None = None
) -> list[list[int]]:
    """Groups of indices, shortest first, none of more than `budget` padded tokens; one that is longer goes alone."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    best = np.zeros(len(order) + 1)
    starts = np.zeros(len(order) + 1, dtype=np.int64)
    for end in range(1, len(order) + 1):
        width = max(1, lengths[order[end - 1]])
        rows = max(1, min(budget // width, max_rows or end, end))
        first = end - rows
        cost = best[first:end] + fixed + width * np.arange(rows, 0, -1)
        chosen = int(np.argmin(cost))
        best[end], starts[end] = cost[chosen], first + chosen
    groups, end = [], len(order)
    while end:
        groups.append(order[starts[end] : end])
        end = int(starts[end])
    return groups[::-1]
