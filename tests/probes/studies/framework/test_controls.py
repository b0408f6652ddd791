"""Controls of a direction: of equal norm, at its own site, and the wrong layer means one thing."""

from __future__ import annotations

import numpy as np
import pytest

from probes.capture.sites import Site
from probes.directions import Direction
from probes.steer.steering import Intervention
from probes.studies.framework.controls import ORTHOGONAL, WRONG_LAYER, as_far, is_random, vectors, wrong_layer

RNG = np.random.default_rng(0)


def direction(site: Site, size: float = 1.0) -> Direction:
    vector = RNG.standard_normal(16)
    return Direction(site, vector * size / np.linalg.norm(vector), RNG.standard_normal(16), 1.0)


BLOCKS = {Site("residual", b): direction(Site("residual", b), 1.0 + b) for b in range(4)}
FINAL = Site("final", -1)


def test_controls_have_the_norm_the_site_and_the_centre_of_the_direction() -> None:
    own = BLOCKS[Site("residual", 1)]
    found = vectors(own, BLOCKS, 3, 7)
    assert list(found) == ["random 0", "random 1", "random 2", ORTHOGONAL, WRONG_LAYER]
    for control in found.values():
        assert control.norm == pytest.approx(own.norm)
        assert control.site == own.site
        np.testing.assert_array_equal(control.centre, own.centre)
    assert abs(float(found[ORTHOGONAL].unit @ own.unit)) < 1e-9
    assert [is_random(name) for name in found] == [True, True, True, False, False]


def test_the_wrong_layer_is_the_direction_of_the_block_farthest_away() -> None:
    own = BLOCKS[Site("residual", 1)]
    wrong = wrong_layer(own, BLOCKS)
    assert wrong is not None
    np.testing.assert_allclose(wrong.unit, BLOCKS[Site("residual", 3)].unit)
    at_the_end = direction(FINAL)
    far = wrong_layer(at_the_end, BLOCKS | {FINAL: at_the_end})
    assert far is not None
    np.testing.assert_allclose(far.unit, BLOCKS[Site("residual", 0)].unit)


def test_a_head_and_a_lone_block_have_none() -> None:
    head = direction(Site("head", 1, 2))
    assert wrong_layer(head, BLOCKS) is None
    own = BLOCKS[Site("residual", 1)]
    assert wrong_layer(own, {own.site: own}) is None
    assert WRONG_LAYER not in vectors(own, {own.site: own}, 1, 0)


def test_interventions_act_as_the_chosen_one_along_the_controls() -> None:
    own = BLOCKS[Site("residual", 1)]
    chosen = Intervention(own, "ablate", 1.0, "last")
    for name, control in vectors(own, BLOCKS, 2, 0).items():
        acts = as_far(chosen, {name: control})[name]
        assert (acts.direction, acts.mode, acts.positions) == (own, "ablate", "last")
        assert acts.along is not None
        np.testing.assert_allclose(acts.along, control.unit)
