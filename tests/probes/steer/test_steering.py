from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from probes.capture.sites import Site, observing, site_width
from probes.directions import Direction
from probes.errors import SiteError, SteeringError
from probes.model.layout import Layout
from probes.model.load import ChatModel
from probes.steer.steering import Intervention, Mode, Positions, Steering, steering
from tests.support.models.tiny import (
    FAMILIES,
    HEAD_DIM,
    MULTIMODAL,
    N_BLOCKS,
    hook_count,
    shared_chat,
    tiny_chat,
    untyped,
)

ALL = (*FAMILIES, *MULTIMODAL)
SITES = [Site("residual", 0), Site("residual", N_BLOCKS - 1), Site("final"), Site("head", 1, 2)]


def direction(layout: Layout, site: Site, seed: int = 0, size: float = 3.0) -> Direction:
    rng = np.random.default_rng(seed)
    width = site_width(site, layout)
    return Direction(site, size * rng.standard_normal(width), rng.standard_normal(width), 0.7)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def read(chat: ChatModel, site: Site, batch: dict[str, torch.Tensor]) -> NDArray[np.float64]:
    """Activations at a site; a head's own slice where the site is a head. Sees what steering left there."""
    got: list[torch.Tensor] = []
    place = Site("head", site.layer) if site.kind == "head" else site
    with torch.no_grad(), observing(chat.layout, {place: got.append}) as run:
        run(**batch)
    values = got[0][:, :, site.head] if site.kind == "head" else got[0]
    found: NDArray[np.float64] = values.double().numpy()
    return found


