"""Ablation of query heads as Ships defines it, and a random control of the same size.

From "On the role of attention heads in large language model safety" (arXiv 2410.13708, section 3.1;
`docs/science.md` C.1), for one query head with projections Q, K, V, its own scale s and the causal mask M:

- `undifferentiated`: softmax(eps s Q K^T + M) V. For eps -> 0 every visible token weighs alike, so that row i becomes
  the running mean (1/i) sum_{j <= i} V_j. Q or K is scaled: the same in the limit, and here the same for any eps
- `scaling` (scaling contribution): eps times the head's output, which is what scaling V does
- `random` (a control, not the paper's): the head's output is moved at every position as far as one of the two would
  move it (`size`), in a direction that is drawn once a head from `seed` and has nothing to do with the values

Scaling happens where attention gets its queries: after projection and bias, QK-norm and rotation, before soft-capping
(which takes 0 to 0) and mask. So only tokens that a query sees count, be there padding or a sliding window; under
grouped-query attention one query head alone is ablated, with `side="key"` too. A head with a learned attention sink
keeps that sink's share. Ablation acts at every position, with and without a KV cache, which holds unscaled keys.

Contract: `ablating(chat, heads)` is a context for generation and forward passes; it leaves the model as it found it.
`switch(layout, ablation)` lets rows of one batch have different heads ablated. Raises SiteError for a head that is not
there, SteeringError where an attention does not go through transformers' attention interface (`scaling` needs none).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from probes.capture.sites import Edit, Site, attach, check_site
from probes.errors import SiteError, SteeringError
from probes.model.layout import Layout
from probes.model.load import ChatModel

AblationKind = Literal["undifferentiated", "scaling", "random"]
# Those of the paper; a random one is as large as one of them.
AblationSize = Literal["undifferentiated", "scaling"]
_NAME = "awry_head_ablation"
# Attentions whose heads may be ablated now. Weak, so that a model that is gone takes its entries with it.
_running: WeakKeyDictionary[nn.Module, _Attention] = WeakKeyDictionary()


@dataclass(frozen=True)
class Ablation:
    """How a head is switched off (arXiv 2410.13708 section 3.1; the module). `seed` and `size` are of `random` alone.

    eps is in 0..1 and has no unit: 1 changes nothing. SteeringError outside.
    """

    kind: AblationKind = "undifferentiated"
    eps: float = 1e-5
    side: Literal["query", "key"] = "query"
    seed: int = 0
    size: AblationSize = "undifferentiated"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and 0 <= self.eps <= 1):
            raise SteeringError(f"eps: {self.eps} is not in 0..1; 1 changes nothing, 0 is the limit")

    def __str__(self) -> str:
        seed = f", seed {self.seed}" if self.kind == "random" else ""
        size = f" as far as {self.size}" if self.size != "undifferentiated" else ""
        return f"{self.kind}{size}, eps {self.eps:g}{seed}"


def check_heads(heads: Sequence[Site], layout: Layout) -> None:
    """SiteError when one is no query head of this model, or named twice."""
    for head in heads:
        if head.kind != "head" or head.layer < 0 or head.head < 0:
            raise SiteError(f"head: {head} is no query head; write head[BLOCK,HEAD]")
        check_site(head, layout)
    if len(set(heads)) < len(heads):
        raise SiteError("heads: one is named twice; name each once")


@contextmanager
def ablating(chat: ChatModel, heads: Sequence[Site], ablation: Ablation | None = None) -> Iterator[None]:
    """Ablate `heads` in every row of every forward pass inside the context, generation included."""
    check_heads(heads, chat.layout)
    with switch(chat.layout, ablation or Ablation(), {h.layer for h in heads}) as on:
        on.every_row(heads)
        yield


@dataclass
class Switch:
    """Which heads are off now: `off[layer]` is (rows or 1, n_heads) bool; a layer that is not there is left alone."""

    layout: Layout
    off: dict[int, Tensor] = field(default_factory=dict)

    def every_row(self, heads: Sequence[Site]) -> None:
        """These heads are off in every row."""
        self.rows([heads])

    def rows(self, heads: Sequence[Sequence[Site]]) -> None:
        """`heads[i]` are off in row i; forward passes must then have as many rows."""
        self.off.clear()
        device = next(self.layout.final_norm.parameters()).device
        for i, row in enumerate(heads):
            for head in row:
                count = self.layout.heads_at(head.layer).count
                empty = torch.zeros(len(heads), count, dtype=torch.bool, device=device)
                self.off.setdefault(head.layer, empty)[i, head.head] = True

    def of(self, layer: int, rows: int) -> Tensor | None:
        """What is off in a batch of `rows`, as (rows or 1, n_heads)."""
        off = self.off.get(layer)
        if off is not None and len(off) not in (1, rows):
            raise SteeringError(f"block {layer}: {len(off)} rows of heads were given, the forward pass has {rows}")
        return off


@contextmanager
def switch(layout: Layout, ablation: Ablation, layers: set[int] | None = None) -> Iterator[Switch]:
    """A switch over the heads of `layers` (all of them by default): nothing is off at first."""
    on = Switch(layout)
    undo: list[Callable[[], None]] = []
    try:
        for layer in layout.blocks_with_heads if layers is None else sorted(layers):
            if ablation.kind == "scaling":
                hook = _scaler(on, layer, ablation.eps)
            else:
                attention = _Attention(on, layer, ablation)
                undo.append(attention.uninstall)
                attention.install()
                hook = attention.check_reached
            undo += [handle.remove for handle in attach(layout, Site("head", layer), hook)]
        yield on
    finally:
        for step in reversed(undo):
            step()


def _factor(off: Tensor, eps: float, like: Tensor) -> Tensor:
    """(rows or 1, n_heads): eps where a head is off, else 1."""
    return torch.where(off, eps, 1.0).to(like.dtype)


def _scaler(on: Switch, layer: int, eps: float) -> Edit:
    def scale(joined: Tensor) -> Tensor | None:
        off = on.of(layer, len(joined))
        if off is None:
            return None
        heads = joined.view(*joined.shape[:-1], off.shape[1], -1)
        return (heads * _factor(off, eps, joined)[:, None, :, None]).flatten(-2)

    return scale


class _Attention:
    """Stands between one block's attention and the attention function that it calls.

    Only this attention sees the change: it gets a copy of its config that names our function, so that the decoder
    still makes the masks of the implementation that was chosen, which ours then calls.
    """

    def __init__(self, on: Switch, layer: int, ablation: Ablation) -> None:
        self._on, self._layer, self._ablation = on, layer, ablation
        self._module: Any = on.layout.heads_at(layer).attention
        self._config: Any = getattr(self._module, "config", None)
        self._reached = False
        self._directions: Tensor | None = None

    def install(self) -> None:
        from transformers import AttentionInterface

        if self._module in _running:
            raise SteeringError(f"block {self._layer}: its heads are ablated already; name all heads in one context")
        # The names that its forward reads: the family's own, where it has its own.
        names = inspect.unwrap(type(self._module).forward).__globals__
        interface, eager = names.get("ALL_ATTENTION_FUNCTIONS"), names.get("eager_attention_forward")
        if self._config is None or interface is None:
            raise self._unreachable()
        chosen = self._config._attn_implementation or "eager"
        self._attend = interface.get(chosen, eager)
        # A shallow copy, and not the setter, which would change the sub-configs that both share.
        ours = copy.copy(self._config)
        ours._attn_implementation_internal = _NAME
        AttentionInterface.register(_NAME, _attention)
        _running[self._module] = self
        self._module.config = ours

    def uninstall(self) -> None:
        if _running.get(self._module) is self:
            del _running[self._module]
            self._module.config = self._config

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        """query (rows, n_heads, tokens, head_dim), key and value with n_kv_heads -> output with tokens before heads."""
        self._reached = True
        off = self._on.of(self._layer, len(query))
        if off is None:
            return self._attend(self._module, query, key, value, *args, **kwargs)
        factor = _factor(off, self._ablation.eps, query)[:, :, None, None]
        if self._ablation.side == "key":
            # Each query head gets keys of its own, so that its group's other heads keep theirs.
            groups = query.shape[1] // key.shape[1]
            module = copy.copy(self._module)
            module.num_key_value_groups = 1
            key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
            return self._attend(module, query, key * factor, value, *args, **kwargs)
        if self._ablation.kind == "undifferentiated":
            return self._attend(self._module, query * factor, key, value, *args, **kwargs)
        plain = self._attend(self._module, query, key, value, *args, **kwargs)
        if self._ablation.size == "scaling":
            difference = plain[0] * (1 - factor.transpose(1, 2))
        else:
            difference = self._attend(self._module, query * factor, key, value, *args, **kwargs)[0] - plain[0]
        size = difference.float().norm(dim=-1, keepdim=True)
        moved = plain[0] + (size * self._random(plain[0])).to(plain[0].dtype)
        return (moved, *plain[1:])

    def _random(self, like: Tensor) -> Tensor:
        """One unit direction a head, (n_heads, head_dim), the same in every run."""
        if self._directions is None:
            seed = 1_000_003 * self._ablation.seed + self._layer
            drawn = torch.randn(like.shape[-2:], generator=torch.Generator().manual_seed(seed))
            self._directions = (drawn / drawn.norm(dim=-1, keepdim=True)).to(like.device)
        return self._directions

    def check_reached(self, _joined: Tensor) -> None:
        """At the projection, which comes right after the attention function."""
        if not self._reached:
            raise self._unreachable()
        self._reached = False

    def _unreachable(self) -> SteeringError:
        return SteeringError(
            f"block {self._layer}: {type(self._module).__name__} does not go through transformers' attention "
            "interface, so that its queries cannot be scaled; use the ablation `scaling`"
        )


def _attention(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What transformers calls instead of the chosen implementation."""
    return _running[module](*args, **kwargs)
