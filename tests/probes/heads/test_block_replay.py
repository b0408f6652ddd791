"""Running the blocks again from where a head changes: what is not computed, what is refused, what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from probes.capture.sites import Site, head_sites
from probes.errors import LayoutError
from probes.heads.attribution import ships
from tests.support.models.tiny import N_BLOCKS, hook_count, shared_chat, tiny_chat, token_prompts, untyped


def test_what_a_head_leaves_unchanged_is_not_computed_again() -> None:
    """Tokens that each block sees: a replay runs no block below the head, and the prefix once a head."""
    chat = shared_chat("llama")
    items = token_prompts(20, [5, 5, 5, 5])
    seen = dict.fromkeys(range(N_BLOCKS), 0)

    def count(layer: int) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
        def hook(_module: nn.Module, args: tuple[torch.Tensor]) -> None:
            seen[layer] += args[0].shape[0] * args[0].shape[1]

        return hook

    # What the plain passes and the check cost is the same for one head and for all.
    totals = []
    for heads in ([Site("head", 2, 0)], head_sites(chat.layout)):
        seen.update(dict.fromkeys(seen, 0))
        handles = [b.register_forward_pre_hook(count(i)) for i, b in enumerate(chat.layout.blocks)]
        try:
            ships(chat, items, heads, token_budget=100_000)
        finally:
            for handle in handles:
                handle.remove()
        totals.append(dict(seen))
    one, every = totals
    row = 20 + 4 * 5
    assert [every[i] - one[i] for i in range(N_BLOCKS)] == [4 * row, 8 * row, 11 * row]


def test_a_decoder_that_does_more_than_its_blocks_is_refused() -> None:
    items = token_prompts(4, [5, 8])
    chat = tiny_chat("llama")

    plain: Any = type(chat.layout.decoder)

    class More(plain):  # type: ignore[misc]  # a class that is known when it runs
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.last_hidden_state = output.last_hidden_state * 1.1
            return output

    chat.layout.decoder.__class__ = More
    with pytest.raises(LayoutError, match="differs from the model by KL"):
        ships(chat, items)
    chat.layout.decoder.__class__ = plain
    assert "forward" not in chat.layout.decoder.__dict__
    ships(chat, items)


def test_blocks_that_cannot_be_run_by_themselves_are_refused() -> None:
    chat = tiny_chat("llama")
    handle = chat.layout.blocks[1].register_forward_pre_hook(_only_one_row)
    with pytest.raises(LayoutError, match="cannot be run by themselves"):
        ships(chat, token_prompts(0, [5]))
    handle.remove()


def _only_one_row(_module: Any, args: tuple[torch.Tensor]) -> None:
    if len(args[0]) > 1:
        raise TypeError


def test_who_breaks_off_leaves_the_model_as_it_was() -> None:
    chat = shared_chat("llama")
    items = token_prompts(4, [5, 8, 30])
    attentions = [untyped(chat.layout.heads_at(layer).attention) for layer in range(N_BLOCKS)]
    configs, count = [a.config for a in attentions], hook_count(chat.model)

    def stop(done: int, _all: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ships(chat, items, token_budget=64, on_pairs=stop)
    assert hook_count(chat.model) == count
    assert all(a.config is c for a, c in zip(attentions, configs, strict=True))