def logits(chat: ChatModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = chat.model(**batch, use_cache=False).logits
    return found


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("site", SITES, ids=str)
def test_ablate_leaves_the_projection_at_the_centres(family: str, site: Site, batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat(family)
    d = direction(chat.layout, site)
    plain = read(chat, site, batch)
    with steering(chat, [Intervention(d)]):
        steered = read(chat, site, batch)
    at_centre = d.centre @ d.unit
    assert np.abs(plain @ d.unit - at_centre).max() > 0.1
    np.testing.assert_allclose(steered @ d.unit, at_centre, atol=2e-5)
    # What is orthogonal to the direction is as it was.
    along = ((steered - plain) @ d.unit)[..., None] * d.unit
    np.testing.assert_allclose(steered - along, plain, atol=2e-5)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("site", SITES, ids=str)
def test_subtract_add_and_part_of_ablate_in_closed_form(
    family: str, site: Site, batch: dict[str, torch.Tensor]
) -> None:
    chat = shared_chat(family)
    d = direction(chat.layout, site)
    plain = read(chat, site, batch)
    wanted: dict[Mode, NDArray[np.float64]] = {
        "subtract": plain - 0.3 * d.vector,
        "add": plain + 0.3 * d.sigma * d.unit,
        "ablate": plain - 0.3 * ((plain - d.centre) @ d.unit)[..., None] * d.unit,
    }
    for mode, values in wanted.items():
        with steering(chat, [Intervention(d, mode, 0.3)]):
            np.testing.assert_allclose(read(chat, site, batch), values, atol=2e-5, err_msg=mode)


def test_a_negative_strength_turns_the_sign(batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat("llama")
    d = direction(chat.layout, Site("residual", 1))
    plain = read(chat, d.site, batch)
    with steering(chat, [Intervention(d, "subtract", -2)]):
        np.testing.assert_allclose(read(chat, d.site, batch), plain + 2 * d.vector, atol=2e-5)


def test_an_edit_reaches_the_output(batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat("llama")
    before = logits(chat, batch)
    for site in SITES:
        with steering(chat, [Intervention(direction(chat.layout, site), "subtract")]):
            assert (logits(chat, batch) - before).abs().max() > 0.01, site


@pytest.mark.parametrize("family", ALL)
def test_a_head_edit_changes_that_heads_slice_alone(family: str, batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat(family)
    d = direction(chat.layout, Site("head", 1, 2))
    whole: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[torch.Tensor], None]:
        return lambda x: whole.__setitem__(name, x.clone())

    by_name: dict[str, list[Intervention]] = {"plain": [], "steered": [Intervention(d, "subtract")]}
    for name, interventions in by_name.items():
        observers = {Site("head", 1): keep(name)}
        with steering(chat, interventions), torch.no_grad(), observing(chat.layout, observers) as run:
            run(**batch)
    for head in range(4):
        same = torch.equal(whole["plain"][:, :, head], whole["steered"][:, :, head])
        assert same == (head != 2)


def test_several_interventions_act_together(batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat("llama")
    first = direction(chat.layout, Site("residual", 0), 1)
    second = direction(chat.layout, Site("residual", 0), 2)
    third = direction(chat.layout, Site("head", 2, 0), 3)
    plain = read(chat, first.site, batch)
    everything = [Intervention(first, "subtract"), Intervention(second, "subtract", 2.0), Intervention(third)]
    with steering(chat, everything):
        np.testing.assert_allclose(read(chat, first.site, batch), plain - first.vector - 2 * second.vector, atol=3e-5)
        np.testing.assert_allclose(read(chat, third.site, batch) @ third.unit, third.centre @ third.unit, atol=2e-5)


@pytest.mark.parametrize("family", ALL)
def test_the_model_is_left_as_it_was_found(family: str, batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat(family)
    before, count = logits(chat, batch), hook_count(chat.model)
    interventions = [Intervention(direction(chat.layout, s)) for s in SITES]
    with steering(chat, interventions):
        assert hook_count(chat.model) > count + len(SITES)
        assert not torch.equal(logits(chat, batch), before)
    assert hook_count(chat.model) == count
    with pytest.raises(ZeroDivisionError), steering(chat, interventions):
        raise ZeroDivisionError
    assert hook_count(chat.model) == count
    assert torch.equal(logits(chat, batch), before)


def test_an_intervention_that_does_not_fit_leaves_no_hook() -> None:
    chat = shared_chat("llama")
    count = hook_count(chat.model)
    fits = Intervention(direction(chat.layout, Site("residual", 0)))
    cases: list[tuple[Direction, Mode, type[Exception], str]] = [
        (Direction(Site("residual", 9), np.ones(32), np.zeros(32), 1.0), "ablate", SiteError, r"residual\[9\]"),
        (
            Direction(Site("residual", 0), np.ones(31), np.zeros(31), 1.0),
            "ablate",
            SteeringError,
            "31 values, the site 32",
        ),
        (
            Direction(Site("head", 0, 0), np.ones(32), np.zeros(32), 1.0),
            "ablate",
            SteeringError,
            "32 values, the site 12",
        ),
        (Direction(Site("head", 0, 0), np.ones(12), np.zeros(12), 0.0), "add", SteeringError, "needs sigma > 0"),
    ]
    for bad, mode, error, said in cases:
        with pytest.raises(error, match=said), steering(chat, [fits, Intervention(bad, mode)]):
            pytest.fail("an intervention that does not fit was applied")
        assert hook_count(chat.model) == count


def left_padded(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 256, (3, 11), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    mask[2, :7] = 0
    return {"input_ids": torch.where(mask.bool(), ids, torch.tensor(256)), "attention_mask": mask}


def generated(
    chat: ChatModel, batch: dict[str, torch.Tensor], interventions: list[Intervention], use_cache: bool, new: int = 14
) -> tuple[torch.Tensor, torch.Tensor, Steering]:
    with steering(chat, interventions) as state, torch.inference_mode():
        state.begin(batch["input_ids"].shape[1])
        out = untyped(chat.model).generate(
            **batch,
            max_new_tokens=new,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=256,
            eos_token_id=261,
            return_dict_in_generate=True,
            output_logits=True,
        )
        return out.sequences, torch.stack(out.logits, 1), state


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("mode", ["subtract", "ablate"])
def test_generation_is_the_same_with_and_without_a_cache(family: str, positions: Positions, mode: Mode) -> None:
    chat = shared_chat(family)
    batch = left_padded(family)
    # A head and a block, so that what is edited early is read again by later blocks and later tokens.
    interventions = [
        Intervention(direction(chat.layout, site, seed, 1.0), mode, 0.8, positions)
        for seed, site in enumerate((Site("head", 0, 1), Site("residual", 1)))
    ]
    cached, cached_logits, _ = generated(chat, batch, interventions, True)
    fresh, fresh_logits, _ = generated(chat, batch, interventions, False)
    assert torch.equal(cached, fresh)
    torch.testing.assert_close(cached_logits, fresh_logits, atol=2e-4, rtol=1e-4)
    assert cached.shape[1] == 25
    plain_logits = generated(chat, batch, [], True)[1]
    assert (plain_logits - cached_logits).abs().amax((0, 2)).min() > 0.01  # at every step


def test_last_edits_the_last_prompt_token_and_what_follows(batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat("llama")
    d = direction(chat.layout, Site("residual", 1))
    plain = read(chat, d.site, batch)
    with steering(chat, [Intervention(d, "subtract", 1.0, "last")]) as state:
        state.begin(6)
        steered = read(chat, d.site, batch)
    np.testing.assert_array_equal(steered[:, :5], plain[:, :5])
    np.testing.assert_allclose(steered[:, 5:], plain[:, 5:] - d.vector, atol=2e-5)


def test_last_and_all_are_not_the_same() -> None:
    chat = shared_chat("llama")
    d = direction(chat.layout, Site("residual", 0))
    batch = left_padded("llama")
    found = {p: generated(chat, batch, [Intervention(d, "subtract", 1.0, p)], True)[1] for p in ("last", "all")}
    assert (found["last"] - found["all"]).abs().max() > 0.01


def test_last_without_the_prompts_width_is_an_error(batch: dict[str, torch.Tensor]) -> None:
    chat = shared_chat("llama")
    last = Intervention(direction(chat.layout, Site("final")), positions="last")
    with pytest.raises(SteeringError, match="begin"), steering(chat, [last]):
        logits(chat, batch)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "llava"])
@pytest.mark.parametrize("site", [Site("residual", 1), Site("head", 1, 2)], ids=str)
def test_relative_change_in_closed_form(family: str, site: Site) -> None:
    chat = shared_chat(family)
    d = direction(chat.layout, site)
    batch = left_padded(family)
    kept = batch["attention_mask"].bool().numpy()
    plain = read(chat, site, batch)
    size = np.linalg.norm(plain, axis=-1).clip(1e-9)  # a head sees nothing at a masked position
    by_mode: dict[Mode, NDArray[np.float64]] = {
        "subtract": 0.4 * d.norm / size,
        "ablate": 0.4 * np.abs((plain - d.centre) @ d.unit) / size,
    }
    for mode, ratio in by_mode.items():
        with steering(chat, [Intervention(d, mode, 0.4)]) as state:
            assert state.relative_change == 0
            logits(chat, batch)
        assert state.relative_change == pytest.approx(ratio[kept].mean(), rel=1e-4), mode
        with steering(chat, [Intervention(d, mode, 0.4, "last")]) as state:
            state.begin(11)
            logits(chat, batch)
        assert state.relative_change == pytest.approx(ratio[:, 10].mean(), rel=1e-4), mode


def test_relative_change_counts_every_generated_token_once() -> None:
    """With a cache the hooks see prompt + 13 single tokens; the last new token is never read."""
    chat = shared_chat("llama")
    d = direction(chat.layout, Site("residual", 1), size=1.0)
    batch = left_padded("llama")
    sequences, _, state = generated(chat, batch, [Intervention(d, "subtract")], True)
    mask = torch.cat([batch["attention_mask"], torch.ones(3, 13, dtype=torch.long)], 1)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    whole = {"input_ids": sequences[:, :-1], "attention_mask": mask, "position_ids": position}
    with steering(chat, [Intervention(d, "subtract")]) as once:
        logits(chat, whole)
    assert state.calls == 14
    assert state.relative_change == pytest.approx(once.relative_change, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("site", SITES, ids=str)
def test_lower_precisions_keep_their_dtype(dtype: torch.dtype, site: Site, batch: dict[str, torch.Tensor]) -> None:
    chat = tiny_chat("llama", dtype=dtype)
    d = direction(chat.layout, site)
    with steering(chat, [Intervention(d)]):
        assert logits(chat, batch).dtype == dtype
        projected = read(chat, site, batch) @ d.unit
    np.testing.assert_allclose(projected, d.centre @ d.unit, atol=0.05)


def test_an_intervention_names_itself() -> None:
    d = direction(shared_chat("llama").layout, Site("head", 1, 2))
    assert d.vector.shape == (HEAD_DIM,)
    assert str(Intervention(d, "add", 2.5, "last")) == "add x2.5 at head[1,2], positions last"
