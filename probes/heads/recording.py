"""A recorded forward pass without ablation, so that single blocks can be run again on other rows.

Contract: `record(chat, ...)` runs the decoder once and keeps what entered every block and with what arguments (masks,
rotations, position ids, whatever the family hands down). `Recorded.run_block` runs one block on more rows with those
arguments: rows are `times` copies of the recorded ones, copy by copy. `PrefixKeys` stands in for the KV cache: first
it takes the keys and values of a prefix, then it gives them to what follows.

Does not know: arguments whose batch dimension is not the first (rotations in three sections of some vision models).
`probes.heads.block_replay` compares with the model before anything is believed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from probes.capture.sites import Site, attach, hidden_of
from probes.errors import DataError
from probes.model.kv_cache import with_cache
from probes.model.layout import Layout
from probes.model.load import ChatModel


@dataclass
class Recorded:
    """A plain pass over some prompts. `prompts` are the caller's indices; it is empty for a shared prefix."""

    prompts: tuple[int, ...]
    last: Tensor  # (rows,): index of the last prompt token
    entering: list[Tensor]  # of each block: (rows, tokens, width)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]  # of each block, without the hidden states
    norms: dict[int, Tensor]  # of each block with heads: (rows, heads), of their outputs at `last`
    states: Tensor  # (rows, width): after the final norm at `last`
    output: type[Any]  # what the decoder returns

    @property
    def rows(self) -> int:
        return len(self.last)

    @property
    def tokens(self) -> int:
        """Padding counted."""
        return int(self.entering[0].shape[0] * self.entering[0].shape[1])

    def run_block(self, layout: Layout, layer: int, hidden: Tensor, times: int, keys: PrefixKeys | None) -> Tensor:
        """Block `layer` on hidden (times x rows, tokens, width)."""
        args, kwargs = self.calls[layer]
        given = [_spread(a, self.rows, times, keys) for a in args]
        named = {k: _spread(v, self.rows, times, keys) for k, v in kwargs.items()}
        return hidden_of(layout.blocks[layer](hidden, *given, **named))


class PrefixKeys:
    """The keys and values of a prefix under each row's ablation, by block."""

    def __init__(self) -> None:
        self.stored: dict[int, tuple[Tensor, Tensor]] = {}
        self.repeats = 0  # 0 while the prefix is taken; then how many prompts follow each of its rows

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What an attention calls: its new keys and values, behind those that are held."""
        if not self.repeats:
            self.stored[layer] = (keys, values)
            return keys, values
        before, beside = (x.repeat_interleave(self.repeats, dim=0) for x in self.stored[layer])
        return torch.cat([before, keys], dim=-2), torch.cat([beside, values], dim=-2)

    def get_seq_length(self, layer: int = 0) -> int:
        return int(self.stored[layer][0].shape[-2]) if layer in self.stored else 0


class _Cache:
    """Where a block was handed its KV cache."""


_CACHE = _Cache()


def record(
    chat: ChatModel, ids: Tensor, mask: Tensor, last: Tensor, *, prompts: tuple[int, ...] = (), cache: Any = None
) -> Recorded:
    """Run the decoder over ids (rows, tokens) under mask (rows, tokens with what the cache holds)."""
    layout = chat.layout
    entering: list[Tensor] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    norms: dict[int, Tensor] = {}

    def marked(value: Any) -> Any:
        return _CACHE if cache is not None and value is cache else value

    def keep(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering.append(args[0] if args else kwargs["hidden_states"])
        others = {k: marked(v) for k, v in kwargs.items() if k != "hidden_states"}
        calls.append((tuple(marked(a) for a in args[1:]), others))

    handles: list[RemovableHandle] = [b.register_forward_pre_hook(keep, with_kwargs=True) for b in layout.blocks]
    for layer in layout.blocks_with_heads:
        handles += observe_norms(layout, layer, last, partial(operator.setitem, norms, layer))
    try:
        given = {"use_cache": False} if cache is None else with_cache(layout.decoder, cache)
        out = layout.decoder(input_ids=ids, attention_mask=mask, **given)
    finally:
        for handle in handles:
            handle.remove()
    states = out.last_hidden_state[torch.arange(len(last), device=last.device), last]
    if not states.isfinite().all():
        raise DataError("activations: not finite without any ablation (float16 overflow?); load the model in float32")
    return Recorded(prompts, last, entering, calls, norms, states, type(out))


def observe_norms(layout: Layout, layer: int, last: Tensor, take: Callable[[Tensor], None]) -> list[RemovableHandle]:
    """Hooks that hand over the norms of a block's heads' outputs at `last`, (rows, heads).

    The batch may hold `last`'s rows several times over.
    """
    heads = layout.heads_at(layer).count

    def observe(joined: Tensor) -> None:
        at = last.repeat(len(joined) // len(last))
        chosen = joined[torch.arange(len(at), device=at.device), at]
        take(chosen.view(len(at), heads, -1).float().norm(dim=-1))

    return attach(layout, Site("head", layer), observe)


def _spread(value: Any, rows: int, times: int, keys: PrefixKeys | None) -> Any:
    """An argument of a pass over `rows`, for `times` as many: what has one entry a row is repeated."""
    if value is _CACHE:
        return keys
    if isinstance(value, Tensor):
        if value.dim() > 1 and rows > 1 and len(value) == rows:
            return value.repeat(times, *[1] * (value.dim() - 1))
        return value
    if isinstance(value, tuple | list):
        return type(value)(_spread(v, rows, times, keys) for v in value)
    return value
