"""The layout of a decoder-only Hugging Face model: its parts, found by structure and not by class name.

Contract: `find_layout(model)` returns the decoder blocks, the final norm and, for each block, its attention and the
projection whose *input* is the concatenation of the query heads' outputs (Llama's `o_proj`, GPT-2's `c_proj`,
GPT-NeoX's `dense`). Multimodal wrappers are unwrapped to their text decoder. A PEFT adapter may be present: it
replaces linears in place, so the blocks found are the ones that run.

Does not know: encoder-decoder models, state-space models, models without one attention per block. They get a
LayoutError that says what was looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from probes.errors import LayoutError

_PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj", "wo")
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
_NOT_TEXT = ("vision", "visual", "audio", "image", "encoder")


@dataclass(frozen=True)
class Layout:
    """The parts of one decoder. Block and head count from 0.

    `decoder` takes token ids and returns hidden states without the language-model head; `head_dim` is the width of
    one query head's output (the config's, never `width / n_heads`); KV group of head h is `h // (n_heads / n_kv)`.
    """

    decoder: nn.Module
    blocks: tuple[nn.Module, ...]
    final_norm: nn.Module
    attentions: tuple[nn.Module, ...]
    projections: tuple[nn.Module, ...]
    width: int
    n_heads: int
    n_kv_heads: int
    head_dim: int

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)


def _text_config(model: nn.Module) -> Any:
    config: Any = model.config
    return config.get_text_config(decoder=True)


def position_limit(model: nn.Module) -> int | None:
    """How many positions the text decoder's config names; None where it names none."""
    config = _text_config(model)
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            return limit
    return None


def _is_text(path: str) -> bool:
    return not any(word in part for part in path.split(".") for word in _NOT_TEXT)


def _child(parent: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    for name in names:
        module = getattr(parent, name, None)
        if isinstance(module, nn.Module):
            return module
    return None


def find_layout(model: nn.Module) -> Layout:
    """Find the decoder of `model` (a `transformers` causal LM, plain, multimodal or with PEFT adapters).

    Raises LayoutError, naming what was looked for, when the structure is not a plain stack of attention blocks.
    """
    config = _text_config(model)
    n_layers = int(config.num_hidden_layers)
    stacks: list[tuple[str, nn.Module, nn.ModuleList]] = []
    for path, module in model.named_modules():
        if not _is_text(path):
            continue
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == n_layers and _child(child[0], _ATTENTIONS):
                stacks.append((path, module, child))
    if len(stacks) != 1:
        where = ", ".join(path or "(top)" for path, _, _ in stacks) or "none"
        raise LayoutError(
            f"{type(model).__name__}: looked for one ModuleList of {n_layers} blocks (config.num_hidden_layers), "
            f"each with an attention called {' / '.join(_ATTENTIONS)}, outside vision and audio towers; found: {where}"
        )
    _, decoder, blocks = stacks[0]
    final_norm = _child(decoder, _NORMS)
    if final_norm is None:
        raise LayoutError(f"{type(model).__name__}: no final norm beside the blocks; looked for {' / '.join(_NORMS)}")
    n_heads = int(config.num_attention_heads)
    width = int(config.hidden_size)
    head_dim = int(getattr(config, "head_dim", None) or width // n_heads)
    projections = tuple(_projection(model, i, block, n_heads * head_dim) for i, block in enumerate(blocks))
    return Layout(
        decoder=decoder,
        blocks=tuple(blocks),
        final_norm=final_norm,
        attentions=tuple(_attention(model, i, block) for i, block in enumerate(blocks)),
        projections=projections,
        width=width,
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        head_dim=head_dim,
    )


def _attention(model: nn.Module, index: int, block: nn.Module) -> nn.Module:
    attention = _child(block, _ATTENTIONS)
    if attention is None:
        raise LayoutError(
            f"{type(model).__name__}: block {index} has no attention; looked for {' / '.join(_ATTENTIONS)}"
        )
    return attention


def _projection(model: nn.Module, index: int, block: nn.Module, expected: int) -> nn.Module:
    projection = _child(_attention(model, index, block), _PROJECTIONS)
    if projection is None:
        raise LayoutError(
            f"{type(model).__name__}: block {index} has no attention output projection; looked for "
            f"{' / '.join(_PROJECTIONS)} in {' / '.join(_ATTENTIONS)}"
        )
    taken = _input_width(projection)
    if taken != expected:
        raise LayoutError(
            f"{type(model).__name__}: block {index}'s output projection takes {taken} values, but the config says "
            f"{expected} (num_attention_heads x head_dim)"
        )
    return projection


def _input_width(projection: nn.Module) -> int:
    if hasattr(projection, "in_features"):
        return int(projection.in_features)  # type: ignore[arg-type]
    weight = projection.weight  # GPT-2's Conv1D keeps (in, out)
    return int(weight.shape[0])  # type: ignore[index]
