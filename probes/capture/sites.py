"""Sites: named places in a model where activations are read and written.

`residual[l]` is the output of decoder block l, before the final norm; `final` is the last block's output after the
final norm (`hidden_states[-1]` of Hugging Face); `head[l,h]` is the slice of the attention output projection's
*input* that belongs to query head h, `head_dim` wide. Block and head count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from probes.errors import SiteError
from probes.model.layout import Layout

SiteKind = Literal["residual", "final", "head"]
# Names that stand for every site of a kind.
_KINDS = ("residual", "heads", "all")
_PATTERN = re.compile(r"^(?:(final)|residual\[(\d+)\]|head\[(\d+),\s*(\d+)\])$")


@dataclass(frozen=True, order=True)
class Site:
    """A place in the model; `layer` is -1 for `final`, `head` is -1 for all but heads."""

    kind: SiteKind
    layer: int = -1
    head: int = -1

    def __str__(self) -> str:
        if self.kind == "final":
            return "final"
        return f"residual[{self.layer}]" if self.kind == "residual" else f"head[{self.layer},{self.head}]"


def parse_site(text: str) -> Site:
    """Read `final`, `residual[20]` or `head[12,3]`; SiteError otherwise."""
    match = _PATTERN.match(text.strip())
    if match is None:
        raise SiteError(f"site: {text!r} is none of final, residual[BLOCK], head[BLOCK,HEAD]")
    final, block, layer, head = match.groups()
    if final:
        return Site("final")
    return Site("residual", int(block)) if block else Site("head", int(layer), int(head))


def read_sites(text: str) -> list[Site | str]:
    """The sites and kinds of a list as it is written, for any model. SiteError for what is neither."""
    parts = re.findall(r"[a-z]+(?:\[[^\]]*\])?|[^,\s]+", text)
    if not parts:
        raise SiteError("site: none given; name one such as residual[20], or all")
    return [part if part in _KINDS else parse_site(part) for part in parts]


def parse_sites(text: str, layout: Layout) -> list[Site]:
    """Read a list such as `residual[10],final`; `residual`, `heads` and `all` stand for every site of their kind."""
    residual = [Site("residual", i) for i in range(layout.n_blocks)]
    heads = [Site("head", i, h) for i in range(layout.n_blocks) for h in range(layout.n_heads)]
    named = {"residual": residual, "heads": heads, "all": [*residual, Site("final")]}
    sites: list[Site] = []
    for part in read_sites(text):
        sites += [part] if isinstance(part, Site) else named[part]
    for site in sites:
        check_site(site, layout)
    return list(dict.fromkeys(sites))


def check_site(site: Site, layout: Layout) -> None:
    """SiteError when the model has no such block or head."""
    if site.layer >= layout.n_blocks or site.head >= layout.n_heads:
        raise SiteError(
            f"site: {site} is not in this model; it has blocks 0..{layout.n_blocks - 1} "
            f"and query heads 0..{layout.n_heads - 1}"
        )


def site_width(site: Site, layout: Layout) -> int:
    """Number of values of one token at this site."""
    return layout.head_dim if site.kind == "head" else layout.width


def hidden_of(output: Any) -> Tensor:
    """A block's hidden states: older classes return a tuple, newer ones the tensor."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Raised by the deepest hook: what comes after it in the forward pass is not needed."""


Observer = Callable[[Tensor], None]


@contextmanager
def observing(layout: Layout, observers: dict[Site, Observer]) -> Iterator[Callable[..., None]]:
    """Hooks that hand each site's activations to its observer; yields a function that runs the decoder for them.

    A `residual` or `final` observer gets (batch, tokens, width). A head observer is keyed by `head[l,-1]`, that is
    `Site("head", l)`, and gets all query heads of the block: (batch, tokens, n_heads, head_dim). The forward pass
    stops at the deepest site that is read. The hooks are gone when the context ends.
    """
    for site in observers:
        check_site(site, layout)
    handles = []
    deepest = _deepest(layout, list(observers))
    for site, observer in observers.items():
        last = site == deepest
        if site.kind == "head":
            module: nn.Module = layout.projections[site.layer]
            hook = _head_hook(observer, layout, last)
            handles.append(module.register_forward_pre_hook(hook))
        else:
            module = layout.final_norm if site.kind == "final" else layout.blocks[site.layer]
            handles.append(module.register_forward_hook(_output_hook(observer, last)))

    def run(**inputs: Any) -> None:
        try:
            layout.decoder(**inputs, use_cache=False)
        except _Enough:
            return
        if deepest is not None:
            raise SiteError(f"site: {deepest} was not reached by the forward pass; is the model compiled?")

    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()


def _deepest(layout: Layout, sites: Sequence[Site]) -> Site | None:
    def depth(site: Site) -> tuple[int, int]:
        if site.kind == "final":
            return (layout.n_blocks, 0)
        return (site.layer, 0 if site.kind == "head" else 1)

    return max(sites, key=depth, default=None)


def _output_hook(observer: Observer, last: bool) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        observer(hidden_of(output))
        if last:
            raise _Enough

    return hook


def _head_hook(observer: Observer, layout: Layout, last: bool) -> Callable[..., None]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        joined = inputs[0]
        observer(joined.view(*joined.shape[:-1], layout.n_heads, layout.head_dim))
        if last:
            raise _Enough

    return hook
