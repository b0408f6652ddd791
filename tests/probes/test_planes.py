from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.capture.sites import Site
from probes.directions import Direction
from probes.errors import DirectionError, SiteError
from probes.model.facts import BlockHeads, ModelFacts
from probes.planes import place_width, planes
from tests.probes.test_scoring import direction
from tests.support.models.tiny import shared_chat

SITES = [Site("head", 1, 3), Site("residual", 2), Site("final"), Site("head", 1, 0), Site("residual", 2)]
FACTS = ModelFacts(8, (BlockHeads(2, 3), "it carries a state", BlockHeads(4, 2)))


def along(site: Site, width: int) -> Direction:
    rng = np.random.default_rng(width)
    return Direction(site, rng.standard_normal(width), rng.standard_normal(width), 1.0)


def test_a_models_shape_alone_gives_what_the_model_gives() -> None:
    layout = shared_chat("llama").layout
    heads = tuple(BlockHeads(layout.heads_at(b).count, layout.heads_at(b).width) for b in range(layout.n_blocks))
    directions = [direction(layout, site, seed) for seed, site in enumerate(SITES)]
    (here, order), (there, other) = (planes(f, directions) for f in (layout, ModelFacts(layout.width, heads)))
    assert order == other == [0, 2, 4, 1, 3]
    assert list(here) == list(there) == [Site("head", 1), Site("residual", 2), Site("final")]
    for place, (weights, offsets) in here.items():
        assert torch.equal(weights, there[place][0])
        assert torch.equal(offsets, there[place][1])
        assert (weights.dtype, weights.device.type) == (torch.float32, "cpu")
        assert weights.shape[0] == place_width(place, layout)


def test_the_aligned_mean_is_0_and_the_misaligned_mean_1() -> None:
    one, other = along(Site("head", 2, 3), 2), along(Site("head", 2, 1), 2)
    made, order = planes(FACTS, [one, other])
    weights, offsets = made[Site("head", 2)]
    for direction_, head, column in ((one, 3, order[0]), (other, 1, order[1])):
        for wanted in (0.0, 1.0):
            x = torch.zeros(4, 2, dtype=torch.float64)
            x[head] = torch.tensor(direction_.centre + wanted * direction_.vector)
            value = x.flatten().float() @ weights - offsets
            assert value[column].item() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (along(Site("residual", 3), 8), SiteError, r"residual\[3\] is not in this model; it has blocks 0\.\.2"),
        (along(Site("head", 1, 0), 3), SiteError, "block 1 has no heads that can be read: it carries a state.*: 0, 2"),
        (along(Site("head", 0, 2), 3), SiteError, r"block 0 has query heads 0\.\.1"),
        (along(Site("final"), 7), DirectionError, "direction at final: 7 values, the site has 8"),
    ],
)
def test_what_the_model_has_no_place_for_is_refused(wrong: Direction, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        planes(FACTS, [wrong])
