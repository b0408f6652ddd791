"""Sites: named places in a model where activations are read and written.

`residual[l]` is the output of decoder block l, before the final norm; `final` is the last block's output after the
final norm (`hidden_states[-1]` of Hugging Face); `head[l,h]` is the slice of the attention output projection's
*input* that belongs to query head h, as wide as a head's values. Block and head count from 0. A block without attention
has no heads. Of a model with several residual streams (Gemma 3n) `residual[l]` is the one that attention and
feed-forward read and write, `Layout.stream`.

`attach` is the one place that knows where a site is in the forward pass, for reading and for writing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from probes.errors import SiteError
from probes.model.facts import Facts
from probes.model.layout import Layout

SiteKind = Literal["residual", "final", "head"]
# Names that stand for every site of a kind.
_KINDS = ("residual", "heads", "all")
_PATTERN = re.compile(r"^(?:(final)|residual\[(\d{1,6})\]|head\[(\d{1,6}),\s*(\d{1,6})\])$")


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
        raise SiteError(f"site: {text[:40]!r} is none of final, residual[BLOCK], head[BLOCK,HEAD]")
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
    parts = read_sites(text)
    heads = head_sites(layout) if "heads" in parts else []
    named = {"residual": residual, "heads": heads, "all": [*residual, Site("final")]}
    sites: list[Site] = []
    for part in parts:
        sites += [part] if isinstance(part, Site) else named[part]
    for site in sites:
        check_site(site, layout)
    return list(dict.fromkeys(sites))


def head_sites(layout: Layout) -> list[Site]:
    """Every query head, by block and then by head. SiteError, with the reason, where no block has any."""
    if not layout.n_heads:
        layout.heads_at(0)
    return [Site("head", i, h) for i in layout.blocks_with_heads for h in range(layout.heads_at(i).count)]


def check_site(site: Site, layout: Facts) -> None:
    """SiteError when the model has no such block or head; it says why a block has no heads."""
    if site.layer >= layout.n_blocks:
        raise SiteError(f"site: {site} is not in this model; it has blocks 0..{layout.n_blocks - 1}")
    if site.kind == "head" and site.head >= layout.heads_at(site.layer).count:
        raise SiteError(
            f"site: {site} is not in this model; block {site.layer} has query heads "
            f"0..{layout.heads_at(site.layer).count - 1}"
        )


def site_width(site: Site, layout: Facts) -> int:
    """Number of values of one token at this site."""
    return layout.heads_at(site.layer).width if site.kind == "head" else layout.width


def hidden_of(output: Any) -> Tensor:
    """A block's hidden states, all streams: older classes return a tuple, newer ones the tensor."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


# Gets a site's activations and gives what is to stand there instead, or None to leave them.
Edit = Callable[[Tensor], Tensor | None]


def attach(layout: Layout, place: Site, edit: Edit) -> list[RemovableHandle]:
    """Hooks that call `edit` wherever a forward pass comes to `place`; the caller removes them.

    It gets (rows, tokens, width), at a `head` all heads of the block beside each other: (rows, tokens, heads x width).
    """
    if place.kind == "head":
        return [layout.heads_at(place.layer).projection.register_forward_pre_hook(_input_hook(edit))]
    if place.kind == "residual":
        return [layout.blocks[place.layer].register_forward_hook(_output_hook(edit, layout, layout.stream))]
    # The final norm may run elsewhere too (NanoChat's norms the embeddings): it is the one behind the last block.
    behind = _Behind()
    hook = _output_hook(edit, layout, None)

    def norm_hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        return hook(module, inputs, output) if behind.leave() else None

    return [
        layout.decoder.register_forward_pre_hook(lambda *_: behind.start()),
        layout.blocks[-1].register_forward_hook(lambda *_: behind.arrive()),
        layout.final_norm.register_forward_hook(norm_hook),
    ]


class _Behind:
    """Whether a forward pass is between the last block and what comes after it."""

    def __init__(self) -> None:
        self._here = False

    def start(self) -> None:
        self._here = False

    def arrive(self) -> None:
        self._here = True

    def leave(self) -> bool:
        here, self._here = self._here, False
        return here


def _input_hook(edit: Edit) -> Callable[..., Any]:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        changed = edit(inputs[0])
        return None if changed is None else (changed, *inputs[1:])

    return hook


def _output_hook(edit: Edit, layout: Layout, stream: int | None) -> Callable[..., Any]:
    def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
        whole = hidden_of(output)
        hidden = whole if stream is None else whole[stream]
        if hidden.dim() != 3 or hidden.shape[-1] != layout.width:
            raise SiteError(
                f"site: {type(module).__name__} gave {tuple(hidden.shape)} where (rows, tokens, {layout.width}) was "
                "looked for; the residual stream of this model is not known"
            )
        changed = edit(hidden)
        if changed is None:
            return None
        if stream is not None:
            changed, part = whole.clone(), changed
            changed[stream] = part
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Raised by the deepest hook: what comes after it in the forward pass is not needed."""


Observer = Callable[[Tensor], None]


@contextmanager
def observing(layout: Layout, observers: dict[Site, Observer]) -> Iterator[Callable[..., None]]:
    """Hooks that hand each site's activations to its observer; yields a function that runs the decoder for them.

    A `residual` or `final` observer gets (batch, tokens, width). A head observer is keyed by `head[l,-1]`, that is
    `Site("head", l)`, and gets all query heads of the block: (batch, tokens, heads, width of a head). The forward pass
    stops at the deepest site that is read. The hooks are gone when the context ends.
    """
    for site in observers:
        check_site(site, layout)
    handles: list[RemovableHandle] = []
    deepest = _deepest(layout, list(observers))
    for site, observer in observers.items():
        handles += attach(layout, site, _observing(observer, site, layout, last=site == deepest))

    def run(**inputs: Any) -> None:
        try:
            layout.decoder(**{"use_cache": False, **inputs})
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


def _observing(observer: Observer, site: Site, layout: Layout, *, last: bool) -> Edit:
    def edit(x: Tensor) -> None:
        if site.kind == "head":
            x = x.view(*x.shape[:-1], layout.heads_at(site.layer).count, -1)
        observer(x)
        if last:
            raise _Enough

    return edit
