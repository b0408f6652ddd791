"""Every decoder class that is said to be read: a tiny random model of it, against transformers and against itself.

What is silently wrong shows here: a norm that runs twice, a block that returns something else than the residual stream,
a window that slides over padding, a head that is not where it is thought to be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.capture.sites import Observer, Site, head_sites, observing, parse_sites, site_width
from probes.directions import Direction
from probes.errors import SiteError
from probes.model.block_heads import Heads
from probes.model.checkpoint import inspect
from probes.model.layout import find_layout
from probes.model.load import ChatModel, wrap
from probes.model.partial import load_part
from probes.steer.steering import Intervention, Steering, steering
from tests.support.models.classes import CASES, class_chat, class_model
from tests.support.models.tiny import tiny_tokenizer, untyped

CLASSES = sorted(CASES)
WITH_HEADS = [name for name in CLASSES if not isinstance(CASES[name].heads, str)]
LENGTHS = (30, 21, 9)
IDS = torch.randint(0, 256, (3, 30), generator=torch.Generator().manual_seed(1))
MASK = torch.arange(30).unsqueeze(0) < torch.tensor(LENGTHS).unsqueeze(1)
# `output_hidden_states` of these begins with the first block's output, not with the embeddings.
WITHOUT_EMBEDDINGS = ("falcon_mamba", "mamba", "mamba2", "rwkv")
# Attentions that add the residual stream to what their projection gives.
ADDING = ("bloom",)
# One projection makes values and queries or keys, so that a test would have to know how they lie in it.
JOINT_VALUES = (
    *("bloom", "codegen", "dbrx", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_neox_japanese", "inkling2_text"),
    *("mpt", "persimmon", "phi3", "zaya"),
)
# Other values of one head are other masks of all.
VALUES_MAKE_MASKS = ("doge",)
# Without steering too, the class answers otherwise with its cache than without.
OWN_CACHE_DIFFERS = ("moshi",)

Got = dict[Site, torch.Tensor]


def everything(chat: ChatModel) -> list[Site]:
    layout = chat.layout
    heads = [Site("head", layer) for layer in layout.blocks_with_heads]
    return [*(Site("residual", layer) for layer in range(layout.n_blocks)), Site("final"), *heads]


def capture(chat: ChatModel, sites: list[Site], ids: torch.Tensor = IDS, mask: torch.Tensor = MASK) -> Got:
    got: Got = {}

    def keep(site: Site) -> Observer:
        return lambda x: got.__setitem__(site, x.clone())

    with torch.no_grad(), observing(chat.layout, {s: keep(s) for s in sites}) as run:
        run(input_ids=ids, attention_mask=mask)
    return got


def close(found: torch.Tensor, wanted: torch.Tensor, said: object = "", atol: float = 2e-5) -> None:
    size = max(1.0, float(wanted.abs().max()))
    np.testing.assert_allclose(found.detach() / size, wanted.detach() / size, atol=atol, rtol=0, err_msg=str(said))


def direction(chat: ChatModel, site: Site) -> Direction:
    rng = np.random.default_rng(0)
    width = site_width(site, chat.layout)
    return Direction(site, 3 * rng.standard_normal(width), rng.standard_normal(width), 0.7)


@pytest.mark.parametrize("name", CLASSES)
def test_heads_are_where_the_class_has_attention_and_refused_by_name_elsewhere(name: str) -> None:
    layout, case = class_chat(name).layout, CASES[name]
    for layer, heads in enumerate(layout.heads):
        wanted = case.of_block(layer)
        if isinstance(wanted, str):
            assert isinstance(heads, str), layer
            assert wanted in heads
            with pytest.raises(SiteError, match=f"block {layer} has no heads that can be read: "):
                parse_sites(f"head[{layer},0]", layout)
        else:
            assert isinstance(heads, Heads), heads
            assert (heads.count, heads.width) == wanted
    if layout.n_heads:
        assert parse_sites("heads", layout) == head_sites(layout)
        with pytest.raises(SiteError, match=r"query heads 0\.\."):
            parse_sites(f"head[{layout.blocks_with_heads[0]},{layout.n_heads}]", layout)
    else:
        with pytest.raises(SiteError, match="no block of this model has heads"):
            parse_sites("heads", layout)


@pytest.mark.parametrize("name", CLASSES)
def test_residual_and_final_are_the_hidden_states_of_transformers(name: str) -> None:
    chat = class_chat(name)
    layout = chat.layout
    got = capture(chat, everything(chat))
    with torch.no_grad():
        out = chat.model(input_ids=IDS, attention_mask=MASK.long(), output_hidden_states=True, use_cache=False)
    states = out.hidden_states[0 if name in WITHOUT_EMBEDDINGS else 1 :]
    if layout.stream is not None:
        # Those of transformers end before the streams are made one and normed.
        states = (*(state[layout.stream] for state in states), layout.decoder(input_ids=IDS, attention_mask=MASK)[0])
    blocks = layout.n_blocks - (len(states) == layout.n_blocks)
    assert len(states) == blocks + 1
    for layer in range(blocks):
        # RWKV halves what it hands on at every so many blocks.
        halved = name == "rwkv" and (layer + 1) % untyped(chat.model).config.rescale_every == 0
        close(got[Site("residual", layer)][MASK], states[layer][MASK] * (2 if halved else 1), layer)
    close(got[Site("final")][MASK], states[-1][MASK])


@pytest.mark.parametrize("name", WITH_HEADS)
def test_heads_through_the_projection_add_up_to_the_attentions_output(name: str) -> None:
    chat = class_chat(name)
    given: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda _m, _i, out: given.__setitem__(layer, out[0] if isinstance(out, tuple) else out)

    layers = chat.layout.blocks_with_heads
    parts = [chat.layout.heads_at(layer) for layer in layers]
    whole = [h.projection if name in ADDING else h.attention for h in parts]
    handles = [m.register_forward_hook(keep(layer)) for layer, m in zip(layers, whole, strict=True)]
    try:
        got = capture(chat, everything(chat))
    finally:
        for handle in handles:
            handle.remove()
    for layer, heads in zip(layers, parts, strict=True):
        projection = untyped(heads.projection)
        weight = projection.weight if hasattr(projection, "in_features") else projection.weight.T
        x = got[Site("head", layer)]
        assert x.shape == (3, 30, heads.count, heads.width)
        by_head = weight.view(-1, heads.count, heads.width)
        total = torch.einsum("bthw,ohw->bto", x, by_head)
        total = total if projection.bias is None else total + projection.bias
        close(total[MASK], given[layer][MASK], layer)


@pytest.mark.parametrize("name", [name for name in WITH_HEADS if name not in (*JOINT_VALUES, *VALUES_MAKE_MASKS)])
def test_a_head_is_the_one_whose_values_it_is_made_of(name: str) -> None:
    """Other values of one group change its heads' slices and no other's."""
    chat = class_chat(name)
    layer = chat.layout.blocks_with_heads[0]
    heads = chat.layout.heads_at(layer)
    attention = untyped(heads.attention)
    if hasattr(attention, "kv_b_proj"):
        weight = attention.kv_b_proj.weight
        rows = weight.view(heads.count, -1, weight.shape[1])[1, -heads.width :]
        changed = [1]
    else:
        made = attention.Wv if name == "ctrl" else attention.v_proj
        weight = getattr(made, "linear", made).weight
        size = heads.count // heads.kv_count
        rows = weight.view(heads.kv_count, -1, weight.shape[1])[-1]
        changed = list(range(heads.count - size, heads.count))
    place = Site("head", layer)
    before = capture(chat, [place])[place]
    kept = rows.clone()
    try:
        rows.mul_(1.5)
        after = capture(chat, [place])[place]
    finally:
        rows.copy_(kept)
    differing = [h for h in range(heads.count) if (after - before)[:, :, h][MASK].abs().max() > 1e-6]
    assert differing == changed


@pytest.mark.parametrize("name", CLASSES)
def test_a_row_padded_in_a_batch_reads_as_it_does_alone(name: str) -> None:
    chat = class_chat(name)
    together = capture(chat, everything(chat))
    for row, length in enumerate(LENGTHS):
        alone = capture(chat, everything(chat), IDS[row : row + 1, :length], MASK[row : row + 1, :length])
        for site, values in alone.items():
            close(together[site][row, :length], values[0], site)


@pytest.mark.parametrize("name", CLASSES)
def test_the_forward_pass_ends_at_the_deepest_site(name: str) -> None:
    chat = class_chat(name)
    whole = capture(chat, everything(chat))
    ran: list[int] = []
    handles = [b.register_forward_pre_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(chat.layout.blocks)]
    try:
        for site in (Site("residual", 1), *[Site("head", layer) for layer in chat.layout.blocks_with_heads[:1]]):
            ran.clear()
            close(capture(chat, [site])[site][MASK], whole[site][MASK], site)
            assert ran == list(range(site.layer + 1))
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", CLASSES)
def test_steering_acts_at_its_site_and_on_what_follows(name: str) -> None:
    chat = class_chat(name)
    plain = capture(chat, everything(chat))
    some_head = [Site("head", layer, 1) for layer in chat.layout.blocks_with_heads[:1]]
    for site in (Site("residual", 1), Site("final"), *some_head):
        one = direction(chat, site)
        with steering(chat, [Intervention(one, "subtract")]):
            steered = capture(chat, everything(chat))
        place = Site("head", site.layer) if site.kind == "head" else site
        wanted = plain[place].clone()
        wanted[..., site.head, :] -= torch.tensor(one.vector, dtype=torch.float32) if site.kind == "head" else 0
        if site.kind != "head":
            wanted -= torch.tensor(one.vector, dtype=torch.float32)
        close(steered[place][MASK], wanted[MASK], site)
        assert (steered[Site("final")] - plain[Site("final")])[MASK].abs().max() > 1e-3
        before = [s for s in plain if s.kind == "residual" and s.layer < (site.layer if site.layer >= 0 else 99)]
        assert all(torch.equal(plain[s], steered[s]) for s in before)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in OWN_CACHE_DIFFERS])
def test_steering_from_the_last_prompt_token_is_the_same_with_and_without_a_cache(name: str) -> None:
    chat = class_chat(name)
    sites = [Site("residual", 1), Site("final"), *[Site("head", i, 1) for i in chat.layout.blocks_with_heads[:1]]]
    interventions = [Intervention(direction(chat, site), "subtract", 0.3, "last") for site in sites]
    prompt = IDS[:1, :12]

    def answer(use_cache: bool) -> tuple[torch.Tensor, Steering]:
        with torch.no_grad(), steering(chat, interventions) as state:
            state.begin(prompt.shape[1])
            out = untyped(chat.model).generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=4,
                min_new_tokens=4,
                do_sample=False,
                use_cache=use_cache,
                return_dict_in_generate=True,
                output_logits=True,
            )
        return torch.cat(out.logits), state

    cached, state = answer(True)
    assert state.calls == 4
    plain, _ = answer(False)
    # States are summed up in another order in a cache.
    close(cached, plain, atol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_the_first_blocks_alone_read_the_same(name: str, tmp_path: Path) -> None:
    whole = class_model(name)
    untyped(whole).save_pretrained(tmp_path)
    sites = [Site("residual", 1), *[Site("head", i) for i in find_layout(whole).blocks_with_heads if i < 2]]
    part = load_part(inspect(str(tmp_path), name=name), sites)
    assert any(parameter.is_meta for parameter in part.parameters())
    wanted = capture(class_chat(name), sites)
    got = capture(wrap(part, tiny_tokenizer(), name=name), sites)
    for site in sites:
        close(got[site][MASK], wanted[site][MASK], site)


def test_a_model_of_one_seed_is_the_same_twice() -> None:
    first, second = (class_model("qwen3_next").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
