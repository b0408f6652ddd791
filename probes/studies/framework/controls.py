"""Controls of a direction: vectors of equal norm at the same site, and interventions that act as far along them.

Contract: the names are those in reports. *Wrong layer* is the direction that the block farthest away gives by the same
recipe, moved here and scaled to the norm of the direction under study: what a direction of another layer does in this
place. (Moving the *same* vector to another block is another question; a fitted probe's card has it as
`same_vector_elsewhere`.) *Orthogonal* is random but for what it shares with the direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from probes.capture.sites import Site
from probes.directions import Direction, orthogonal_to, random_like
from probes.steer.steering import Intervention

RANDOM, ORTHOGONAL, WRONG_LAYER = "random", "orthogonal", "wrong layer"


def is_random(name: str) -> bool:
    """Whether a condition of this name is a random direction."""
    return name.startswith(f"{RANDOM} ")


def vectors(direction: Direction, by_site: Mapping[Site, Direction], draws: int, seed: int) -> dict[str, Direction]:
    """`draws` random directions, an orthogonal one, and the wrong layer's where `by_site` has another block's."""
    found = {f"{RANDOM} {i}": random_like(direction, seed + i) for i in range(draws)}
    found[ORTHOGONAL] = orthogonal_to(direction, seed + draws)
    wrong = wrong_layer(direction, by_site)
    return found if wrong is None else found | {WRONG_LAYER: wrong}


def wrong_layer(direction: Direction, by_site: Mapping[Site, Direction]) -> Direction | None:
    """The direction of the block farthest away, among sites of the same kind; None for a head, or without another."""
    site = direction.site
    same = [d for s, d in by_site.items() if s.kind == "residual" and s != site]
    if site.kind == "head" or not same:
        return None
    at = site.layer if site.layer >= 0 else 10**6  # the final norm is behind every block
    far = max(same, key=lambda d: abs(d.site.layer - at))
    return direction.with_vector(far.vector * (direction.norm / far.norm))


def as_far(chosen: Intervention, along: Mapping[str, Direction]) -> dict[str, Intervention]:
    """The chosen intervention along each of these: at every token the same amount, whatever its mode."""
    return {name: replace(chosen, along=other.unit) for name, other in along.items()}
