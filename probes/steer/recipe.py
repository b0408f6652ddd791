"""A steering recipe in a probe's card: what a study chose, for `awry run --mitigate`.

A recipe is one intervention, or several that act together with one mode and one positions rule (the heads of
HSI, arXiv 2502.05945).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probes.card import MitigationCard, MitigationSite, Probe
from probes.directions import cosine
from probes.errors import DataError
from probes.steer.steering import Intervention


def with_recipe(probe: Probe, interventions: Sequence[Intervention], measured: Mapping[str, Any]) -> Probe:
    """The probe with a recipe in its card; `measured` is what was seen when it was chosen.

    The cosine between detector and recipe is given where both are one direction of one width. DataError when there is
    no intervention, or their modes or positions differ.
    """
    if len({(i.mode, i.positions) for i in interventions}) != 1:
        raise DataError("recipe: needs at least one intervention, and one mode and positions rule for all")
    first, *rest = [
        MitigationSite(site=str(i.direction.site), strength=i.strength, sigma=i.direction.sigma) for i in interventions
    ]
    direction, own = interventions[0].direction, probe.directions[0]
    comparable = len(interventions) == len(probe.directions) == 1 and own.vector.shape == direction.vector.shape
    card = MitigationCard(
        site=first.site,
        mode=interventions[0].mode,
        strength=first.strength,
        positions=interventions[0].positions,
        sigma=first.sigma,
        cosine_to_detector=cosine(own, direction) if comparable else None,
        also=rest,
        measured=dict(measured),
    )
    changed = probe.card.model_copy(update={"mitigation": card})
    return Probe(changed, probe.directions, [i.direction for i in interventions])
