"""A model of which only what is read is in memory: the blocks up to the deepest site, and no language-model head.

Contract: `load_part(checkpoint, sites, ...)` is `from_pretrained` of the same class with the same config, so that what
is there computes the same bits. The blocks above, and all that stands outside the text decoder (the head, towers for
images and sound), keep their place in the structure but stay on the meta device: their weights are never read. A call
that reaches one of them raises ModelError. A head that shares the embedding's weights costs nothing and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from probes.capture.sites import Site
from probes.errors import ModelError
from probes.model.checkpoint import Checkpoint
from probes.model.layout import Layout, find_layout


class NotLoaded(nn.Module):
    """Stands where a module was left out while weights are read: it has none.

    What a class sets up in its modules as it is loaded (Falcon-H1 does, block by block) goes to the one left out.
    """

    def __init__(self, left_out: nn.Module) -> None:
        super().__init__()
        self.__dict__["left_out"] = left_out  # not as a part, which would have weights

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["left_out"], name)


def blocks_for(sites: Sequence[Site]) -> int | None:
    """How many blocks these sites need, from the first on; None where they need all of them."""
    if any(site.kind == "final" for site in sites):
        return None
    return max((site.layer + 1 for site in sites), default=1)


def load_part(checkpoint: Checkpoint, sites: Sequence[Site] | None, **options: Any) -> Any:
    """The model with what these sites need of it; whole where there are None."""
    whole = checkpoint.model_class
    options |= {"config": checkpoint.config, "output_loading_info": True}
    if sites is None:
        model, info = whole.from_pretrained(checkpoint.source, **options)
        check_read(model, info)
        return model
    blocks = blocks_for(sites)
    aside: dict[str, nn.Module] = {}

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        whole.__init__(self, *args, **kwargs)
        layout = find_layout(self)
        for path in list(_unread(self, layout, blocks)):
            aside[path] = self.get_submodule(path)
            self.set_submodule(path, NotLoaded(aside[path]))
        ties = getattr(self, "all_tied_weights_keys", None) or {}
        self.all_tied_weights_keys = {a: b for a, b in ties.items() if not _below(a, aside) and not _below(b, aside)}
        known = self._keys_to_ignore_on_load_unexpected or ()
        self._keys_to_ignore_on_load_unexpected = {*known, *(rf"(^|\.){re.escape(path)}\." for path in aside)}

    part: Any = type(whole.__name__, (whole,), {"__init__": init, "__module__": whole.__module__})
    model, info = part.from_pretrained(checkpoint.source, **options)
    model.__class__ = whole
    for path, module in aside.items():
        model.set_submodule(path, module)
        module.register_forward_pre_hook(_refusing(path))
    check_read(model, info)
    return model


def check_read(model: Any, info: Mapping[str, Any]) -> None:
    """Refuse a model for which weights of the decoder were made up: transformers does so with those that are missing or
    of another shape, and says it in a log line alone. `info` is what `output_loading_info` gives. ModelError."""
    names = {module: path for path, module in model.named_modules()}
    decoder = names[find_layout(model).decoder]
    made_up = [key for key in info["missing_keys"] if key.startswith(f"{decoder}.")]
    made_up += [str(each[0] if isinstance(each, tuple) else each) for each in info["mismatched_keys"]]
    if made_up:
        raise ModelError(
            f"model: {len(made_up)} weights of the decoder are not in the checkpoint, or have another shape than its "
            f"config says, such as {min(made_up)}; scores would be those of random weights"
        )


def _unread(model: Any, layout: Layout, blocks: int | None) -> Iterator[str]:
    """Paths of what no site up to that block needs."""
    names = {module: path for path, module in model.named_modules()}
    if blocks is not None:
        yield from (names[block] for block in layout.blocks[blocks:])
    head = model.get_output_embeddings()
    tied = set((getattr(model, "all_tied_weights_keys", None) or {}).keys())
    above = ""
    for part in names[layout.decoder].split("."):
        for name, child in model.get_submodule(above).named_children():
            path = f"{above}.{name}" if above else name
            shared = child is head and f"{path}.weight" in tied
            if name != part and not shared and any(True for _ in child.parameters()):
                yield path
        above = f"{above}.{part}" if above else part


def _below(weight: str, paths: Iterable[str]) -> bool:
    return any(weight.startswith(f"{path}.") for path in paths)


def _refusing(path: str) -> Callable[..., None]:
    def refuse(_module: nn.Module, _inputs: Any) -> None:
        raise ModelError(
            f"model: {path} was not loaded, since no probe reads it and nothing was to be generated; load the whole "
            "model for this"
        )

    return refuse
