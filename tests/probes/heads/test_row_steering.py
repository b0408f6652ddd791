"""Rows of one forward pass, each with its own heads, against `probes.steer.steering` on each row alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.capture.sites import Site, site_width
from probes.directions import Direction
from probes.errors import SiteError, SteeringError
from probes.heads.row_steering import Shift, steering_rows
from probes.model.layout import Layout
from probes.steer.steering import Positions, steering
from tests.support.models.tiny import FAMILIES, MULTIMODAL, hook_count, shared_chat, tiny_chat, untyped

ALL = (*FAMILIES, *MULTIMODAL)


def shift(layout: Layout, site: Site, alpha: float, seed: int = 0, sigma: float = 0.7) -> Shift:
    rng = np.random.default_rng(seed)
    width = site_width(site, layout)
    return Shift(Direction(site, rng.standard_normal(width), np.zeros(width), sigma), alpha)


def rows_of(layout: Layout) -> list[list[Shift]]:
    """One head, none, two heads of one block and one of another, a block, the final norm, one head twice."""
    return [
        [shift(layout, Site("head", 0, 1), 4.0, 1)],
        [],
        [
            shift(layout, Site("head", 1, 0), -3.0, 2),
            shift(layout, Site("head", 1, 3), 5.0, 3),
            shift(layout, Site("head", 2, 2), 2.0, 4),
        ],
        [shift(layout, Site("residual", 1), -2.0, 5), shift(layout, Site("final"), 1.0, 6)],
        [shift(layout, Site("head", 2, 0), 3.0, 7), shift(layout, Site("head", 2, 0), -1.0, 8)],
    ]


def ragged(n: int = 5) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Right-padded prompts of different lengths, and where each ends."""
    generator = torch.Generator().manual_seed(3)
    widths = [9, 5, 7, 4, 8]
    ids = torch.randint(0, 256, (n, 12), generator=generator)
    lengths = torch.tensor([w + 3 for w in widths]).unsqueeze(1)
    mask = (torch.arange(12) < lengths).long()
    return ids * mask, mask, widths


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("positions", ["last", "all"])
def test_every_row_is_what_it_is_alone(family: str, positions: Positions) -> None:
    chat = shared_chat(family)
    rows = rows_of(chat.layout)
    ids, mask, widths = ragged()
    with torch.no_grad():
        with steering_rows(chat, rows, positions) as state:
            state.begin(widths)
            together = chat.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        plain = chat.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for i, row in enumerate(rows):
            n = int(mask[i].sum())
            with steering(chat, [s.intervention(positions) for s in row]) as state:
                state.begin(widths[i])
                alone = chat.model(input_ids=ids[i : i + 1, :n], use_cache=False).logits
            torch.testing.assert_close(together[i, :n], alone[0], atol=1e-5, rtol=1e-5)
            moved = float((together[i, :n] - plain[i, :n]).abs().max())
            assert (moved > 1e-3) == bool(row), i


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_rows_generate_what_each_generates_alone(family: str) -> None:
    chat = shared_chat(family)
    rows = rows_of(chat.layout)
    ids = torch.randint(0, 256, (1, 11), generator=torch.Generator().manual_seed(4))
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 256, "eos_token_id": 261}
    with torch.no_grad():
        with steering_rows(chat, rows) as state:
            state.begin(11)
            batch = ids.expand(len(rows), -1)
            together = untyped(chat.model).generate(batch, attention_mask=torch.ones_like(batch), **settings)
        for i, row in enumerate(rows):
            with steering(chat, [s.intervention() for s in row]) as state:
                state.begin(11)
                alone = untyped(chat.model).generate(ids, attention_mask=torch.ones_like(ids), **settings)
            assert torch.equal(together[i], alone[0]), i
    assert len({tuple(r.tolist()) for r in together}) > 2


def test_one_row_stands_for_a_batch_of_any_size() -> None:
    chat = shared_chat("llama")
    one = [shift(chat.layout, Site("head", 1, 2), 4.0)]
    ids, mask, widths = ragged()
    with torch.no_grad():
        with steering_rows(chat, [one] * 5) as state:
            state.begin(widths)
            many = chat.model(input_ids=ids, attention_mask=mask).logits
        with steering_rows(chat, [one]) as state:
            state.begin(widths)
            broadcast = chat.model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(many, broadcast)


def test_a_row_says_how_much_it_changed() -> None:
    chat = shared_chat("llama")
    row = [shift(chat.layout, Site("head", 1, 2), 4.0), shift(chat.layout, Site("head", 0, 0), -1.0, 2)]
    ids, mask, widths = ragged()
    with torch.no_grad():
        with steering_rows(chat, [row]) as rows:
            rows.begin(widths)
            chat.model(input_ids=ids, attention_mask=mask)
        with steering(chat, [s.intervention() for s in row]) as single:
            single.begin(widths)
            chat.model(input_ids=ids, attention_mask=mask)
    assert rows.relative_change == pytest.approx(single.relative_change, rel=1e-5)
    assert rows.relative_change > 0


def test_the_sign_of_alpha_is_the_sign_of_the_shift() -> None:
    made = shift(shared_chat("llama").layout, Site("head", 1, 2), -2.0, sigma=0.5)
    np.testing.assert_allclose(made.delta, -1.0 * made.direction.unit)


def test_what_does_not_fit_is_an_error_and_leaves_no_hook() -> None:
    chat = shared_chat("llama")
    layout, count = chat.layout, hook_count(chat.model)
    fits = shift(layout, Site("head", 0, 0), 1.0)
    wide = Shift(Direction(Site("head", 0, 0), np.ones(32), np.zeros(32), 1.0), 1.0)
    for bad, error, said in (
        (Shift(Direction(Site("head", 9, 0), np.ones(12), np.zeros(12), 1.0), 1.0), SiteError, r"head\[9,0\]"),
        (Shift(Direction(Site("head", 0, 7), np.ones(12), np.zeros(12), 1.0), 1.0), SiteError, r"head\[0,7\]"),
        (wide, SteeringError, "row 1 .* 32 values, the site 12"),
        (shift(layout, Site("head", 0, 0), 1.0, sigma=0.0), SteeringError, "sigma > 0"),
        (shift(layout, Site("head", 0, 0), float("nan")), SteeringError, "not finite"),
    ):
        with pytest.raises(error, match=said), steering_rows(chat, [[fits], [bad]]):
            pytest.fail("a row that does not fit was applied")
        assert hook_count(chat.model) == count
    with pytest.raises(SteeringError, match="none given"), steering_rows(chat, []):
        pytest.fail("no rows were applied")


def test_another_number_of_rows_than_given_is_an_error() -> None:
    chat = shared_chat("llama")
    ids, mask, widths = ragged()
    row = [shift(chat.layout, Site("head", 0, 0), 1.0)]
    with torch.no_grad(), steering_rows(chat, [row] * 3) as state:
        state.begin(widths)
        with pytest.raises(SteeringError, match="3 were given, the forward pass has 5"):
            chat.model(input_ids=ids, attention_mask=mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precisions_keep_their_dtype(dtype: torch.dtype) -> None:
    chat = tiny_chat("llama", dtype=dtype)
    ids, mask, widths = ragged()
    with torch.no_grad(), steering_rows(chat, rows_of(chat.layout)) as state:
        state.begin(widths)
        assert chat.model(input_ids=ids, attention_mask=mask).logits.dtype == dtype
