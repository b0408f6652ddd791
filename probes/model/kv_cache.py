"""The keys and values of tokens that were read before, as a decoder takes them.

transformers calls a decoder's argument for them `past_key_values`, from 5.24 on `cache`, and in state-space classes
`cache_params`; here alone is it known which. A cache made here keeps all tokens in every layer, whatever a layer's
window is: the attention masks do the sliding.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

# As a decoder's `forward` may call it, the newest name first.
_NAMES = ("cache", "past_key_values", "cache_params", "state")


def new_cache() -> Any:
    """An empty cache of keys and values, which keeps every token in every layer."""
    from transformers import DynamicCache

    return DynamicCache()


def with_cache(decoder: nn.Module, cache: Any) -> dict[str, Any]:
    """The arguments that make `decoder` read and extend `cache`."""
    return {_name(decoder): cache, "use_cache": True}


def cache_of(arguments: Mapping[str, Any]) -> Any | None:
    """The cache among a decoder's arguments by name; None where there is none."""
    return next((arguments[name] for name in _NAMES if arguments.get(name) is not None), None)


def tokens_held(cache: Any) -> int | None:
    """How many tokens a cache holds; None where it is a state, which does not know."""
    try:
        return int(cache.get_seq_length())
    except (AttributeError, ValueError):  # RWKV's list of tensors; a cache of state-space layers alone
        return None


def keys_and_values(cache: Any) -> list[tuple[Tensor, Tensor] | None]:
    """What each layer holds, both (rows, heads, tokens, width); None for a layer that holds nothing."""
    return [(layer.keys, layer.values) if layer.get_seq_length() else None for layer in cache.layers]


def _name(decoder: nn.Module) -> str:
    known = inspect.signature(decoder.forward).parameters
    return next((name for name in _NAMES if name in known), "past_key_values")
