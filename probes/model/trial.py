"""Whether a decoder runs the way its parts look: a forward pass without weights, numbers or memory.

`probes.model.layout` finds parts by their place; what is done with them shows only when they run. Contract:
`try_out(config)` builds the model of tensors that have a shape and no values (PyTorch's fake tensors), reads a few token
ids, and raises LayoutError where the pass is not that of a residual stream: a block is not run, run more than once or out of
order, returns something else than (rows, tokens, width), or what the decoder returns is not what its final norm gave behind
the last block. It takes seconds. Where such a pass cannot be run (code that asks for values) it returns False: nothing is
known then, and a site that is not what it seems is refused when it is first read.

For classes that no test covers, among them those of a checkpoint's own code: `TESTED` are read exactly (`docs/models.md`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from probes.capture.sites import hidden_of
from probes.errors import LayoutError
from probes.model.layout import Layout, find_layout

# By `model_type` of the text decoder's config.
TESTED = frozenset(
    """
    TESTED_NAMES
    """.split()
)
_TOKENS = 3
_FAKE_LOGGER = "torch._subclasses.fake_tensor"


def try_out(config: Any, make: Any) -> bool:
    """Check the decoder that `make(config)` builds; whether it could be run. LayoutError where it is not one of ours."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with _silent(), FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True), torch.no_grad():
        try:
            model = make(config).eval()
        except Exception:  # code that is not ours, on tensors that it does not expect
            return False
        layout = find_layout(model)
        steps: list[tuple[int, Tensor]] = []
        handles = [
            module.register_forward_hook(lambda _m, _i, out, n=number: steps.append((n, hidden_of(out))))
            for number, module in enumerate((*layout.blocks, layout.final_norm))
        ]
        try:
            out = layout.decoder(input_ids=torch.zeros(1, _TOKENS, dtype=torch.long), use_cache=False)
        except Exception:  # the same
            return False
        finally:
            for handle in handles:
                handle.remove()
    _check(type(model).__name__, layout, steps, out)
    return True


def _check(name: str, layout: Layout, steps: list[tuple[int, Tensor]], out: Any) -> None:
    norm = layout.n_blocks
    run = [number for number, _ in steps if number != norm]
    if run != list(range(norm)):
        missing = sorted(set(range(norm)) - set(run))
        how = f"block {missing[0]} is not run on text" if missing else "blocks are run more than once, or out of order"
        raise LayoutError(f"{name}: looked for {norm} blocks that are run one after another; found: {how}")
    streams = () if layout.stream is None else (Ellipsis,)
    for number, hidden in steps:
        shape = tuple(hidden.shape) if number == norm or not streams else tuple(hidden.shape[1:])
        if number != norm and shape != (1, _TOKENS, layout.width):
            raise LayoutError(
                f"{name}: looked for blocks that return the residual stream, (rows, tokens, width) = "
                f"{(1, _TOKENS, layout.width)}; found: block {number} returns {tuple(hidden.shape)}"
            )
    behind = [hidden for number, hidden in steps[-1:] if number == norm]
    last = getattr(out, "last_hidden_state", None)
    if last is None:
        last = hidden_of(out)
    if not behind or behind[0] is not last:
        raise LayoutError(
            f"{name}: looked for a final norm behind the last block, whose output the decoder returns; found: "
            f"{'something comes after it' if behind else 'none that is run there'}"
        )


@contextmanager
def _silent() -> Iterator[None]:
    logger = logging.getLogger(_FAKE_LOGGER)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
