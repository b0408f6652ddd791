from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.capture.sites import Site, check_site, observing, parse_site, parse_sites, site_width
from probes.errors import SiteError
from probes.model.load import ChatModel
from tests.support.models.tiny import (
    FAMILIES,
    HEAD_DIM,
    MULTIMODAL,
    N_BLOCKS,
    N_HEADS,
    WIDTH,
    attention_of,
    blocks_of,
    hook_count,
    shared_chat,
    tiny_chat,
    untyped,
)

ALL = (*FAMILIES, *MULTIMODAL)
SITES = [*(Site("residual", i) for i in range(N_BLOCKS)), Site("final"), *(Site("head", i) for i in range(N_BLOCKS))]


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 256, (3, 30), generator=generator)
    mask = torch.arange(30).unsqueeze(0) < torch.tensor([[30], [21], [9]])
    return {"input_ids": ids, "attention_mask": mask}


def capture(chat: ChatModel, sites: list[Site], batch: dict[str, torch.Tensor]) -> dict[Site, torch.Tensor]:
    got: dict[Site, torch.Tensor] = {}

    def keep(site: Site) -> Callable[[torch.Tensor], None]:
        return lambda x: got.__setitem__(site, x.clone())

    with torch.no_grad(), observing(chat.layout, {s: keep(s) for s in sites}) as run:
        run(**batch)
    return got


