"""The model classes that awry reads, as Markdown: from the models that the tests make, and what is found in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers

from probes.errors import LayoutError
from probes.model.block_heads import Heads
from probes.model.layout import Layout, find_layout
from probes.model.trial import try_out
from tests.support.models.classes import CASES, config_of
from tests.support.models.refused import REFUSED, UNTESTED, refused_model


def read_classes() -> list[str]:
    """A line a class that a test reads."""
    transformers.logging.set_verbosity_error()  # what is slow without CUDA is of no interest here
    rows = ["| `model_type` of the text decoder | class | heads | to know |", "|---|---|---|---|"]
    return rows + [_read(name) for name in sorted(CASES)]


def refused_classes() -> list[str]:
    """A line a class that is refused, with what is said."""
    rows = ["| `model_type` | what is said |", "|---|---|"]
    return rows + [f"| `{name}`{_of(REFUSED[name].values)} | {_refusal(name)} |" for name in sorted(REFUSED)]


def untested_classes() -> list[str]:
    """A line for classes that no test reads."""
    rows = ["| `model_type` | why |", "|---|---|"]
    return rows + [f"| `{name.replace(', ', '`, `')}` | {why} |" for name, why in UNTESTED.items()]


def _read(name: str) -> str:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config_of(name))
    heads = "; ".join(_heads(model, find_layout(model)))
    return f"| `{name}` | {type(model).__name__} | {heads} | {CASES[name].note} |"


def _heads(model: Any, layout: Layout) -> Iterator[str]:
    there = [heads for heads in layout.heads if isinstance(heads, Heads)]
    without = list(dict.fromkeys(why for why in layout.heads if isinstance(why, str)))
    if not there:
        yield f"none: {'; '.join(without)}"
        return
    yield f"blocks with attention; of others is said: {' / '.join(without)}" if without else "every block"
    if len({heads.width for heads in there}) > 1:
        yield "as wide as the block's own"
    elif there[0].width == getattr(model.config, "v_head_dim", None):
        yield "as wide as their values (`v_head_dim`)"


def _of(values: dict[str, Any]) -> str:
    return "".join(f" with {name} = {str(value).lower()}" for name, value in values.items())


def _refusal(name: str) -> str:
    try:
        with torch.device("meta"):
            find_layout(refused_model(name))
        try_out(lambda: refused_model(name, dtype=torch.bfloat16))
    except LayoutError as error:
        return str(error)
    raise SystemExit(f"{name}: said to be refused, and it is not")
