"""Norm-matched controls: the same amount at every token, along another vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from probes.capture.sites import Site, observing
from probes.directions import Direction, random_like
from probes.errors import SteeringError
from probes.model.load import ChatModel
from probes.steer.steering import Intervention, Mode, steering
from tests.support.models.tiny import HEAD_DIM, WIDTH, shared_chat

SITES = [Site("residual", 1), Site("final"), Site("head", 1, 2)]


def direction(site: Site, seed: int = 0) -> Direction:
    width = HEAD_DIM if site.kind == "head" else WIDTH
    rng = np.random.default_rng(seed)
    return Direction(site, 3 * rng.standard_normal(width), rng.standard_normal(width), 0.7)


def read(chat: ChatModel, site: Site) -> NDArray[np.float64]:
    got: list[torch.Tensor] = []
    place = Site("head", site.layer) if site.kind == "head" else site
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), observing(chat.layout, {place: got.append}) as run:
        run(input_ids=ids, attention_mask=torch.ones_like(ids))
    values = got[0][:, :, site.head] if site.kind == "head" else got[0]
    found: NDArray[np.float64] = values.double().numpy()
    return found


@pytest.mark.parametrize("site", SITES, ids=str)
@pytest.mark.parametrize("mode", ["subtract", "ablate", "add"])
def test_a_control_moves_every_token_as_much_along_its_own_vector(site: Site, mode: Mode) -> None:
    chat = shared_chat("llama")
    d = direction(site)
    other = random_like(d, 4).unit
    plain = read(chat, site)
    with steering(chat, [Intervention(d, mode, 0.6)]) as ours:
        own = read(chat, site) - plain
    with steering(chat, [Intervention(d, mode, 0.6, along=other)]) as theirs:
        control = read(chat, site) - plain
    np.testing.assert_allclose(control, (own @ d.unit)[..., None] * other, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(control, axis=-1), np.linalg.norm(own, axis=-1), atol=2e-5)
    assert np.linalg.norm(own, axis=-1).min() > 1e-3
    assert theirs.relative_change == pytest.approx(ours.relative_change, rel=1e-4)


def test_along_the_direction_itself_is_the_intervention() -> None:
    chat = shared_chat("llama")
    d = direction(Site("residual", 1))
    with steering(chat, [Intervention(d)]):
        plain = read(chat, d.site)
    with steering(chat, [Intervention(d, along=d.unit)]):
        np.testing.assert_allclose(read(chat, d.site), plain, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [np.ones(WIDTH), np.eye(WIDTH - 1)[0], np.zeros(WIDTH)], ids=["long", "width", "zero"]
)
def test_what_is_no_unit_vector_of_the_site_is_an_error(wrong: NDArray[np.float64]) -> None:
    chat = shared_chat("llama")
    with (
        pytest.raises(SteeringError, match=r"residual\[1\]: `along` must be a unit vector of 32 values"),
        steering(chat, [Intervention(direction(Site("residual", 1)), along=wrong)]),
    ):
        pass
