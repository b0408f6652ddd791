"""Difference-in-means directions and their controls.

`v = mean(misaligned) - mean(aligned)`, accumulated in float64 and stored raw with its norm, beside the centre
`mu = mean(aligned)` (emergent-misalignment directions, arXiv 2606.20225; `docs/science.md` A.1 step 3). A
direction is always read by the hook that will later steer with it: same site, same norm side.

Sigma is the population standard deviation of the projections of all rows of both classes on `v / |v|`
(HSI, arXiv 2502.05945; `docs/science.md` B.1 step 4), in the units of the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Batch, Encoded, batches
from probes.capture.sites import Observer, Site, observing
from probes.errors import DataError, DirectionError
from probes.model.load import ChatModel

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Direction:
    """A raw direction at a site, float64, shape (width,). `centre` is the aligned mean at the same site."""

    site: Site
    vector: Floats = field(repr=False)
    centre: Floats = field(repr=False)
    sigma: float

    def __post_init__(self) -> None:
        if self.vector.shape != self.centre.shape:
            raise DirectionError(f"direction at {self.site}: vector {self.vector.shape}, centre {self.centre.shape}")
        if not (np.isfinite(self.vector).all() and np.isfinite(self.centre).all()):
            raise DirectionError(
                f"direction at {self.site}: not finite; the activations overflowed (float16?), use float32 or bfloat16"
            )
        if self.norm < 1e-9:
            raise DirectionError(
                f"direction at {self.site}: zero; both classes have the same mean there. Is the adapter switched on? "
                "(At block 0 the last prompt token is the same for every prompt.)"
            )

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.vector))

    @property
    def unit(self) -> Floats:
        unit: Floats = self.vector / self.norm
        return unit

    def along(self, rows: NDArray[np.floating]) -> Floats:
        """Projections of activations (rows, width) on the unit vector, in float64, (rows,)."""
        projected: Floats = rows.astype(np.float64) @ self.unit
        return projected

    def with_vector(self, vector: Floats) -> Direction:
        """The same site and centre with another vector (a control)."""
        return Direction(self.site, vector, self.centre, self.sigma)


def pooled_activations(
    chat: ChatModel,
    items: Sequence[Encoded],
    sites: Sequence[Site],
    aggregation: Aggregation,
    on_done: Callable[[int], None] = lambda _: None,
) -> dict[Site, NDArray[np.float32]]:
    """One vector a message and site, (messages, width): the last token of a `last` aggregation, else the span's mean.

    A message that has no token of the span has NaN everywhere.
    """
    return pooled_by_aggregation(chat, items, {aggregation: sites}, on_done)[aggregation]


def pooled_by_aggregation(
    chat: ChatModel,
    items: Sequence[Encoded],
    wanted: Mapping[Aggregation, Sequence[Site]],
    on_done: Callable[[int], None] = lambda _: None,
) -> dict[Aggregation, dict[Site, NDArray[np.float32]]]:
    """`pooled_activations` of several aggregations, each at its own sites, in one pass."""
    out: dict[Aggregation, dict[Site, list[Tensor]]] = {a: {s: [] for s in sites} for a, sites in wanted.items()}
    rows: list[int] = []
    places = {_place(site) for sites in wanted.values() for site in sites}
    for batch in batches(items, chat.device):

        def keep(place: Site, batch: Batch = batch) -> Observer:
            def observer(x: Tensor) -> None:
                for aggregation, sites in wanted.items():
                    here = [site for site in sites if _place(site) == place]
                    if not here:
                        continue
                    pool = aggregation if aggregation.kind == "last" else Aggregation("mean", aggregation.span)
                    pooled = pool(x.flatten(2), batch.span(aggregation.span)).cpu()
                    if place.kind != "head":
                        out[aggregation][place].append(pooled)
                        continue
                    heads = pooled.view(len(pooled), chat.layout.heads_at(place.layer).count, -1)
                    for site in here:
                        out[aggregation][site].append(heads[:, site.head])

            return observer

        with (
            torch.inference_mode(),
            observing(chat.layout, {place: keep(place) for place in places}) as run,
        ):
            run(input_ids=batch.ids, attention_mask=batch.mask)
        rows += batch.rows
        on_done(len(batch.rows))
    back = np.argsort(rows)
    return {
        aggregation: {site: torch.cat(parts).numpy()[back] for site, parts in found.items()}
        for aggregation, found in out.items()
    }


def _place(site: Site) -> Site:
    """Where a site is observed: heads of a block together."""
    return site if site.kind != "head" else Site("head", site.layer)


def difference_in_means(site: Site, misaligned: NDArray[np.float32], aligned: NDArray[np.float32]) -> Direction:
    """Direction from pooled activations (rows, width) of the two classes. DirectionError when zero or not finite."""
    if len(misaligned) == 0 or len(aligned) == 0:
        raise DataError("labels: both a misaligned and an aligned row are needed to fit a direction")
    bad, good = misaligned.astype(np.float64), aligned.astype(np.float64)
    if not (np.isfinite(bad).all() and np.isfinite(good).all()):
        raise DirectionError(
            f"direction at {site}: activations are not finite (float16 overflow?); load the model in float32"
        )
    centre: Floats = good.mean(0)
    vector: Floats = bad.mean(0) - centre
    norm = float(np.linalg.norm(vector))
    scale = float(np.abs(centre).max()) or 1.0
    if norm < 1e-9 * scale:
        vector = np.zeros_like(vector)
    sigma = float(np.concatenate([bad, good]).dot(vector / norm).std()) if norm > 0 else 0.0
    return Direction(site, vector, centre, sigma)


def directions_at(
    activations: dict[Site, NDArray[np.float32]], misaligned: NDArray[np.bool_]
) -> tuple[dict[Site, Direction], list[str]]:
    """Directions between the classes of rows at every site, and the sites that have none (zero, or not finite).

    Where no site has one, the DirectionError of the first site.
    """
    directions, without = {}, []
    for site, values in activations.items():
        try:
            directions[site] = difference_in_means(site, values[misaligned], values[~misaligned])
        except DirectionError:
            without.append(str(site))
    if not directions:
        site, values = next(iter(activations.items()))
        difference_in_means(site, values[misaligned], values[~misaligned])
    return directions, without


def random_like(direction: Direction, seed: int) -> Direction:
    """A Gaussian direction of the same norm (control)."""
    draw = np.random.default_rng(seed).standard_normal(direction.vector.shape)
    return direction.with_vector(draw * (direction.norm / np.linalg.norm(draw)))


def orthogonal_to(direction: Direction, seed: int) -> Direction:
    """A Gaussian direction of the same norm, orthogonal to the direction (control)."""
    draw = np.random.default_rng(seed).standard_normal(direction.vector.shape)
    draw = draw - draw.dot(direction.unit) * direction.unit
    return direction.with_vector(draw * (direction.norm / np.linalg.norm(draw)))


def cosine(a: Direction, b: Direction) -> float:
    """Cosine of two directions at sites of one width."""
    if a.vector.shape != b.vector.shape:
        raise DirectionError(f"cosine: {a.site} and {b.site} have different widths")
    return float(a.unit.dot(b.unit))
