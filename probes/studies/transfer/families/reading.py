"""Reads a family once: anchors and every behaviour's conversations, at every depth of the plan.

Contract: `read_family` gives activations at the last prompt token, the token after which the model's own template has
the reply start. So anchors of two tokenizers are paired by text and by what the token is for, not by the token itself.
What was read is kept in the result cache; rows are those of the texts, in their order. `FamilyReading.direction` is
the difference of means between the two sides of a behaviour's fit conversations, `rows` are its activations.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.conditions import LAST_PROMPT, Rows
from probes.directions import Direction, difference_in_means, pooled_activations
from probes.evaluation import auroc_value
from probes.hashing import sha256_json
from probes.model.load import ChatModel, user_message
from probes.progress import Progress
from probes.result_cache import ResultCache
from probes.studies.transfer.families.plan import (
    Anchors,
    Behaviour,
    Conversation,
    Family,
    FamilyPlan,
    FamilyTexts,
    PairedConversations,
)

_SPLITS = ("fit", "select", "test")


@dataclass(frozen=True)
class FamilyReading:
    """One family's activations, by site: one a depth of the plan, in its order; two depths may be one block.

    `held` is keyed by (what, site) with `what` "anchors" or "behaviour/split"; of the latter the first half shows the
    behaviour.
    """

    family: Family
    identity: dict[str, Any]
    sites: tuple[Site, ...]
    held: dict[tuple[str, Site], Rows]

    def rows(self, behaviour: Behaviour, split: str, site: Site) -> Rows:
        """Activations (2 x pairs, width): first what shows the behaviour, then what lacks it."""
        return self.held[f"{behaviour.name}/{split}", site]

    def direction(self, behaviour: Behaviour, site: Site) -> Direction:
        """Shows minus lacks, on the fit conversations; DirectionError where the two do not differ."""
        rows = self.rows(behaviour, "fit", site)
        return difference_in_means(site, rows[: len(rows) // 2], rows[len(rows) // 2 :])

    def anchors(self, kind: Anchors, behaviours: Sequence[Behaviour], site: Site) -> Rows:
        """Neutral ones, or with every behaviour's fit conversations behind them."""
        neutral = self.held["anchors", site]
        if kind == "neutral":
            return neutral
        return np.concatenate([neutral, *(self.rows(b, "fit", site) for b in behaviours)])

    def auroc(self, behaviour: Behaviour, split: str, direction: Direction) -> float:
        rows = self.rows(behaviour, split, direction.site)
        return auroc_value(direction.along(rows), shows(rows))


def shows(rows: NDArray[np.floating]) -> NDArray[np.bool_]:
    """True for the half that shows the behaviour."""
    return np.arange(len(rows)) < len(rows) // 2


def anchor_groups(kind: Anchors, texts: FamilyTexts) -> NDArray[np.int_]:
    """The group of each anchor, so that both sides of a pair are on one side of every split of a map's fit."""
    groups = list(range(len(texts.anchors)))
    if kind == "contrast":
        for behaviour in texts.behaviours:
            start, n = max(groups) + 1, len(behaviour.fit.shows)
            groups += [*range(start, start + n)] * 2
    return np.array(groups)


def read_family(
    family: Family, chat: ChatModel, texts: FamilyTexts, plan: FamilyPlan, cache: Path, progress: Progress
) -> FamilyReading:
    """Everything that is read of one family, from the cache where it is there."""
    last = chat.layout.n_blocks - 1
    sites = tuple(Site("residual", round(depth * last)) for depth in plan.depths)
    identity = asdict(chat.identity)
    lists: dict[str, Sequence[Conversation]] = {"anchors": [user_message(text) for text in texts.anchors]}
    for behaviour in texts.behaviours:
        for split in _SPLITS:
            pairs: PairedConversations = getattr(behaviour, split)
            lists[f"{behaviour.name}/{split}"] = [*pairs.shows, *pairs.lacks]
    results = ResultCache(cache, {"what": "activations of one family", "model": identity})
    held: dict[tuple[str, Site], Rows] = {}
    for what, conversations in lists.items():
        key = f"{what} {sha256_json([conversations, list(map(str, sites))])[:24]}"
        stored = results.get(key)
        if stored is None:
            progress(f"{family.name}: reading {len(conversations)} conversations ({what})")
            items = [encode(chat, [*conversation]) for conversation in conversations]
            found = pooled_activations(chat, items, list(dict.fromkeys(sites)), LAST_PROMPT)
            stored = {str(site): _packed(rows) for site, rows in found.items()}
            results.put(key, stored)
        for site in sites:
            held[what, site] = _unpacked(stored[str(site)], len(conversations))
    return FamilyReading(family, identity, sites, held)


def _packed(rows: Rows) -> str:
    return base64.b64encode(np.ascontiguousarray(rows, dtype="<f4").tobytes()).decode()


def _unpacked(text: str, rows: int) -> Rows:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(rows, -1).astype(np.float32)
