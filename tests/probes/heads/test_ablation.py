"""Heads off, on every family: closed forms, surgery on weights, padding, windows, caches, and nothing left behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from probes.capture.sites import Site, head_sites, observing
from probes.errors import SiteError, SteeringError
from probes.heads.ablation import Ablation, AblationKind, AblationSize, ablating, check_heads, switch
from probes.model.load import AdapterSpec, ChatModel, add_adapter, wrap
from probes.steer.generation import generate
from tests.support.models.llama_by_hand import llama_logits
from tests.support.models.tiny import (
    FAMILIES,
    MULTIMODAL,
    N_BLOCKS,
    N_HEADS,
    N_KV,
    attention_of,
    blocks_of,
    hook_count,
    make_adapter,
    mha_llama,
    shared_chat,
    tiny_chat,
    untyped,
    user,
)

ALL = (*FAMILIES, *MULTIMODAL)
LAYER, HEAD = 1, 2
# How many tokens a query sees in each block, its own included; None is all.
_GEMMA = (16, None, 16)
WINDOWS = {"mistral": (24,) * 3, "mistral3_vision": (24,) * 3} | dict.fromkeys(
    ("gemma2", "gemma3", "gemma3_vision"), _GEMMA
)
KINDS: tuple[AblationKind, ...] = ("undifferentiated", "scaling", "random")


def padded(side: str) -> dict[str, torch.Tensor]:
    """Three prompts of 30, 21 and 9 tokens, padded on one side."""
    ids = torch.randint(0, 256, (3, 30), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([[30], [21], [9]])
    place = torch.arange(30).unsqueeze(0)
    mask = place < lengths if side == "right" else place >= 30 - lengths
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def heads_of(chat: ChatModel, batch: dict[str, torch.Tensor], layer: int = LAYER) -> torch.Tensor:
    """Head outputs (rows, tokens, n_heads, head_dim) of one block."""
    got = []
    with torch.no_grad(), observing(chat.layout, {Site("head", layer): lambda x: got.append(x.clone())}) as run:
        run(**batch)
    return got[0]


def logits(chat: ChatModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = chat.model(**batch, use_cache=False).logits
    return found


def values_of(chat: ChatModel, family: str, batch: dict[str, torch.Tensor], layer: int = LAYER) -> torch.Tensor:
    """Each query head's values (rows, tokens, n_heads, head_dim), from the family's own projection."""
    attention = attention_of(blocks_of(family, chat.model)[layer])
    width = chat.layout.heads_at(0).width
    got = []
    names = ("v_proj", "qkv_proj", "c_attn", "query_key_value")
    module = next(getattr(attention, n) for n in names if hasattr(attention, n))
    handle = module.register_forward_hook(lambda _m, _i, out: got.append(out))
    logits(chat, batch)
    handle.remove()
    out: torch.Tensor = got[0]
    if family == "gpt_neox":
        return out.view(*out.shape[:2], N_HEADS, 3, width)[:, :, :, 2]
    if family == "gpt2":
        return out[..., -N_HEADS * width :].view(*out.shape[:2], N_HEADS, width)
    values = out[..., -N_KV * width :].view(*out.shape[:2], N_KV, width)
    return values.repeat_interleave(N_HEADS // N_KV, dim=2)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ALL)
def test_in_the_limit_a_head_is_the_running_mean_of_the_values_it_sees(family: str, side: str) -> None:
    chat, batch = shared_chat(family), padded(side)
    for layer, window in enumerate(WINDOWS.get(family, (None,) * N_BLOCKS)):
        values = values_of(chat, family, batch, layer)
        with ablating(chat, [Site("head", layer, HEAD)], Ablation(eps=0.0)):
            got = heads_of(chat, batch, layer)[:, :, HEAD]
        for row, mask in enumerate(batch["attention_mask"]):
            for token in mask.nonzero().flatten().tolist():
                seen = [t for t in range(token + 1) if mask[t] and (window is None or t > token - window)]
                mean = values[row, seen, HEAD].mean(0)
                torch.testing.assert_close(got[row, token], mean, atol=1e-5, rtol=1e-4)


def surgery(chat: ChatModel, family: str, layer: int, head: int, eps: float) -> None:
    """Scale the weights (and biases) that make one head's queries; the model is a copy."""
    attention = attention_of(blocks_of(family, chat.model)[layer])
    width = chat.layout.heads_at(0).width
    own = slice(head * width, (head + 1) * width)
    with torch.no_grad():
        if family == "gpt2":
            attention.c_attn.weight[:, own] *= eps
            attention.c_attn.bias[own] *= eps
            return
        if family == "gpt_neox":
            own = slice(head * 3 * width, head * 3 * width + width)
        module = next(getattr(attention, n) for n in ("q_proj", "qkv_proj", "query_key_value") if hasattr(attention, n))
        module.weight[own] *= eps
        if module.bias is not None:
            module.bias[own] *= eps


