"""The layout of a decoder-only Hugging Face model: its parts, found by structure and not by class name.

Contract: `find_layout(model)` returns the decoder, its blocks, the final norm and the query heads of each block that
has them (`probes.model.block_heads`). Multimodal wrappers are unwrapped to their text decoder. A PEFT adapter may be
present: it replaces linears in place, so the blocks found are the ones that run. Blocks may differ: in a hybrid stack
some have attention and others a state; a block without heads says why.

Needs no weights: a model on PyTorch's meta device will do. Does not know encoder-decoders, stacks that are run several
times over, and models without a final norm: LayoutError says what was looked for and what was found.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from probes.errors import LayoutError
from probes.model.block_heads import Heads, heads_of, value_of
from probes.model.facts import heads_or_reason

# Of the norm that runs last, the usual names first: some decoders have more than one norm beside their blocks.
_NORMS = (
    *("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "out_norm", "ln_out"),
    *("layer_norm", "layernorm", "embedding_norm"),
)
_NOT_TEXT = ("vision", "visual", "audio", "image", "encoder", "talker")


@dataclass(frozen=True)
class Layout:
    """The parts of one decoder. Blocks and heads count from 0.

    `decoder` takes token ids and returns hidden states without the language-model head. `heads[l]` are the query heads
    of block l, or the reason why it has none that can be read. `stream` is set where a block returns several residual
    streams, (streams, rows, tokens, width): the number of that which attention and feed-forward read and write."""

    decoder: nn.Module
    blocks: tuple[nn.Module, ...]
    final_norm: nn.Module
    width: int
    heads: tuple[Heads | str, ...]
    stream: int | None = None

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        """Query heads of the block that has most; 0 where no block has any."""
        return max((h.count for h in self.heads if isinstance(h, Heads)), default=0)

    @property
    def blocks_with_heads(self) -> tuple[int, ...]:
        return tuple(layer for layer, heads in enumerate(self.heads) if isinstance(heads, Heads))

    def heads_at(self, layer: int) -> Heads:
        """The heads of a block. SiteError, with the reason, where it has none."""
        return heads_or_reason(self.heads, layer)


def position_limit(model: nn.Module) -> int | None:
    """How many positions the text decoder's config names; None where it names none."""
    config = _text_config(model)
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        limit = value_of(config, name)
        if limit is not None:
            return limit
    return None


def find_layout(model: nn.Module) -> Layout:
    """Find the decoder of `model` (a `transformers` causal LM, plain, multimodal or with PEFT adapters).

    Raises LayoutError, naming what was looked for and found, when it is not one stack of blocks with a norm behind it.
    """
    name = type(model).__name__
    config = _text_config(model)
    if any(getattr(one, "is_encoder_decoder", False) for one in (model.config, config)):
        raise LayoutError(f"{name}: an encoder-decoder; looked for a decoder that reads the prompt itself")
    width = value_of(config, "hidden_size")
    if width is None:
        raise LayoutError(f"{name}: its config names no hidden_size (width of the residual stream)")
    decoder, blocks = _stack(model, config)
    return Layout(
        decoder=decoder,
        blocks=tuple(blocks),
        final_norm=_final_norm(name, decoder, blocks),
        width=width,
        heads=_distinct([heads_of(block, config) for block in blocks]),
        stream=_stream(config),
    )


def _text_config(model: nn.Module) -> Any:
    config: Any = model.config
    return config.get_text_config(decoder=True)


def _stack(model: nn.Module, config: Any) -> tuple[nn.Module, nn.ModuleList]:
    """The decoder and its blocks."""
    count = value_of(config, "num_hidden_layers")
    lists = list(_lists(model))
    found = [x for x in lists if len(x[2]) == count]
    # Where a block counts as several layers.
    found = found or [x for x in lists if count and count % len(x[2]) == 0 and len(x[2]) > 1]
    taking = [x for x in found if _takes_ids(x[1])]
    if len(taking) == 1:
        return taking[0][1:]
    named = ", ".join(f"{path} ({len(blocks)})" for path, _, blocks in taking or found or lists) or "none"
    if found and not taking:
        named += ", in a module that takes no input_ids: run by another, it may be run several times or both ways"
    raise LayoutError(
        f"{type(model).__name__}: looked for one ModuleList of {count} blocks (config.num_hidden_layers) in a module "
        f"that takes input_ids, outside vision and audio towers; found: {named}"
    )


def _lists(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.ModuleList]]:
    """Lists of modules that are made of modules, but not those within a block: path, what holds them, themselves."""
    inside: list[str] = []
    for path, module in model.named_modules():
        if not _is_text(path) or any(path.startswith(f"{outer}.") for outer in inside):
            continue
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) and all(any(m.children()) for m in child):
                own = f"{path}.{name}" if path else name
                if _is_text(own):
                    inside.append(own)
                    yield own, module, child


def _is_text(path: str) -> bool:
    return not any(word in part for part in path.split(".") for word in _NOT_TEXT)


def _takes_ids(module: nn.Module) -> bool:
    return "input_ids" in inspect.signature(module.forward).parameters


def _final_norm(model: str, decoder: nn.Module, blocks: nn.ModuleList) -> nn.Module:
    beside = {name: module for name, module in decoder.named_children() if module is not blocks}
    for name in _NORMS:
        if name in beside:
            return beside[name]
    found = ", ".join(f"{name} ({type(module).__name__})" for name, module in beside.items()) or "nothing"
    raise LayoutError(
        f"{model}: no final norm beside the blocks, so that `final` has no place; looked for {' / '.join(_NORMS)}; "
        f"found: {found}"
    )


def _distinct(heads: list[Heads | str]) -> tuple[Heads | str, ...]:
    """A projection that several blocks share cannot be told apart by block."""
    owners: dict[nn.Module, list[int]] = {}
    for layer, one in enumerate(heads):
        if isinstance(one, Heads):
            owners.setdefault(one.projection, []).append(layer)
    for layers in owners.values():
        if len(layers) > 1:
            for layer in layers:
                heads[layer] = (
                    f"its attention is one with that of blocks {', '.join(str(x) for x in layers if x != layer)}"
                )
    return tuple(heads)


def _stream(config: Any) -> int | None:
    if not value_of(config, "altup_num_inputs"):
        return None
    return int(getattr(config, "altup_active_idx", 0))
