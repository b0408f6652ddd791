"""Ships and Sahara: every score by hand on a Llama, every family against one full forward a head, and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from probes.capture.batches import Encoded
from probes.capture.sites import Site, head_sites
from probes.errors import DataError, SiteError
from probes.heads.ablation import Ablation, AblationKind, ablating
from probes.heads.attribution import (
    angles_between,
    compare,
    dataset_angles,
    first_tokens,
    head_effects,
    sahara,
    ships,
    subspace,
    top_heads,
)
from probes.heads.block_replay import Replay
from probes.model.load import ChatModel
from tests.support.models.llama_by_hand import kl_by_hand, llama_logits
from tests.support.models.tiny import (
    FAMILIES,
    MULTIMODAL,
    N_BLOCKS,
    N_HEADS,
    hook_count,
    mha_llama,
    shared_chat,
    tiny_chat,
    token_prompts,
    untyped,
)

ALL = (*FAMILIES, *MULTIMODAL)
HEADS = N_BLOCKS * N_HEADS


def one_by_one(
    chat: ChatModel, items: list[Encoded], ablation: Ablation, standing: Sequence[Site] = ()
) -> torch.Tensor:
    """Log-probabilities after the last token, one unpadded forward a prompt and head: (prompts, 1 + heads, vocab)."""
    rows = []
    for item in items:
        ids = torch.tensor([item.ids[: item.n_prompt]])
        row = []
        for head in (None, *head_sites(chat.layout)):
            off = [*standing, *([head] if head and head not in standing else [])]
            with torch.no_grad(), ablating(chat, off, ablation):
                row.append(chat.model(input_ids=ids, use_cache=False).logits[0, -1].double().log_softmax(-1))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def kl_one_by_one(chat: ChatModel, items: list[Encoded], ablation: Ablation) -> NDArray[np.float64]:
    found = one_by_one(chat, items, ablation)
    plain, off = found[:, :1], found[:, 1:]
    return (plain.exp() * (plain - off)).sum(-1).numpy().reshape(len(items), N_BLOCKS, N_HEADS)


def last_states_one_by_one(
    chat: ChatModel, items: list[Encoded], off: list[Site], ablation: Ablation
) -> NDArray[np.float64]:
    """(prompts, width) after the final norm, as `hidden_states[-1]` has it."""
    rows = []
    with torch.no_grad(), ablating(chat, off, ablation):
        for item in items:
            out = chat.model(input_ids=torch.tensor([item.ids]), output_hidden_states=True, use_cache=False)
            rows.append(out.hidden_states[-1][0, -1].double().numpy())
    return np.stack(rows)


@pytest.mark.parametrize("shared", [0, 11])
@pytest.mark.parametrize("kind", ["undifferentiated", "scaling"])
def test_every_score_of_a_llama_written_out_by_hand(kind: AblationKind, shared: int) -> None:
    chat = mha_llama()
    items = token_prompts(shared, [4, 19, 9])
    got = ships(chat, items, ablation=Ablation(kind, eps=1e-5))
    assert got.shape == (3, N_BLOCKS, N_HEADS)
    for row, item in enumerate(items):
        plain = llama_logits(chat.model, list(item.ids))
        for layer, head in np.ndindex(N_BLOCKS, N_HEADS):
            by_hand = kl_by_hand(plain, llama_logits(chat.model, list(item.ids), (layer, head), kind))
            assert got[row, layer, head] == pytest.approx(by_hand, abs=1e-4)
    assert got.min() > 1e-4  # so that a score of nothing would show


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("kind", ["undifferentiated", "scaling", "random"])
def test_every_family_against_one_full_forward_a_head(family: str, kind: AblationKind) -> None:
    """A shared prefix, padding, windows that are passed, and a budget that needs several batches and chunks."""
    chat = shared_chat(family)
    count = hook_count(chat.model)
    items = token_prompts(13, [17, 2, 30, 9])
    ablation = Ablation(kind, eps=1e-3)
    expected = kl_one_by_one(chat, items, ablation)
    assert expected.max() > 1e-2
    for budget in (150, 5000):
        got = ships(chat, items, ablation=ablation, token_budget=budget)
        np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-3)
    assert hook_count(chat.model) == count
    assert "forward" not in chat.layout.decoder.__dict__


@pytest.mark.parametrize("family", ALL)
def test_padding_and_batch_mates_change_nothing(family: str) -> None:
    chat = shared_chat(family)
    items = [*token_prompts(9, [3, 28, 11]), *token_prompts(0, [40], seed=5)]
    together = ships(chat, items)
    alone = np.concatenate([ships(chat, [item]) for item in items])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(ships(chat, [items[i] for i in order]), together[order], atol=1e-4)


def test_responses_are_not_read() -> None:
    chat = shared_chat("llama")
    (item,) = token_prompts(0, [12])
    answered = Encoded((*item.ids, 7, 8, 9), 12)
    np.testing.assert_allclose(ships(chat, [answered]), ships(chat, [item]), atol=1e-6)


def test_with_eps_one_there_is_no_effect() -> None:
    chat = shared_chat("gemma2")
    items = token_prompts(8, [5, 9])
    for kind in ("undifferentiated", "scaling"):
        found = head_effects(chat, items, ablation=Ablation(kind, eps=1.0), watched=[3])
        assert found.kl.max() < 1e-9
        assert found.kl.min() >= 0
        np.testing.assert_allclose(found.watched, 0, atol=1e-5)
        np.testing.assert_allclose(found.norm_ratio, 1, atol=1e-5)
    assert dataset_angles(chat, items, subspaces=[(1, False)], ablation=Ablation(eps=1.0))[0].max() < 1e-3


def test_watched_tokens_and_norms_are_those_of_the_ablated_model() -> None:
    chat = shared_chat("qwen2")
    items = token_prompts(6, [7, 3])
    ablation, watched = Ablation("undifferentiated"), [5, 77]
    found = head_effects(chat, items, ablation=ablation, watched=watched)
    by_one = one_by_one(chat, items, ablation)[..., watched].exp().sum(-1).log().numpy()
    expected = (by_one[:, 1:] - by_one[:, :1]).reshape(2, N_BLOCKS, N_HEADS)
    np.testing.assert_allclose(found.watched, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.01
    scaled = head_effects(chat, items, ablation=Ablation("scaling", eps=0.25))
    np.testing.assert_allclose(scaled.norm_ratio, 0.25, atol=1e-5)
    assert np.isnan(scaled.watched).all()
    # Of one head by plain hooks on the output projection's input.
    seen = []
    projection = chat.layout.heads_at(1).projection
    for off in ([], [Site("head", 1, 2)]):
        with torch.no_grad(), ablating(chat, off, ablation):
            handle = projection.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
            chat.model(input_ids=torch.tensor([items[0].ids]), use_cache=False)
            handle.remove()
    width = chat.layout.heads_at(0).width
    plain, off = (x[0, -1, 2 * width : 3 * width].norm() for x in seen)
    assert found.norm_ratio[0, 1, 2] == pytest.approx(float(off / plain), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_first_tokens_are_those_that_generation_begins_with(family: str) -> None:
    chat = shared_chat(family)
    items = token_prompts(6, [7, 3, 19])
    ids = [torch.tensor([x.ids]) for x in items]
    made = [
        untyped(chat.model).generate(i, attention_mask=torch.ones_like(i), max_new_tokens=1, do_sample=False)
        for i in ids
    ]
    assert first_tokens(chat, items) == [int(row[0, -1]) for row in made]


def test_only_the_heads_that_were_asked_for() -> None:
    chat = shared_chat("llama")
    items = token_prompts(0, [9, 14])
    heads = [Site("head", 2, 1), Site("head", 0, 3)]
    calls = []
    got = ships(chat, items, heads, on_pairs=lambda *n: calls.append(n))
    everything = ships(chat, items)
    asked = np.zeros((N_BLOCKS, N_HEADS), dtype=bool)
    asked[2, 1] = asked[0, 3] = True
    assert np.isnan(got[:, ~asked]).all()
    np.testing.assert_allclose(got[:, asked], everything[:, asked], atol=1e-6)
    assert calls[-1] == (4, 4)
    assert [n for n, _ in calls] == sorted(n for n, _ in calls)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gemma3_vision"])
def test_dataset_angles_by_hand(family: str) -> None:
    chat = shared_chat(family)
    items = token_prompts(7, [4, 12, 9, 20, 6])
    ablation = Ablation()
    plain = last_states_one_by_one(chat, items, [], ablation)
    subspaces = [(1, False), (3, False), (2, True)]
    got = dataset_angles(chat, items, subspaces=subspaces, ablation=ablation)
    for head in head_sites(chat.layout):
        off = last_states_one_by_one(chat, items, [head], ablation)
        for (r, centred), angles in zip(subspaces, got, strict=True):
            bases = []
            for matrix in (plain, off):
                moved = matrix - matrix.mean(0) if centred else matrix
                bases.append(np.linalg.eigh(moved @ moved.T)[1][:, ::-1][:, :r])
            cosines = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
            expected = np.degrees(np.arccos(np.clip(cosines, -1, 1))).sum()
            assert angles[head.layer, head.head] == pytest.approx(expected, abs=2e-2)
    assert max(a.max() for a in got) > 1


def test_angles_between_known_spans() -> None:
    axes = np.eye(5)
    turned = axes.copy()
    turned[:2, 0] = np.cos(0.3), np.sin(0.3)
    assert angles_between(axes[:, :1], turned[:, :1]) == pytest.approx(np.degrees(0.3))
    assert angles_between(axes[:, :1], -axes[:, :1]) == pytest.approx(0, abs=1e-9)
    assert angles_between(axes[:, :2], axes[:, 3:]) == pytest.approx(180)
    # Far below where arccos has digits left.
    tiny = np.stack([[np.cos(1e-9)], [np.sin(1e-9)], [0], [0], [0]])
    assert angles_between(axes[:, :1], tiny) == pytest.approx(np.degrees(1e-9), rel=1e-6)


def test_sahara_is_greedy_search_by_hand() -> None:
    chat = shared_chat("qwen2")
    items = token_prompts(5, [6, 11, 8, 4])
    ablation = Ablation()
    reference = subspace(last_states_one_by_one(chat, items, [], ablation), 1, False)
    chosen: list[Site] = []
    by_hand: list[dict[Site, float]] = []
    for _ in range(3):
        angles = {}
        for head in head_sites(chat.layout):
            if head not in chosen:
                states = last_states_one_by_one(chat, items, [*chosen, head], ablation)
                angles[head] = angles_between(reference, subspace(states, 1, False))
        chosen.append(max(angles, key=lambda h: angles[h]))
        by_hand.append(angles)
    steps = []
    found = sahara(chat, items, steps=3, on_step=lambda s, _: steps.append(s))
    assert found.heads == tuple(chosen)
    assert steps == [0, 1, 2]
    for measured, expected in zip(found.angles, by_hand, strict=True):
        for head, angle in expected.items():
            assert measured[head.layer, head.head] == pytest.approx(angle, abs=1e-2)
    assert np.isnan(found.angles[2][chosen[0].layer, chosen[0].head])
    # What is known is not computed again, and what follows is the same.
    steps.clear()
    again = sahara(chat, items, steps=3, known=found.angles[:2], on_step=lambda s, _: steps.append(s))
    assert steps == [2]
    assert again.heads == found.heads
    np.testing.assert_allclose(again.angles[2], found.angles[2], atol=1e-6)


def test_standing_heads_are_ablated_in_every_row() -> None:
    chat = shared_chat("mistral")
    items = token_prompts(9, [20, 6])
    standing = [Site("head", 1, 0), Site("head", 1, 3), Site("head", 0, 2)]
    expected = one_by_one(chat, items, Ablation(), standing)[:, 1:]
    replay = Replay(chat, items, Ablation(), standing=standing)
    heads = [h for h in head_sites(chat.layout) if h not in standing]
    seen = 0
    for piece in replay.pieces(heads):
        got = replay.log_probs(piece.states.flatten(0, 1)).view(*piece.states.shape[:2], -1)
        for (i, h), (j, p) in ((x, y) for x in enumerate(piece.heads) for y in enumerate(piece.prompts)):
            at = head_sites(chat.layout).index(heads[h])
            torch.testing.assert_close(got[i, j], expected[p, at], atol=1e-4, rtol=1e-4)
            seen += 1
    assert seen == len(heads) * len(items)


def test_a_contrast_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    harmful, harmless = rng.normal(2, 1, (40, 2, 3)), rng.normal(0.5, 1, (30, 2, 3))
    found = compare(harmful, harmless)
    np.testing.assert_allclose(found.value, harmful.mean(0) - harmless.mean(0))
    error = np.sqrt(harmful.var(0) / 40 + harmless.var(0) / 30)
    np.testing.assert_allclose(found.high - found.low, 2 * 1.96 * error, rtol=0.15)
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()
    np.testing.assert_array_equal(compare(harmful, harmless).low, found.low)
    swapped = compare(harmless, harmful)
    np.testing.assert_allclose(swapped.value, -found.value)


def test_top_heads() -> None:
    scores = np.array([[0.5, np.nan, 2.0], [2.0, -1.0, 0.0]])
    assert top_heads(scores, 3) == [Site("head", 0, 2), Site("head", 1, 0), Site("head", 0, 0)]
    with pytest.raises(DataError, match="6 were asked for, 5"):
        top_heads(scores, 6)


def test_one_class_only_or_too_few_rows() -> None:
    scores = np.zeros((3, 2, 2))
    with pytest.raises(DataError, match="harmless: 0 prompts"):
        compare(scores, scores[:0])
    with pytest.raises(DataError, match="harmful: 1 prompts"):
        compare(scores[:1], scores)
    chat = shared_chat("llama")
    items = token_prompts(0, [5, 9, 7])
    with pytest.raises(DataError, match="none given"):
        ships(chat, [])
    with pytest.raises(DataError, match="no tokens"):
        ships(chat, [Encoded((), 0)])
    with pytest.raises(DataError, match="need at least 4 prompts"):
        dataset_angles(chat, items, subspaces=[(3, False)])
    with pytest.raises(DataError, match="r at least 1"):
        dataset_angles(chat, items, subspaces=[(0, False)])
    with pytest.raises(DataError, match="do not span 1 directions"):
        dataset_angles(chat, [items[0]] * 3, subspaces=[(1, True)])
    rounded = np.random.default_rng(0).normal(size=(1, 32)) + 1e-7 * np.random.default_rng(1).normal(size=(3, 32))
    for r, centred in ((2, False), (1, True)):
        with pytest.raises(DataError, match=f"do not span {r} directions"):
            subspace(rounded.astype(np.float32), r, centred)
    with pytest.raises(DataError, match=r"steps: 13 is not in 1\.\.12"):
        sahara(chat, items, steps=13)


def test_a_head_that_is_not_there() -> None:
    chat = shared_chat("llama")
    items = token_prompts(0, [5])
    for head in (Site("head", 0, N_HEADS), Site("head", N_BLOCKS, 0), Site("head", 1, -1), Site("final")):
        with pytest.raises(SiteError):
            ships(chat, items, [head])
    with pytest.raises(DataError, match="stands ablated already"):
        list(Replay(chat, items, Ablation(), standing=[Site("head", 0, 0)]).pieces([Site("head", 0, 0)]))


def test_a_head_of_norm_zero_has_no_effect_and_a_finite_ratio() -> None:
    chat = tiny_chat("llama")
    with torch.no_grad():
        untyped(chat.model).model.layers[1].self_attn.v_proj.weight.zero_()
    items = token_prompts(3, [5, 8, 6, 9])
    found = head_effects(chat, items)
    assert np.abs(found.kl[:, 1]).max() < 1e-9
    assert np.isfinite(found.norm_ratio).all()
    assert found.kl[:, [0, 2]].max() > 1e-4
    for angles in dataset_angles(chat, items, subspaces=[(1, False), (2, True)]):
        assert angles[1].max() < 1e-2


def test_activations_that_are_not_finite() -> None:
    items = token_prompts(4, [5, 8])
    chat = tiny_chat("llama")
    with torch.no_grad():
        untyped(chat.model).model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    for call in (ships, partial(dataset_angles, subspaces=[(1, False)])):
        with pytest.raises(DataError, match="not finite without any ablation"):
            call(chat, items)
    # Only where one head is ablated: its output is then multiplied beyond float32.
    chat = tiny_chat("llama")
    bad = chat.layout.heads_at(2).projection.register_forward_hook(
        lambda _m, inputs, out: torch.where((inputs[0][..., :12].abs().amax(-1) == 0)[..., None], torch.inf, out)
    )
    with pytest.raises(DataError, match=r"not finite when head\[2,0\] is ablated"):
        ships(chat, items, ablation=Ablation("scaling", eps=0.0))
    bad.remove()
    assert hook_count(chat.model) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_gives_about_the_same(dtype: torch.dtype) -> None:
    items = token_prompts(5, [9, 16])
    exact = ships(shared_chat("llama"), items)
    got = ships(tiny_chat("llama", dtype=dtype), items)
    assert np.isfinite(got).all()
    assert np.corrcoef(got.ravel(), exact.ravel())[0, 1] > 0.98
