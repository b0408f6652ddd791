"""The query heads of one decoder block, where it has attention: found by structure and not by class name.

Contract: `heads_of(block, config)` gives the block's attention and the projection whose *input* is the concatenation
of the query heads' outputs (Llama's `o_proj`, GPT-2's `c_proj`, GPT-NeoX's `dense`), with the width of one head there;
or a reason, for people, why the block has no heads that can be read. The width is that of a head's values: under
latent attention (DeepSeek) it is another than that of its queries, and it may differ from block to block.

A head is only given where its slice of that input is its own. It is not where several heads are put into one output
(differential attention), or where a norm over all of them stands before the projection (BitNet). A recurrent state
(linear attention, state-space mixers) has no heads here: they attend to no token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj", "wo", "Wo")
ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
# What makes queries, where an attention has another name (`mixer`, `temporal_block`).
_QUERIES = ("q_proj", "qkv_proj", "query_key_value", "q_b_proj", "Wqkv", "Wq", "c_attn")
# Of an attention to something else than the text before.
_OTHER = ("cross", "encoder")
# Parameters, buffers and modules of a layer that carries a state from token to token.
_RECURRENT = ("A_log", "dt_bias", "slope_rate", "slope", "time_decay", "conv1d", "q_conv1d")
# Norms of one side of the attention's inputs, by the beginnings of their names.
_OF_INPUTS = ("q", "k", "v")


@dataclass(frozen=True)
class Heads:
    """The query heads of one block: `width` values in `projection`'s input are one head's.

    The KV group of head h is `h // (count / kv_count)`.
    """

    attention: nn.Module
    projection: nn.Module
    count: int
    kv_count: int
    width: int


def heads_of(block: nn.Module, config: Any) -> Heads | str:
    """The heads of a block, or why there are none that can be read."""
    found = list(_attentions(block))
    if not found:
        return _missing(block)
    if len(found) > 1:
        return f"it has {len(found)} attentions ({', '.join(path for path, _ in found)})"
    path, attention = found[0]
    if state := _state(attention):
        return f"{path} ({type(attention).__name__}) {state}"
    name, projection = next((n, m) for n in PROJECTIONS if (m := getattr(attention, n, None)) is not None)
    projection, taken = _linear(projection)
    count = _first(attention, "num_heads", "num_attention_heads", "n_heads") or _first(config, "num_attention_heads")
    if taken is None or count is None:
        return f"{path}.{name} ({type(projection).__name__}) and the config do not say how many heads of which width"
    claimed = {value_of(x, n) for x in (attention, config) for n in ("v_head_dim", "head_dim", "head_size")}
    claimed.add((value_of(config, "hidden_size") or 0) // count)
    width = taken // count
    if width * count != taken or width not in claimed:
        widths = " or ".join(str(w) for w in sorted(w for w in claimed if w))
        return f"{path}.{name} takes {taken} values, but there are {count} heads of {widths} values"
    joint = [name for name, norm in _output_norms(attention) if _norm_width(norm) != width]
    if joint:
        return f"{path} ({type(attention).__name__}) norms the outputs of several heads together ({joint[0]})"
    return Heads(attention, projection, count, _kv_count(attention, config, count), width)


def value_of(config: Any, name: str) -> int | None:
    """A count in a config or module; None where it has none above 0, or one that differs from layer to layer."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers' AmbiguousGlobalPerLayerAttributeError
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _first(config: Any, *names: str) -> int | None:
    return next((value for name in names if (value := value_of(config, name)) is not None), None)


def _kv_count(attention: nn.Module, config: Any, count: int) -> int:
    own = _first(attention, "num_key_value_heads", "num_kv_heads", "kv_heads")
    if own is None and (groups := value_of(attention, "num_key_value_groups")):
        own = count // groups
    return own or value_of(config, "num_key_value_heads") or count


def _attentions(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules of a block that are attention with an output projection, by their path within it."""
    for path, module in block.named_modules():
        own = path.rpartition(".")[2]
        if any(word in part for part in path.split(".") for word in _OTHER):
            continue
        children = dict(module.named_children())
        if any(name in children for name in PROJECTIONS) and (
            own in ATTENTIONS or any(name in children for name in _QUERIES)
        ):
            yield path, module


def _output_norms(attention: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in attention.named_children():
        if "norm" in name.lower() + type(module).__name__.lower() and not name.startswith(_OF_INPUTS):
            yield name, module


def _norm_width(norm: nn.Module) -> int | None:
    """Over how many values a norm runs; None where it does not say."""
    shape = getattr(norm, "normalized_shape", None)
    if shape:
        return int(shape[-1])
    weight = getattr(norm, "weight", None)
    return int(weight.numel()) if weight is not None else None


def _state(attention: nn.Module) -> str:
    found = [name for name in _RECURRENT if hasattr(attention, name)]
    return f"carries a state ({found[0]}) and attends to no token" if found else ""


def _missing(block: nn.Module) -> str:
    children = dict(block.named_children())
    for name in ATTENTIONS:
        if name in children:
            why = _state(children[name]) or f"has no output projection called {' / '.join(PROJECTIONS)}"
            return f"{name} ({type(children[name]).__name__}) {why}"
    found = ", ".join(
        f"{n} ({type(m).__name__})"
        for n, m in children.items()
        if "norm" not in n and any(True for _ in m.parameters())
    )
    return f"it has no attention; found: {found or 'nothing'}"


def _linear(projection: nn.Module) -> tuple[nn.Module, int | None]:
    """The module that multiplies, and how many values it takes."""
    inner = getattr(projection, "linear", None)
    if isinstance(inner, nn.Module):
        projection = inner
    if hasattr(projection, "in_features"):
        return projection, int(projection.in_features)  # type: ignore[arg-type]
    weight = getattr(projection, "weight", None)  # GPT-2's Conv1D keeps (in, out)
    return projection, int(weight.shape[0]) if weight is not None and weight.dim() == 2 else None