def by_hand(
    model: Any, modules: dict[int, Any], batch: dict[str, torch.Tensor], pre: bool = False
) -> dict[int, torch.Tensor]:
    """Outputs (or first inputs) of modules, by plain PyTorch hooks on a full forward of the whole model."""
    got: dict[int, torch.Tensor] = {}
    handles = []
    for key, module in modules.items():
        if pre:
            handles.append(module.register_forward_pre_hook(lambda _m, args, key=key: got.__setitem__(key, args[0])))
        else:
            handles.append(
                module.register_forward_hook(
                    lambda _m, _i, out, key=key: got.__setitem__(key, out[0] if isinstance(out, tuple) else out)
                )
            )
    with torch.no_grad():
        model(**batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return got


@pytest.mark.parametrize("family", ALL)
def test_final_is_the_last_hidden_state_of_transformers(family: str, batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat(family)
    got = capture(chat, [Site("final")], batch)[Site("final")]
    with torch.no_grad():
        states = chat.model(**batch, output_hidden_states=True, use_cache=False).hidden_states
    kept = batch["attention_mask"]
    assert len(states) == N_BLOCKS + 1
    torch.testing.assert_close(got[kept], states[-1][kept], atol=1e-5, rtol=1e-5)
    # It is after the norm: the last block's own output is something else.
    before = capture(chat, [Site("residual", N_BLOCKS - 1)], batch)[Site("residual", N_BLOCKS - 1)]
    assert not torch.allclose(before[kept], states[-1][kept], atol=1e-2)


@pytest.mark.parametrize("family", ALL)
def test_residual_is_what_a_hand_written_hook_sees(family: str, batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat(family)
    hand = by_hand(chat.model, dict(enumerate(blocks_of(family, chat.model))), batch)
    got = capture(chat, SITES, batch)
    kept = batch["attention_mask"]
    for layer in range(N_BLOCKS):
        torch.testing.assert_close(got[Site("residual", layer)][kept], hand[layer][kept], atol=1e-5, rtol=1e-5)


def projection_weight(family: str, projection: Any) -> torch.Tensor:
    weight: torch.Tensor = projection.weight
    return weight.T if family == "gpt2" else weight  # Conv1D keeps (in, out)


@pytest.mark.parametrize("family", ALL)
def test_head_slices_through_w_o_add_up_to_the_attention_output(family: str, batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat(family)
    attentions = {i: attention_of(b) for i, b in enumerate(blocks_of(family, chat.model))}
    hand = by_hand(chat.model, attentions, batch)
    got = capture(chat, SITES, batch)
    head_dim = chat.layout.heads_at(0).width
    kept = batch["attention_mask"]
    for layer in range(N_BLOCKS):
        heads = got[Site("head", layer)]
        assert heads.shape == (3, 30, N_HEADS, head_dim)
        projection = untyped(chat.layout.heads_at(layer).projection)
        weight = projection_weight(family, projection)
        total = torch.zeros(3, 30, WIDTH) if projection.bias is None else projection.bias.expand(3, 30, WIDTH).clone()
        for head in range(N_HEADS):
            total += heads[:, :, head] @ weight[:, head * head_dim : (head + 1) * head_dim].T
        torch.testing.assert_close(total[kept], hand[layer][kept], atol=1e-5, rtol=1e-5)


def test_gpt2_and_neox_have_a_bias_that_counts() -> None:
    for family in ("gpt2", "gpt_neox"):
        assert untyped(shared_chat(family).layout.heads_at(0).projection).bias.abs().max() > 0.01


def test_heads_of_one_group_share_their_keys_and_values(batch: dict[str, torch.Tensor]) -> None:
    """KV group of head h is h // (H / H_kv): silencing the values of group 1 silences heads 2 and 3 alone."""
    chat = tiny_chat("llama")
    layout = chat.layout
    with torch.no_grad():
        attention_of(layout.blocks[0]).v_proj.weight[HEAD_DIM:] = 0
    heads = capture(chat, [Site("head", 0)], batch)[Site("head", 0)]
    silent = [h for h in range(N_HEADS) if heads[:, :, h].abs().max() == 0]
    assert silent == [h for h in range(N_HEADS) if h // (layout.n_heads // layout.heads_at(0).kv_count) == 1]


@pytest.mark.parametrize("family", ALL)
def test_hooks_are_gone_after_the_context_and_after_an_error(family: str, batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat(family)
    with torch.no_grad():
        before = chat.model(**batch, use_cache=False).logits
    count = hook_count(chat.model)

    def fails(_: torch.Tensor) -> None:
        raise ZeroDivisionError

    with observing(chat.layout, dict.fromkeys(SITES, lambda _: None)) as run:
        assert hook_count(chat.model) >= count + len(SITES)
        with torch.no_grad():
            run(**batch)
    assert hook_count(chat.model) == count
    with pytest.raises(ZeroDivisionError), observing(chat.layout, {Site("residual", 1): fails}) as run:
        run(**batch)
    assert hook_count(chat.model) == count
    with torch.no_grad():
        assert torch.equal(chat.model(**batch, use_cache=False).logits, before)


def test_hooks_are_gone_when_a_site_cannot_be_hooked() -> None:
    chat = shared_chat("llama")
    count = hook_count(chat.model)
    bad = {Site("residual", 0): lambda _: None, Site("residual", 99): lambda _: None}
    with pytest.raises(SiteError, match="not in this model"), observing(chat.layout, bad):
        pytest.fail("a block that is not there was hooked")
    assert hook_count(chat.model) == count


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("site", [Site("residual", 0), Site("residual", 1), Site("head", 1)], ids=str)
def test_an_early_stop_gives_the_same_values_and_does_stop(
    family: str, site: Site, batch: dict[str, torch.Tensor]
) -> None:
    chat = shared_chat(family)
    ran = []
    handles = [b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(chat.layout.blocks)]
    try:
        early = capture(chat, [site], batch)[site]
        reached = list(ran)
    finally:
        for handle in handles:
            handle.remove()
    full = capture(chat, SITES, batch)[site]
    kept = batch["attention_mask"]
    assert torch.equal(early[kept], full[kept])
    assert reached == (list(range(site.layer)) if site.kind == "head" else list(range(site.layer + 1)))


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precisions_are_captured_in_their_own_dtype(
    family: str, dtype: torch.dtype, batch: dict[str, torch.Tensor]
) -> None:
    low = capture(tiny_chat(family, dtype=dtype), SITES, batch)
    exact = capture(shared_chat(family), SITES, batch)
    kept = batch["attention_mask"]
    for site in SITES:
        assert low[site].dtype == dtype
        wrong = (low[site][kept].float() - exact[site][kept]).norm() / exact[site][kept].norm()
        assert wrong < 0.1, site


@given(
    st.one_of(
        st.just(Site("final")),
        st.builds(lambda n: Site("residual", n), st.integers(0, 500)),
        st.builds(lambda n, h: Site("head", n, h), st.integers(0, 500), st.integers(0, 500)),
    )
)
def test_a_site_reads_back_as_it_was_written(site: Site) -> None:
    assert parse_site(str(site)) == site


@pytest.mark.parametrize(
    "text",
    [
        *("", "residual", "residual[]", "residual[-1]", "head[3]", "head[1,2,3]", "Final", "final[0]"),
        *(f"residual[{'9' * 50_000}]", f"head[1,{'9' * 50_000}]"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_site_is_refused(text: str) -> None:
    with pytest.raises(SiteError, match=r"none of final, residual\[BLOCK\], head\[BLOCK,HEAD\]"):
        parse_site(text)


def test_lists_of_sites() -> None:
    layout = shared_chat("llama").layout
    assert parse_sites("residual[1], final,head[2, 3]", layout) == [
        Site("residual", 1),
        Site("final"),
        Site("head", 2, 3),
    ]
    assert parse_sites("final,final", layout) == [Site("final")]
    assert parse_sites("residual", layout) == [Site("residual", i) for i in range(3)]
    assert len(parse_sites("heads", layout)) == N_BLOCKS * N_HEADS
    assert parse_sites("all", layout) == [*(Site("residual", i) for i in range(3)), Site("final")]
    for text in ("", " , ", "residual[0],nonsense", "residual[3]", "head[0,4]"):
        with pytest.raises(SiteError):
            parse_sites(text, layout)


def test_a_site_out_of_range_says_what_there_is() -> None:
    layout = shared_chat("llama").layout
    with pytest.raises(SiteError, match=r"head\[1,4\] is not in this model; block 1 has query heads 0\.\.3"):
        check_site(Site("head", 1, 4), layout)
    with pytest.raises(SiteError, match=r"residual\[3\] is not in this model"):
        check_site(Site("residual", 3), layout)


def test_widths() -> None:
    layout = shared_chat("llama").layout
    assert [site_width(s, layout) for s in (Site("final"), Site("residual", 0), Site("head", 0, 1))] == [32, 32, 12]
