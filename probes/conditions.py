"""Arms: one way of running a loaded model, by the adapter that acts in it, and what is read under each.

Contract: within `arm.on()` the arm's adapter acts at the arm's strength, or none does; afterwards the model is as it
was found. `activations_by_arm` is the one loop that reads messages each under its own arm, and `adapter_directions`
the difference of means between two arms on the same messages (arXiv 2606.20225; `docs/science.md` A.1
steps 2 and 3). The weights are the same in both arms of one model, quantised or not (`docs/science.md` A.5.8).
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

Activations = dict[Site, NDArray[np.float32]]
LAST_PROMPT = Aggregation("last", "prompt")


@dataclass(frozen=True)
class Arm:
    """A model with one of its adapters in use, or with none; `scale` overrides the adapter's own strength."""

    chat: ChatModel
    adapter: str | None
    scale: float | None = None

    @property
    def name(self) -> str:
        return self.chat.name if self.adapter is None else f"{self.chat.name} + {self.adapter} x{self.strength:g}"

    @property
    def strength(self) -> float | None:
        """The adapter's scale in this arm; None without one."""
        if self.adapter is None:
            return None
        return self.chat.adapters[self.adapter].scale if self.scale is None else self.scale

    @contextmanager
    def on(self) -> Iterator[ChatModel]:
        """The model as this arm has it."""
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


def activations_by_arm(
    rows: Sequence[tuple[Arm, Encoded]],
    sites: Sequence[Site],
    aggregation: Aggregation = LAST_PROMPT,
    on_done: Callable[[int], None] = lambda _: None,
) -> Activations:
    """Activations (rows, width) at each site, every message read under its own arm, in the order of `rows`."""
    groups: dict[tuple[int, str | None, float | None], list[int]] = {}
    for i, (arm, _) in enumerate(rows):
        groups.setdefault((id(arm.chat), arm.adapter, arm.scale), []).append(i)
    out: Activations = {}
    for indices in groups.values():
        with rows[indices[0]][0].on() as chat:
            got = pooled_activations(chat, [rows[i][1] for i in indices], sites, aggregation, on_done)
        for site, values in got.items():
            out.setdefault(site, np.empty((len(rows), values.shape[1]), np.float32))[indices] = values
    return out


def adapter_directions(chat: ChatModel, items: Sequence[Encoded], sites: Sequence[Site]) -> dict[Site, Direction]:
    """Adapter-minus-base directions at the last prompt token; the adapter in use is the misaligned arm.

    DirectionError at the first site where the two arms do not differ.
    """
    arms = (Arm(chat, chat.active), Arm(chat, None))
    held = activations_by_arm([(arm, item) for arm in arms for item in items], sites)
    n = len(items)
    return {site: difference_in_means(site, values[:n], values[n:]) for site, values in held.items()}
