"""Heads of models whose blocks are not alike: some have attention and some a state, or heads of their own width."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded
from probes.capture.sites import Site, head_sites, parse_sites, site_width
from probes.directions import Direction, pooled_activations
from probes.errors import LayoutError, SiteError, SteeringError
from probes.heads.ablation import Ablation, AblationKind, ablating
from probes.heads.attribution import head_effects
from probes.heads.row_steering import Shift, steering_rows
from probes.model.load import ChatModel
from probes.scoring import Reader, all_scores
from probes.steer.steering import Intervention, steering
from tests.support.models.classes import class_chat
from tests.support.models.tiny import hook_count, token_prompts, untyped

HYBRID = ("granitemoehybrid", "jamba", "lfm2", "nemotron_h", "qwen3_5_text", "qwen3_next")
OTHERS = ("deepseek_v3", "gemma4_text", "kimi_linear", "mimo_v2_flash")
LAST = Aggregation("last", "prompt")


def unit(chat: ChatModel, site: Site, seed: int) -> Direction:
    rng = np.random.default_rng(seed)
    width = site_width(site, chat.layout)
    return Direction(site, rng.standard_normal(width), rng.standard_normal(width), 0.7)


def alone(chat: ChatModel, item: Encoded, heads: list[Site], ablation: Ablation) -> torch.Tensor:
    with torch.no_grad(), ablating(chat, heads, ablation):
        logits: torch.Tensor = untyped(chat.model)(input_ids=torch.tensor([item.ids]), use_cache=False).logits[0, -1]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("kind", ["undifferentiated", "scaling"])
@pytest.mark.parametrize("name", [*HYBRID, *OTHERS])
def test_the_effect_of_each_head_is_that_of_the_whole_model_with_it_ablated(name: str, kind: AblationKind) -> None:
    chat, ablation = class_chat(name), Ablation(kind)
    count = hook_count(chat.model)
    items = token_prompts(20, [5, 3, 9])
    effects = head_effects(chat, items, ablation=ablation).kl
    assert effects.shape == (3, chat.layout.n_blocks, chat.layout.n_heads)
    for number, item in enumerate(items):
        plain = alone(chat, item, [], ablation)
        wanted = np.full(effects.shape[1:], np.nan)
        for head in head_sites(chat.layout):
            wanted[head.layer, head.head] = (plain.exp() * (plain - alone(chat, item, [head], ablation))).sum()
        np.testing.assert_allclose(effects[number], wanted, atol=1e-5, rtol=1e-3)
    assert np.nanmax(effects) > 1e-4
    assert hook_count(chat.model) == count


@pytest.mark.parametrize("name", [*HYBRID, *OTHERS])
def test_heads_of_any_width_are_scored_together(name: str) -> None:
    chat = class_chat(name)
    items = token_prompts(0, [12, 7, 21])
    sites = [*head_sites(chat.layout), Site("residual", 1), Site("final")]
    directions = [unit(chat, site, i) for i, site in enumerate(sites)]
    parts = all_scores(chat, items, [Reader(tuple(directions), LAST)]).parts[0]
    pooled = pooled_activations(chat, items, sites, LAST)
    for column, one in enumerate(directions):
        wanted = (pooled[one.site] - one.centre) @ one.vector / one.norm**2
        np.testing.assert_allclose(parts[:, column], wanted, atol=2e-5, rtol=1e-4, err_msg=str(one.site))


@pytest.mark.parametrize("name", [*HYBRID, *OTHERS])
def test_rows_are_steered_each_at_its_heads(name: str) -> None:
    chat = class_chat(name)
    first, last = head_sites(chat.layout)[1], head_sites(chat.layout)[-1]
    rows = [
        [Shift(unit(chat, first, 1), 3.0)],
        [],
        [Shift(unit(chat, last, 2), -2.0), Shift(unit(chat, first, 3), 1.0)],
    ]
    ids = torch.randint(0, 256, (3, 9), generator=torch.Generator().manual_seed(5))

    def logits(rows_of: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = untyped(chat.model)(input_ids=rows_of, use_cache=False).logits
        return out

    with torch.no_grad():
        with steering_rows(chat, rows, "all"):
            together = logits(ids)
        for i, row in enumerate(rows):
            with steering(chat, [shift.intervention("all") for shift in row]):
                np.testing.assert_allclose(together[i], logits(ids[i : i + 1])[0], atol=2e-4)


@pytest.mark.parametrize("name", ["lfm2", "mamba"])
def test_a_block_without_heads_is_refused_by_name(name: str) -> None:
    chat = class_chat(name)
    head = Site("head", 0, 0)
    one = Direction(head, np.ones(8), np.zeros(8), 1.0)
    said = "block 0 has no heads that can be read: it has no attention; found: "
    items = token_prompts(0, [5])
    with pytest.raises(SiteError, match=said), ablating(chat, [head]):
        pytest.fail("ablated")
    with pytest.raises(SiteError, match=said), steering(chat, [Intervention(one)]):
        pytest.fail("steered")
    with pytest.raises(SiteError, match=said), steering_rows(chat, [[Shift(one, 1.0)]]):
        pytest.fail("steered")
    with pytest.raises(SiteError, match=said):
        all_scores(chat, items, [Reader((one,), LAST)])
    with pytest.raises(SiteError, match=said):
        head_effects(chat, items, [head])


def test_a_model_without_heads_says_so_where_all_are_asked_for() -> None:
    with pytest.raises(SiteError, match="no block of this model has heads"):
        head_effects(class_chat("mamba"), token_prompts(0, [5]))
    with pytest.raises(SiteError, match="no block of this model has heads"):
        parse_sites("heads", class_chat("rwkv").layout)
    assert len(parse_sites("all", class_chat("rwkv").layout)) == 4


def test_streams_cannot_be_replayed_block_by_block() -> None:
    """Gemma 3n: what a block gives is not one stream, so that a replay says so instead of being wrong."""
    with pytest.raises((LayoutError, SteeringError)):
        head_effects(class_chat("gemma3n_text"), token_prompts(0, [5, 7]))