NORMED = ("qwen3", "gemma3", "gemma3_vision")


@pytest.mark.parametrize("eps", [0.3, 1e-3])
@pytest.mark.parametrize("family", [f for f in ALL if f not in NORMED])
def test_it_is_what_scaling_the_query_weights_does(family: str, eps: float) -> None:
    """Biases, rotary embeddings, soft-capping, windows and grouped heads: the paper's surgery gives the same logits."""
    chat, batch = shared_chat(family), padded("right")
    cut = copy.deepcopy(chat.model)
    operated = wrap(cut, chat.tokenizer, name=chat.name)
    surgery(operated, family, LAYER, HEAD, eps)
    with ablating(chat, [Site("head", LAYER, HEAD)], Ablation(eps=eps)):
        got = logits(chat, batch)
    kept = batch["attention_mask"]
    torch.testing.assert_close(got[kept], logits(operated, batch)[kept], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got[kept], logits(chat, batch)[kept], atol=1e-3)


@pytest.mark.parametrize("family", NORMED)
def test_with_qk_norm_it_acts_after_the_norm_where_weights_would_not(family: str) -> None:
    chat, batch = shared_chat(family), padded("right")
    kept = batch["attention_mask"]
    operated = wrap(copy.deepcopy(chat.model), chat.tokenizer, name=chat.name)
    surgery(operated, family, LAYER, HEAD, 0.3)
    torch.testing.assert_close(logits(operated, batch)[kept], logits(chat, batch)[kept], atol=1e-3, rtol=1e-3)

    def after_the_norm(_module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        scaled = output.clone()
        scaled.select(2 if family == "qwen3" else 1, HEAD).mul_(0.3)  # Gemma norms with the heads in front
        return scaled

    norm = attention_of(blocks_of(family, chat.model)[LAYER]).q_norm
    handle = norm.register_forward_hook(after_the_norm)
    expected = logits(chat, batch)
    handle.remove()
    with ablating(chat, [Site("head", LAYER, HEAD)], Ablation(eps=0.3)):
        got = logits(chat, batch)
    torch.testing.assert_close(got[kept], expected[kept], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got[kept], logits(chat, batch)[kept], atol=1e-3)


@pytest.mark.parametrize("family", ALL)
def test_scaling_queries_or_keys_is_the_same_for_one_query_head(family: str) -> None:
    chat, batch = shared_chat(family), padded("left")
    kept = batch["attention_mask"]
    for eps in (0.2, 1e-5):
        with ablating(chat, [Site("head", LAYER, HEAD)], Ablation(eps=eps)):
            by_query = logits(chat, batch)
        with ablating(chat, [Site("head", LAYER, HEAD)], Ablation(eps=eps, side="key")):
            by_key = logits(chat, batch)
        torch.testing.assert_close(by_query[kept], by_key[kept], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ALL)
def test_only_the_named_heads_of_the_named_rows_change(family: str, kind: AblationKind) -> None:
    chat, batch = shared_chat(family), padded("right")
    plain = heads_of(chat, batch)
    rows = [[Site("head", LAYER, 0)], [], [Site("head", LAYER, 3), Site("head", LAYER, 1)]]
    with switch(chat.layout, Ablation(kind, eps=0.1)) as on:
        on.rows(rows)
        got = heads_of(chat, batch)
        together = logits(chat, batch)
    for row, off in enumerate(rows):
        changed = {h for h in range(N_HEADS) if not torch.equal(got[row, :9, h], plain[row, :9, h])}
        assert changed == {s.head for s in off}
    # Each row is what its heads give when all rows have them.
    kept = batch["attention_mask"]
    for row, off in enumerate(rows):
        with ablating(chat, off, Ablation(kind, eps=0.1)):
            alone = logits(chat, batch)
        torch.testing.assert_close(together[row][kept[row]], alone[row][kept[row]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ALL)
def test_with_eps_one_nothing_changes(family: str, kind: AblationKind) -> None:
    chat, batch = shared_chat(family), padded("left")
    before = logits(chat, batch)
    with ablating(chat, head_sites(chat.layout), Ablation(kind, eps=1.0)):
        assert torch.equal(logits(chat, batch), before)


@pytest.mark.parametrize("family", ALL)
def test_scaling_contribution_is_the_head_times_eps(family: str) -> None:
    chat, batch = shared_chat(family), padded("right")
    plain = heads_of(chat, batch)
    for eps in (0.25, 0.0):
        with ablating(chat, [Site("head", LAYER, HEAD)], Ablation("scaling", eps=eps)):
            got = heads_of(chat, batch)
        torch.testing.assert_close(got[:, :, HEAD], eps * plain[:, :, HEAD])


@pytest.mark.parametrize("size", ["undifferentiated", "scaling"])
def test_the_control_moves_a_head_as_far_and_elsewhere(size: AblationSize) -> None:
    chat, batch = shared_chat("llama"), padded("right")
    site = [Site("head", LAYER, HEAD)]
    plain = heads_of(chat, batch)
    moved = {}
    for key, ablation in {
        "ablated": Ablation(size, eps=0.3),
        "r0": Ablation("random", eps=0.3, size=size),
        "again": Ablation("random", eps=0.3, size=size),
        "r1": Ablation("random", eps=0.3, size=size, seed=1),
    }.items():
        with ablating(chat, site, ablation):
            changed = heads_of(chat, batch) - plain
        assert not changed[:, :, [h for h in range(N_HEADS) if h != HEAD]].any()
        moved[key] = changed[:, :, HEAD]
    torch.testing.assert_close(moved["r0"].norm(dim=-1), moved["ablated"].norm(dim=-1), atol=1e-5, rtol=1e-4)
    assert torch.equal(moved["r0"], moved["again"])
    assert not torch.allclose(moved["r0"], moved["r1"], atol=1e-3)
    # One direction for all positions.
    directions = torch.nn.functional.normalize(moved["r0"][0, 1:], dim=-1)
    torch.testing.assert_close(directions, directions[:1].expand_as(directions), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["undifferentiated", "scaling"])
def test_every_head_of_a_llama_written_out_by_hand(kind: AblationKind) -> None:
    for chat in (mha_llama(), shared_chat("llama")):
        ids = torch.randint(0, 256, (17,), generator=torch.Generator().manual_seed(3)).tolist()
        for eps in (1e-5, 0.4):
            for head in head_sites(chat.layout):
                expected = llama_logits(chat.model, ids, (head.layer, head.head), kind, eps)
                with ablating(chat, [head], Ablation(kind, eps=eps)):
                    got = logits(chat, {"input_ids": torch.tensor([ids])})[0]
                torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gpt2", "gpt_neox"])
def test_either_attention_implementation_gives_the_same(family: str, implementation: str) -> None:
    chat, batch = tiny_chat(family), padded("right")
    kept = batch["attention_mask"]
    with ablating(shared_chat(family), [Site("head", LAYER, HEAD)]):
        expected = logits(shared_chat(family), batch)
    untyped(chat.model).set_attn_implementation(implementation)
    with ablating(chat, [Site("head", LAYER, HEAD)]):
        torch.testing.assert_close(logits(chat, batch)[kept], expected[kept], atol=1e-4, rtol=1e-4)
    assert untyped(chat.model).config._attn_implementation == implementation


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ALL)
def test_generation_with_a_cache_is_generation_without_one(family: str, kind: AblationKind) -> None:
    """Left-padded prompts of unequal length, past the sliding windows; logits of each step, token by token."""
    chat, batch = shared_chat(family), padded("left")
    heads = [Site("head", 0, 1), Site("head", LAYER, HEAD)]
    with torch.no_grad(), ablating(chat, heads, Ablation(kind, eps=0.01)):
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
        given = {k: v for k, v in batch.items() if k != "position_ids"}
        generate = untyped(chat.model).generate
        made = generate(**given, **options, use_cache=True)
        uncached = generate(**given, **options, use_cache=False)
    assert torch.equal(made, uncached)
    with torch.no_grad():
        assert not torch.equal(made, generate(**given, **options, use_cache=True))


def test_answers_do_not_depend_on_batch_mates() -> None:
    chat = shared_chat("qwen2")
    prompts = [chat.render(user(text)) for text in ("a", "a much longer question than that", "and one in between")]
    with ablating(chat, [Site("head", 0, 1), Site("head", 2, 3)]):
        together = generate(chat, prompts, max_new_tokens=8)
        assert [generate(chat, [p], max_new_tokens=8)[0] for p in prompts] == together


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ALL)
def test_the_model_is_left_as_it_was_found(family: str, kind: AblationKind) -> None:
    chat, batch = shared_chat(family), padded("right")
    before, count = logits(chat, batch), hook_count(chat.model)
    configs = [attention_of(b).config for b in blocks_of(family, chat.model)]
    chosen = [c._attn_implementation for c in configs]

    def fails() -> None:
        with ablating(chat, head_sites(chat.layout), Ablation(kind)):
            assert not torch.equal(logits(chat, batch), before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert hook_count(chat.model) == count
    assert all(attention_of(b).config is c for b, c in zip(blocks_of(family, chat.model), configs, strict=True))
    assert [c._attn_implementation for c in configs] == chosen
    assert torch.equal(logits(chat, batch), before)


def test_other_models_of_the_process_are_not_touched() -> None:
    one, other, batch = tiny_chat("llama"), tiny_chat("llama", seed=5), padded("right")
    before = logits(other, batch)
    with ablating(one, head_sites(one.layout)):
        assert torch.equal(logits(other, batch), before)
        with ablating(other, [Site("head", 0, 0)]):
            assert not torch.equal(logits(other, batch), before)
        assert torch.equal(logits(other, batch), before)


def test_with_an_adapter(tmp_path: Path) -> None:
    chat, batch = tiny_chat("llama"), padded("right")
    spec = AdapterSpec(make_adapter(tmp_path), 1.0, "one")
    with ablating(chat, [Site("head", LAYER, HEAD)]):
        base = logits(chat, batch)
    add_adapter(chat, spec)
    with ablating(chat, [Site("head", LAYER, HEAD)]):
        adapted = logits(chat, batch)
        with chat.base():
            torch.testing.assert_close(logits(chat, batch), base, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(adapted, base, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_keeps_its_dtype(dtype: torch.dtype) -> None:
    chat, batch = tiny_chat("llama", dtype=dtype), padded("right")
    for kind in KINDS:
        with ablating(chat, [Site("head", LAYER, HEAD)], Ablation(kind)):
            got = logits(chat, batch)
        assert got.dtype == dtype
        assert got[batch["attention_mask"]].isfinite().all()


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ([Site("head", 0, N_HEADS)], r"query heads 0\.\.3"),
        ([Site("head", N_BLOCKS, 0)], r"blocks 0\.\.2"),
        ([Site("head", 0, -1)], "no query head"),
        ([Site("residual", 0)], "no query head"),
        ([Site("head", 0, 1), Site("head", 0, 1)], "named twice"),
    ],
)
def test_a_head_that_is_not_there(heads: list[Site], words: str) -> None:
    chat = shared_chat("llama")
    with pytest.raises(SiteError, match=words):
        check_heads(heads, chat.layout)
    with pytest.raises(SiteError, match=words), ablating(chat, heads):
        pytest.fail("a head that is not there was ablated")


@pytest.mark.parametrize("eps", [-0.1, 1.5, float("nan"), float("inf")])
def test_an_eps_out_of_range(eps: float) -> None:
    with pytest.raises(SteeringError, match=r"0\.\.1"):
        Ablation(eps=eps)


def test_what_cannot_be_done_says_so() -> None:
    chat, batch = tiny_chat("llama"), padded("right")
    with ablating(chat, [Site("head", 0, 0)]):
        with pytest.raises(SteeringError, match="already"), ablating(chat, [Site("head", 0, 1)]):
            pytest.fail("two contexts hold one block")
        with ablating(chat, [Site("head", 1, 1)]):
            logits(chat, batch)
    with switch(chat.layout, Ablation()) as on:
        on.rows([[Site("head", 0, 0)], []])
        with pytest.raises(SteeringError, match="2 rows"):
            logits(chat, batch)
    # An attention of its own, such as remote code has: queries cannot be reached, outputs can.
    attention = chat.layout.heads_at(1).attention
    inner: Any = type(attention)

    class Own(inner):  # type: ignore[misc]  # a class that is known when it runs
        def forward(self, hidden_states: torch.Tensor, *_args: object, **_kwargs: object) -> tuple[torch.Tensor, None]:
            return self.o_proj(self.q_proj(hidden_states)), None

    attention.__class__ = Own
    with ablating(chat, [Site("head", 1, 0)], Ablation("scaling")):
        logits(chat, batch)
    with pytest.raises(SteeringError, match="use the ablation `scaling`"), ablating(chat, [Site("head", 1, 0)]):
        logits(chat, batch)
    assert hook_count(chat.model) == 0
