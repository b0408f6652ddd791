"""Mitigation: a recipe of several heads acts at all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monitor.errors import SettingsError
from monitor.service.mitigation import Mitigator, choose_mitigator
from monitor.stream.wire import WireMessage
from probes.capture.sites import Site
from probes.card import MitigationCard, MitigationSite, Probe
from probes.directions import Direction
from probes.steer.generation import generate
from probes.steer.steering import steering
from tests.support.models.tiny import shared_chat, user
from tests.support.stream.worker import make_probe


def of_heads(n: int) -> Probe:
    rng = np.random.default_rng(3)
    heads = [Direction(Site("head", 1, h), rng.standard_normal(12), np.zeros(12), 2.0) for h in range(n)]
    plain = make_probe(shared_chat("llama"), "heads")
    card = MitigationCard(
        site="head[1,0]",
        mode="add",
        strength=-8.0,
        positions="last",
        sigma=2.0,
        cosine_to_detector=None,
        also=[MitigationSite(site=f"head[1,{h}]", strength=8.0, sigma=2.0) for h in range(1, n)],
    )
    return Probe(plain.card.model_copy(update={"mitigation": card}), plain.directions, heads)


def test_all_heads_of_a_recipe_act_and_are_named() -> None:
    chat, probe = shared_chat("llama"), of_heads(3)
    mitigator = Mitigator(chat, probe, also_plain=True, max_new_tokens=6)
    turns = [user(f"Question {i}?") for i in range(4)]
    prompts = [chat.render(t) for t in turns]
    found = mitigator([WireMessage("m", t) for t in turns])
    with steering(chat, probe.interventions) as state:
        wanted = generate(chat, prompts, max_new_tokens=6, steered=state)
    assert [f.mitigated for f in found] == wanted
    with steering(chat, probe.interventions[:1]) as state:
        first_alone = generate(chat, prompts, max_new_tokens=6, steered=state)
    assert [f.mitigated for f in found] != first_alone
    assert [f.plain for f in found] == generate(chat, prompts, max_new_tokens=6)
    assert all(f"head[1,{h}]" in mitigator.recipe for h in range(3))


def test_a_probe_without_a_recipe_cannot_mitigate(tmp_path: Path) -> None:
    plain = make_probe(shared_chat("llama"), "plain")
    with pytest.raises(SettingsError, match="no steering recipe"):
        Mitigator(shared_chat("llama"), plain, also_plain=False, max_new_tokens=4)
    assert choose_mitigator([plain, of_heads(2)], None).card.mitigation is not None
    with pytest.raises(SettingsError, match="no steering recipe"):
        choose_mitigator([plain], None)
