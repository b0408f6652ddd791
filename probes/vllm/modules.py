"""vLLM's own modules: which are the blocks, the final norm and the projections of the heads, and what they give.

Contract: within a process, `when_built(shape, running, attach)` waits for the first forward pass of vLLM (`running`
says whether one is on: another model may be in the process) of a model with as many blocks as `shape` has, and calls
`attach(parts)` once before that pass reaches a block. It does so by PyTorch's hook of all modules, which is gone by
then: nothing of vLLM is changed. `stream_of(output)` is the residual stream after a block: vLLM hands on hidden states
and a residual that the next norm adds up.

Raises LayoutError, in the forward pass, where a part is not among vLLM's modules under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from probes.errors import LayoutError
from probes.vllm.shape import Shape


@dataclass(frozen=True)
class Parts:
    """The blocks, the norm behind them, and of each block the projection whose input are its heads (None: none)."""

    blocks: tuple[nn.Module, ...]
    norm: nn.Module
    projections: tuple[nn.Module | None, ...]


def when_built(shape: Shape, running: Callable[[], bool], attach: Callable[[Parts], None]) -> RemovableHandle:
    """The handle of the hook, until it has found the model."""

    def look(module: nn.Module, _args: Any) -> None:
        parts = _parts(module, shape) if running() else None
        if parts is not None:
            handle.remove()
            attach(parts)

    handle: RemovableHandle = register_module_forward_pre_hook(look)
    return handle


def _parts(root: nn.Module, shape: Shape) -> Parts | None:
    for parent in root.modules():
        norm = getattr(parent, shape.norm, None)
        for child in parent.children():
            if isinstance(child, nn.ModuleList) and len(child) == shape.layout.n_blocks and isinstance(norm, nn.Module):
                blocks = tuple(child)
                return Parts(blocks, norm, tuple(map(_projection, blocks, shape.projections)))
    return None


def _projection(block: nn.Module, path: str | None) -> nn.Module | None:
    if path is None:
        return None
    try:
        return block.get_submodule(path)
    except AttributeError:
        return None


def stream_of(output: Any) -> Tensor:
    """The residual stream after a block, (tokens, width)."""
    if isinstance(output, Tensor):
        return output
    hidden, residual = output[0], output[1] if len(output) > 1 else None
    if not isinstance(hidden, Tensor):
        raise LayoutError(f"a block of vLLM's model returns {type(hidden).__name__}, and no tensor")
    total: Tensor = hidden + residual if isinstance(residual, Tensor) else hidden
    return total


def normed_of(output: Any) -> Tensor:
    """What the final norm gives, (tokens, width)."""
    normed: Tensor = output if isinstance(output, Tensor) else output[0]
    return normed


def heads_of(args: tuple[Any, ...]) -> Tensor:
    """The heads' outputs, one behind the other, (tokens, heads * width): what goes into their projection."""
    given: Tensor = args[0]
    return given
