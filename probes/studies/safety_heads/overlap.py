"""Do two lists of heads share more than chance? Jaccard's index with a hypergeometric null.

For two rankings of one model, or two models of one base (arXiv 2410.13708 sections 5.1 and 5.2 compare top lists; the
null is ours). With N heads and lists of a and b, the number shared by two lists drawn at random is hypergeometric:
`p` is the probability of at least as many. It takes heads as exchangeable, which those of one layer are not quite.

Contract: `between_results` refuses results of models whose base or number of heads differ (DataError): there a shared
index means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from probes.errors import DataError


@dataclass(frozen=True)
class Overlap:
    """`shared` heads of two lists; `jaccard` and what it is by chance on average; `p` of at least as many shared."""

    sizes: tuple[int, int]
    shared: int
    jaccard: float
    jaccard_by_chance: float
    p: float

    def __str__(self) -> str:
        return f"{self.shared} shared of {self.sizes[0]} and {self.sizes[1]} (p {self.p:.2g})"


def overlap(a: Sequence[str], b: Sequence[str], heads: int) -> Overlap:
    """Two lists of heads, by name, of a model with so many `heads`."""
    first, second = set(a), set(b)
    if not first or not second or max(len(first), len(second)) > heads:
        raise DataError(f"heads: lists of {len(first)} and {len(second)} of {heads}; each needs at least one")
    shared = len(first & second)
    null = hypergeom(heads, len(first), len(second))
    counts = np.arange(min(len(first), len(second)) + 1)
    by_chance = float((null.pmf(counts) * counts / (len(first) + len(second) - counts)).sum())
    return Overlap(
        (len(first), len(second)), shared, shared / len(first | second), by_chance, float(null.sf(shared - 1))
    )


def top_lists(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """The lists of heads of a safety-heads result, by name."""
    lists = {
        f"{kind}, {ranking}": [row["head"] for row in rows]
        for kind, attribution in result["attribution"].items()
        for ranking, rows in attribution["top"].items()
    }
    return lists | {"sahara": [row["head"] for row in result["dataset"]["sahara"]]}


def between_kinds(attribution: Mapping[Any, Any], heads: int) -> dict[str, Any]:
    """Overlap of the first two ablations' lists, by ranking."""
    first, second = list(attribution.values())[:2]
    return {
        ranking: asdict(overlap(names, [row["head"] for row in second["top"][ranking]], heads))
        for ranking, names in ((r, [row["head"] for row in rows]) for r, rows in first["top"].items())
    }


def between_results(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Overlap of every list that both results have; both are what safety-heads studies measured."""
    if ours.get("shape") != theirs.get("shape"):
        raise DataError(f"overlap: shape {theirs.get('shape')} is not {ours.get('shape')}; compare models of one base")
    here, there = ours["model"]["subject"], theirs["model"]["subject"]
    for key in ("model", "revision"):
        if here[key] != there[key]:
            raise DataError(
                f"overlap: the base's {key} is {there[key]} there and {here[key]} here; "
                "heads of different bases have nothing to do with each other"
            )
    heads = int(np.prod(ours["shape"]))
    mine, other = top_lists(ours), top_lists(theirs)
    return {
        "with": {"adapter": theirs["adapter"], "scale": there["adapter_scale"]},
        "lists": {name: asdict(overlap(mine[name], other[name], heads)) for name in mine if name in other},
    }
