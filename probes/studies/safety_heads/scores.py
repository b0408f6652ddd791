"""Summaries of head scores: maps, top lists, the long tail, and whether the scores hold together.

The checks are those of `docs/science.md` C.4 and C.5: a few heads should hold most of Ships; a high Ships alone is
not safety, so harmful is set against harmless with a permuted-label null over all heads at once; two halves of the
requests should name the same heads; the norm of the ablated head's output says what was put in its place.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from probes.capture.sites import Site
from probes.directions import Floats
from probes.heads.attribution import Effects, compare, permuted_contrasts, top_heads
from probes.studies.safety_heads.overlap import overlap


def attributed(
    harmful: Effects, harmless: Effects, listed: int, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """As plain data: `maps` (layers, heads), `top` lists with their figures, `tail` and `two_halves`.

    `p_all_heads` of a row is the share of label permutations in which any head has a contrast as large.
    """
    contrast = compare(harmful.kl, harmless.kl, resamples=resamples, seed=seed)
    maps = {
        "ships_harmful": harmful.kl.mean(0),
        "ships_harmless": harmless.kl.mean(0),
        "contrast": contrast.value,
        "contrast_low": contrast.low,
        "contrast_high": contrast.high,
        "refusal_opening": harmful.watched.mean(0),
        "norm_ratio": harmful.norm_ratio.mean(0),
    }
    mean = maps["ships_harmful"]
    length = min(listed, mean.size)
    null = permuted_contrasts(harmful.kl, harmless.kl, draws=resamples, seed=seed)

    def row(head: Site) -> dict[str, Any]:
        at = {name: float(values[head.layer, head.head]) for name, values in maps.items()}
        return {"head": str(head), **at, "p_all_heads": float((1 + (null >= at["contrast"]).sum()) / (1 + len(null)))}

    halves = [[str(h) for h in top_heads(harmful.kl[i::2].mean(0), length)] for i in (0, 1)]
    return {
        "maps": {name: values.tolist() for name, values in maps.items()},
        "top": {
            "ships": [row(h) for h in top_heads(mean, length)],
            "contrast": [row(h) for h in top_heads(contrast.value, length)],
        },
        "tail": tail(mean),
        "two_halves": asdict(overlap(halves[0], halves[1], mean.size)),
    }


def tail(mean: Floats) -> dict[str, Any]:
    """What the first hundredth of the heads (one at least) holds of all Ships, and the largest and the median."""
    most = np.sort(mean, axis=None)[::-1]
    leaders = max(1, round(mean.size / 100))
    return {
        "heads": leaders,
        "share_of_top_1_percent": float(most[:leaders].sum() / most.sum()) if most.sum() > 0 else None,
        "largest": float(most[0]),
        "median": float(np.median(most)),
    }


def heads_of(attribution: dict[str, Any], ranking: str) -> list[str]:
    """The names of a top list."""
    return [row["head"] for row in attribution["top"][ranking]]
