"""What is timed and what it must give: a path reads one batch; a reading is checked against single forwards.

Contract: `Path.step(batch)` does all the work that is timed and returns what it read at the last prompt token.
Activations are final (rows, width) and heads (rows, blocks, heads, head_dim); scores of `Probes` are final (rows,) and
heads (rows, blocks, heads). A site that a path does not read is None.

The reference is one unpadded forward a message through plain `transformers`. `largest_difference` is max |read -
reference| at a site (final, or a block's heads) over the largest |reference| there; the largest of all sites counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from probes.capture.batches import Batch, Encoded, collate
from probes.capture.sites import Site, head_sites, site_width
from probes.directions import Direction
from probes.model.load import ChatModel

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Reading:
    """Values at the last prompt token of each row."""

    final: Tensor | None = None
    heads: Tensor | None = None


@dataclass(frozen=True)
class Path:
    """One way to read a batch; `scores` says that its reading is projected on the random probes."""

    key: str
    name: str
    step: Callable[[Batch], Reading]
    scores: bool = False
    note: str = ""


@dataclass(frozen=True)
class Probes:
    """Random directions at `final` and at every head, with random centres."""

    final: Direction
    heads: tuple[Direction, ...]


def random_probes(chat: ChatModel, seed: int = 7) -> Probes:
    """Gaussian directions; nothing here depends on what they mean."""
    draw = np.random.default_rng(seed)
    layout = chat.layout

    def drawn(site: Site) -> Direction:
        width = site_width(site, layout)
        return Direction(site, draw.standard_normal(width), draw.standard_normal(width), 1.0)

    heads = [drawn(site) for site in head_sites(layout)]
    return Probes(drawn(Site("final")), tuple(heads))


@contextmanager
def recorded_inputs(modules: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Forward pre-hooks that keep each module's first input, by index; gone when the context ends."""
    inputs: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs[index] = args[0]

        return hook

    handles = [module.register_forward_pre_hook(keep(i)) for i, module in enumerate(modules)]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def last_prompt(batch: Batch) -> tuple[Tensor, Tensor]:
    """(rows, columns) that index the last prompt token of each row; rows are padded on the right."""
    return torch.arange(len(batch.rows), device=batch.ids.device), batch.prompt.sum(1) - 1


def as_heads(chat: ChatModel, joined: Tensor) -> Tensor:
    """(rows, blocks, heads x head_dim) -> (rows, blocks, heads, head_dim)."""
    return joined.view(*joined.shape[:2], chat.layout.n_heads, chat.layout.heads_at(0).width)


def with_transformers(chat: ChatModel, batch: Batch) -> Reading:
    """Research code: all hidden states, and hooks on every attention output projection."""
    at = last_prompt(batch)
    projections = [chat.layout.heads_at(block).projection for block in range(chat.layout.n_blocks)]
    with torch.inference_mode(), recorded_inputs(projections) as inputs:
        out = chat.model(input_ids=batch.ids, attention_mask=batch.mask.long(), output_hidden_states=True)
        heads = torch.stack([inputs[block][at] for block in range(chat.layout.n_blocks)], 1)
        return Reading(out.hidden_states[-1][at], as_heads(chat, heads))


def reference(chat: ChatModel, items: Sequence[Encoded]) -> Reading:
    """The activations of each message read alone, without padding."""
    return joined([with_transformers(chat, collate([item], chat.device)) for item in items])


def joined(parts: Sequence[Reading]) -> Reading:
    """Readings of several batches under each other."""
    final = [p.final for p in parts if p.final is not None]
    heads = [p.heads for p in parts if p.heads is not None]
    return Reading(torch.cat(final) if final else None, torch.cat(heads) if heads else None)


def read_all(path: Path, batches: Sequence[Batch]) -> Reading:
    """A path over all batches, in the order of the messages."""
    reading = joined([path.step(batch) for batch in batches])
    back = torch.tensor(np.argsort([row for batch in batches for row in batch.rows]))
    final = None if reading.final is None else reading.final[back]
    return replace(reading, final=final, heads=None if reading.heads is None else reading.heads[back])


def scores_of(activations: Reading, probes: Probes) -> Reading:
    """(x - mu) . v / (v . v) in float64, written out independently of `probes.scoring`."""
    assert activations.final is not None
    assert activations.heads is not None
    final = _project(activations.final, [probes.final])[:, 0]
    rows, blocks, heads, width = activations.heads.shape
    flat = activations.heads.reshape(rows, blocks * heads, width)
    return Reading(final, _project(flat, probes.heads).view(rows, blocks, heads))


def _project(values: Tensor, directions: Sequence[Direction]) -> Tensor:
    x = values.double().view(len(values), len(directions), -1)
    v = torch.tensor(np.stack([d.vector for d in directions]))
    mu = torch.tensor(np.stack([d.centre for d in directions]))
    return ((x - mu) * v).sum(-1) / (v * v).sum(-1)


def largest_difference(read: Reading, expected: Reading) -> float:
    """See the module's docstring; infinite when something is not finite or nothing was read."""
    worst = []
    if read.final is not None and expected.final is not None:
        worst.append(_relative(read.final.flatten(), expected.final.flatten()))
    if read.heads is not None and expected.heads is not None:
        worst += [_relative(read.heads[:, b], expected.heads[:, b]) for b in range(expected.heads.shape[1])]
    return max(worst, default=float("inf"))


def _relative(read: Tensor, expected: Tensor) -> float:
    difference = float((read.double() - expected.double()).abs().max() / expected.double().abs().max())
    return difference if np.isfinite(difference) else float("inf")
