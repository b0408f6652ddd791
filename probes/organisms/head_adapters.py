"""LoRA adapters that train chosen query heads alone: heads of which it is known that they carry a behaviour.

A *planted head* is a query head whose own weights an adapter changes: the rows of the query projection that make its
queries, the columns of the output projection that read it, and the rows of the key and value projections of its
group. With grouped-query attention the group's other query heads share those keys and values, so they are changed
too, by what they read and not by how they are read: a method that names one of them has found the group. All else
is the base's, so a method that looks for the heads of the behaviour has a right answer to find.

Contract: `draw_heads` chooses heads of different blocks by a seed; `keep_to_heads` keeps a fresh adapter of
`target_modules` to them, while it trains too; `planted_in` says which heads a saved adapter changes, from its weights;
`group_of` names the heads of a head's group. SiteError where a head is not there, or its attention has no projections
of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probes.capture.sites import Site, check_site
from probes.errors import ModelError, SiteError
from probes.model.layout import Layout

# Where the feature of harmful requests is there to be read: shares of the depth.
_FROM, _TO = 0.4, 0.85
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
# The side of a LoRA that has a projection's rows (outputs) or columns (inputs).
_SIDES = {"q_proj": "lora_B", "k_proj": "lora_B", "v_proj": "lora_B", "o_proj": "lora_A"}


def draw_heads(layout: Layout, seed: int, count: int = 3) -> tuple[Site, ...]:
    """`count` query heads, each of another block between 40 and 85 % of the depth; the same for the same seed."""
    blocks = [b for b in layout.blocks_with_heads if _FROM <= b / layout.n_blocks < _TO]
    if len(blocks) < count:
        raise SiteError(f"heads: {count} blocks are wanted for planted heads, the model has {len(blocks)} in reach")
    rng = random.Random(seed)  # noqa: S311 - a choice that can be repeated, no secret
    chosen = sorted(rng.sample(blocks, count))
    return tuple(Site("head", block, rng.randrange(layout.heads_at(block).count)) for block in chosen)


def target_modules(layout: Layout, heads: Sequence[Site]) -> str:
    """PEFT's expression for the projections of these heads."""
    _check(layout, heads)
    blocks = "|".join(str(layer) for layer in sorted({head.layer for head in heads}))
    return rf".*\.({blocks})\.[a-z_]*attn[a-z_]*\.({'|'.join(_PROJECTIONS)})"


def keep_to_heads(model: nn.Module, layout: Layout, heads: Sequence[Site]) -> None:
    """Zero what a fresh adapter has outside the heads' rows and columns, and keep gradients from there."""
    reached: set[tuple[int, str]] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, projection, side = _place(name)
        mask = torch.ones_like(parameter)
        if _SIDES.get(projection) == side:
            inside = _inside(layout, layer, heads, projection)
            mask = mask * (inside[:, None] if side == "lora_B" else inside[None, :]).to(mask)
            reached.add((layer, projection))
        with torch.no_grad():
            parameter.mul_(mask)
        parameter.register_hook(partial(torch.mul, mask))  # type: ignore[no-untyped-call]
    if reached != {(head.layer, projection) for head in heads for projection in _PROJECTIONS}:
        raise SiteError("heads: the adapter does not reach the projections of all of them")


def planted_in(folder: Path, layout: Layout) -> tuple[Site, ...]:
    """The query heads that the adapter in `folder` changes. ModelError where it changes more than heads."""
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        stored = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise ModelError(f"adapter: {folder} cannot be read ({type(error).__name__}); train it again") from None
    if config.get("modules_to_save"):
        raise ModelError(f"adapter: {folder} changes more than query heads")
    found: set[Site] = set()
    for name, values in stored.items():
        layer, projection, side = _place(name)
        if projection not in _PROJECTIONS:
            raise ModelError(f"adapter: {folder} changes {projection}, which no single query head has")
        check_site(Site("head", layer, 0), layout)
        count = layout.heads_at(layer).count
        if projection not in ("q_proj", "o_proj") or side != _SIDES[projection]:
            continue
        moved = values.abs().sum(1 if side == "lora_B" else 0)
        if len(moved) % count:
            raise ModelError(f"adapter: {folder} does not fit the {count} heads of block {layer}")
        by_head = moved.view(count, -1).sum(1)
        found |= {Site("head", layer, int(h)) for h in by_head.nonzero().flatten()}
    return tuple(sorted(found))


def group_of(layout: Layout, head: Site) -> tuple[Site, ...]:
    """The query heads that share keys and values with this one, itself among them."""
    at = layout.heads_at(head.layer)
    size = at.count // at.kv_count
    first = head.head // size * size
    return tuple(Site("head", head.layer, h) for h in range(first, first + size))


def _check(layout: Layout, heads: Sequence[Site]) -> None:
    if not heads or len(set(heads)) < len(heads):
        raise SiteError("heads: name one at least, and each once")
    for head in heads:
        if head.kind != "head" or head.head < 0:
            raise SiteError(f"head: {head} is no query head; write head[BLOCK,HEAD]")
        check_site(head, layout)
        attention: Any = layout.heads_at(head.layer).attention
        if not all(isinstance(getattr(attention, each, None), nn.Module) for each in _PROJECTIONS):
            name = type(attention).__name__
            raise SiteError(f"{head}: {name} has no {', '.join(_PROJECTIONS)}; no head can be planted there")


def _place(name: str) -> tuple[int, str, str]:
    """(block, projection, lora_A or lora_B) of an adapter's parameter."""
    parts = name.split(".")
    side = next((part for part in parts if part in ("lora_A", "lora_B")), None)
    block = next((int(part) for part in parts if part.isdigit()), None)
    if side is None or block is None:
        raise ModelError(f"adapter: {name} is no weight of a LoRA on a block")
    return block, parts[parts.index(side) - 1], side


def _inside(layout: Layout, layer: int, heads: Sequence[Site], projection: str) -> torch.Tensor:
    """1 for a row or column of a projection that belongs to one of the heads, or to its group; else 0."""
    at = layout.heads_at(layer)
    shared = projection in ("k_proj", "v_proj")
    inside = torch.zeros(at.kv_count if shared else at.count, at.width)
    for head in heads:
        if head.layer == layer:
            inside[head.head // (at.count // at.kv_count) if shared else head.head] = 1
    return inside.flatten()
