"""What of the model a worker reads, by its probes' cards, before the model is loaded; and what that costs, in words.

Contract: `sites_of` names every site that a probe of the settings could read, for `load_chat_model` to load no more
than they need; None where the whole model is needed, since mitigation generates. Where the settings name no probe, or a
stage of the registry, it is every probe that was made for the adapter: those that turn out to be another model's cost
memory, never a score. `costs` says which blocks are read, and what a single deep probe adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Engine

from monitor.service.registered import PREFIX, cards_of, names_registry
from monitor.settings import Settings
from probes.capture.sites import Site
from probes.card import Probe, load_probe, shipped_probes
from probes.model.adapters import adapter_spec


def sites_of(settings: Settings, engine: Engine) -> tuple[Site, ...] | None:
    """All sites that the probes could read; None where the whole model is to be loaded."""
    if settings.mitigate != "off":
        return None
    return tuple({direction.site for probe in _candidates(settings, engine) for direction in probe.directions})


def _candidates(settings: Settings, engine: Engine) -> Iterator[Probe]:
    if not settings.probes:
        shipped = (load_probe(name) for name in shipped_probes())
        yield from _made_for(settings, (probe for probe in shipped if probe.aggregation.span != "response"))
    for name in settings.probes:
        if names_registry(name):
            yield from _made_for(settings, cards_of(engine, settings.state_dir, name.removeprefix(PREFIX)))
        else:
            yield load_probe(name)


def _made_for(settings: Settings, probes: Iterator[Probe]) -> Iterator[Probe]:
    adapter = adapter_spec(settings.adapter, settings.scale).sha256 if settings.adapter else None
    return (probe for probe in probes if probe.card.identity.adapter_sha256 == adapter)


def costs(probes: Sequence[Probe], n_blocks: int) -> Iterator[str]:
    """Lines for the log: the blocks that are read, and the one probe that reads much deeper than the others."""
    depth = {probe.name: max(_depth(direction.site, n_blocks) for direction in probe.directions) for probe in probes}
    deepest = max(depth.values())
    yield f"reads {_blocks(deepest, n_blocks)}"
    deep = [name for name, blocks in depth.items() if blocks == n_blocks]
    others = max((blocks for blocks in depth.values() if blocks < n_blocks), default=n_blocks)
    if len(deep) == 1 and others < n_blocks:
        yield (
            f"warning: {deep[0]} alone reads the last block; without it the worker would read "
            f"{_blocks(others, n_blocks)}, and load no more"
        )


def _blocks(blocks: int, n_blocks: int) -> str:
    which = f"block 0 of {n_blocks}" if blocks == 1 else f"blocks 0..{blocks - 1} of {n_blocks}"
    return f"{which} ({100 * blocks / n_blocks:.0f} % of the forward pass)"


def _depth(site: Site, n_blocks: int) -> int:
    return n_blocks if site.kind == "final" else site.layer + 1
