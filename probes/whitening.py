"""Directions by difference in means in whitened activations (Fisher's linear discriminant).

A plain difference in means `v` points where the classes differ, and also where every token varies: a reading that takes
the highest of many windows then finds the tokens that vary most. With the covariance `S` of single tokens of aligned
messages, `S^-1 v` weighs each dimension by how little it varies anyway. `S` is shrunk towards a multiple of the
identity, `(1 - a) S + a (trace S / width) I`, since a few hundred messages do not tell all of it (Ledoit and Wolf,
J. Multivariate Anal. 88, 2004; here `a` is one of a few candidates that `awry fit` chooses from).

Contract: `token_covariance` reads the tokens of a span, one pass for all sites; `whitened` gives a Direction with the
same centre whose values are in class gaps: the misaligned mean is at 1 under it, as it is under `v`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.aggregation import Span
from probes.capture.batches import Encoded, batches
from probes.capture.sites import Observer, Site, observing
from probes.directions import Direction
from probes.errors import DataError
from probes.model.load import ChatModel

Floats = NDArray[np.float64]


@dataclass
class _Moments:
    """Sums over tokens, of heads one after the other in their block's place."""

    n: int
    total: Tensor
    products: Tensor


def token_covariance(
    chat: ChatModel, items: Sequence[Encoded], sites: Sequence[Site], span: Span
) -> dict[Site, Floats]:
    """Covariance (width, width) of a span's single tokens at each site, in float64."""
    places = {_place(site) for site in sites}
    moments: dict[Site, _Moments] = {}

    def observer(place: Site, inside: Tensor) -> Observer:
        def observe(x: Tensor) -> None:
            # (tokens, heads or 1, width): a head's covariance is of its own dimensions.
            tokens = (x if place.kind == "head" else x.unsqueeze(2))[inside].double()
            sums = tokens.sum(0), torch.einsum("thi,thj->hij", tokens, tokens)
            if place in moments:
                moments[place].n += len(tokens)
                moments[place].total += sums[0]
                moments[place].products += sums[1]
            else:
                moments[place] = _Moments(len(tokens), *sums)

        return observe

    for batch in batches(items, chat.device):
        inside = batch.span(span)
        with (
            torch.inference_mode(),
            observing(chat.layout, {place: observer(place, inside) for place in places}) as run,
        ):
            run(input_ids=batch.ids, attention_mask=batch.mask)
    found = {}
    for site in sites:
        seen = moments.get(_place(site))
        if seen is None or seen.n < 2:
            raise DataError(f"whitening: the aligned messages have no two tokens in the span {span}")
        h = max(site.head, 0)
        mean = seen.total[h] / seen.n
        found[site] = (seen.products[h] / seen.n - torch.outer(mean, mean)).cpu().numpy()
    return found


def whitened(direction: Direction, covariance: Floats, shrinkage: float) -> Direction:
    """`direction` by difference in means, weighed by the covariance of tokens; 0 < shrinkage <= 1 (1: as it is)."""
    if not 0 < shrinkage <= 1:
        raise DataError(f"shrinkage: {shrinkage} is not above 0 and at most 1")
    width = len(covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * (np.trace(covariance) / width) * np.eye(width)
    vector = np.linalg.solve(shrunk, direction.vector)
    # Scaled so that (mean difference) . w / (w . w) is 1: values stay in class gaps.
    vector *= vector.dot(direction.vector) / vector.dot(vector)
    return direction.with_vector(vector)


def _place(site: Site) -> Site:
    return site if site.kind != "head" else Site("head", site.layer)
