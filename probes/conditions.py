"""Conditions of a loaded model: which of its adapters acts, and what is read under each.

Contract: within `condition.applied()` the condition's adapter acts at its strength, or none does; afterwards the model
is as it was found. `activations_by_condition` reads messages, each under its own condition; `adapter_directions` is
the difference of means between two conditions on the same messages (arXiv 2606.20225; `docs/science.md` A.1 steps 2
and 3). The base weights are the same under all conditions of one model, quantised or not (`docs/science.md` A.5.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded
from probes.capture.sites import Site
from probes.directions import Direction, difference_in_means, pooled_activations
from probes.model.load import ChatModel

# Activations (rows, width) at one site.
Rows = NDArray[np.float32]
Activations = dict[Site, Rows]
LAST_PROMPT = Aggregation("last", "prompt")


@dataclass(frozen=True)
class Condition:
    """A model with one of its adapters in use, or with none; `scale` overrides the adapter's own strength."""

    chat: ChatModel
    adapter: str | None
    scale: float | None = None

    @property
    def name(self) -> str:
        return self.chat.name if self.adapter is None else f"{self.chat.name} + {self.adapter} x{self.strength:g}"

    @property
    def strength(self) -> float | None:
        """The adapter's scale under this condition; None without one."""
        if self.adapter is None:
            return None
        return self.chat.adapters[self.adapter].scale if self.scale is None else self.scale

    @contextmanager
    def applied(self) -> Iterator[ChatModel]:
        """The model with this condition in force."""
        chat = self.chat
        if self.adapter is None:
            with chat.base():
                yield chat
            return
        before = chat.active
        chat.use(self.adapter)
        own = chat.adapters[self.adapter].scale
        if self.scale is not None:
            chat.set_scale(self.scale)
        try:
            yield chat
        finally:
            if self.scale is not None:
                chat.set_scale(own)
            if before is not None:
                chat.use(before)


def activations_by_condition(
    rows: Sequence[tuple[Condition, Encoded]],
    sites: Sequence[Site],
    aggregation: Aggregation = LAST_PROMPT,
    on_done: Callable[[int], None] = lambda _: None,
) -> Activations:
    """Activations (rows, width) at each site, every message read under its own condition, in the order of `rows`."""
    groups: dict[tuple[int, str | None, float | None], list[int]] = {}
    for i, (condition, _) in enumerate(rows):
        groups.setdefault((id(condition.chat), condition.adapter, condition.scale), []).append(i)
    out: Activations = {}
    for indices in groups.values():
        with rows[indices[0]][0].applied() as chat:
            got = pooled_activations(chat, [rows[i][1] for i in indices], sites, aggregation, on_done)
        for site, values in got.items():
            out.setdefault(site, np.empty((len(rows), values.shape[1]), np.float32))[indices] = values
    return out


def adapter_directions(chat: ChatModel, items: Sequence[Encoded], sites: Sequence[Site]) -> dict[Site, Direction]:
    """Adapter-minus-base directions at the last prompt token; the adapter in use is the misaligned
    condition.

    DirectionError at the first site where the two conditions do not differ.
    """
    conditions = (Condition(chat, chat.active), Condition(chat, None))
    activations = activations_by_condition([(condition, item) for condition in conditions for item in items], sites)
    n = len(items)
    return {site: difference_in_means(site, values[:n], values[n:]) for site, values in activations.items()}
