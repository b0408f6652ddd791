"""What a study of detectors compares, and on which messages: plain data.

Contract: requests come in pairs, a harmful one and a harmless twin in much the same words, and are split by a hash of
the pair's name as `awry fit` splits them. Everyday messages come split already: `fit`, `select`, `calibrate` (sets
thresholds) and `test`. Nothing of `test`, of `other_harmful` or of `other_benign` fits, chooses or calibrates.
Knows nothing of how anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from probes.attacks.base import Family
from probes.attacks.families import FAMILIES
from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site
from probes.errors import DataError
from probes.hashing import unit_interval
from probes.logistic import PENALTIES
from probes.model.layout import Layout

EverydaySplit = Literal["fit", "select", "calibrate", "test"]
Turns = list[dict[str, Any]]
_SHARES: tuple[tuple[EverydaySplit, float], ...] = (("fit", 0.4), ("select", 0.55), ("calibrate", 0.8), ("test", 1.0))
# Fewer pairs of a split, or everyday messages, say nothing.
FEWEST_PAIRS, FEWEST_EVERYDAY = 5, 20


@dataclass(frozen=True)
class RequestPair:
    """A harmful request and its harmless twin; `group` decides the split."""

    group: str
    harmful: str
    harmless: str


@dataclass(frozen=True)
class DetectorData:
    """All messages. `ordinary` are further benign messages to fit on, `choosing` and `longer` benign messages of more
    tokens that choose and set thresholds; `pool` is the harmless text of the attack families of length."""

    pairs: Sequence[RequestPair]
    everyday: Mapping[EverydaySplit, Sequence[str]]
    ordinary: Sequence[Turns] = ()
    choosing: Sequence[Turns] = ()
    longer: Sequence[Turns] = ()
    other_harmful: Sequence[str] = ()
    other_benign: Sequence[str] = ()
    pool: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("fit", "select", "calibrate", "test"):
            if len(self.everyday.get(name, ())) < FEWEST_EVERYDAY:
                raise DataError(
                    f"benign: {len(self.everyday.get(name, ()))} everyday messages for {name}; at least "
                    f"{FEWEST_EVERYDAY} are needed: give more"
                )
        for pair in self.pairs:
            if pair.harmful.strip() == pair.harmless.strip():
                raise DataError(f"requests: pair {pair.group} is twice the same text; give a harmful one and its twin")


def split_everyday(texts: Sequence[str]) -> dict[EverydaySplit, list[str]]:
    """Everyday messages by a hash of their text: fit 40 %, select 15 %, calibrate 25 %, test 20 %."""
    parts: dict[EverydaySplit, list[str]] = {name: [] for name, _ in _SHARES}
    for text in dict.fromkeys(texts):
        at = unit_interval(f"everyday:{text}")
        parts[next(name for name, upper in _SHARES if at < upper)].append(text)
    return parts


@dataclass(frozen=True)
class DetectorPlan:
    """What is compared. `everyday_rows` are the numbers of everyday messages in the fit that are tried beside all of
    them with the `ordinary` ones. `windows` is the reading of the shipped probe, at `window_sites`.

    `averaged` are how many of the best blocks and heads are averaged; `attacked` how many harmful messages are
    put under the attack families, and half as many benign ones.
    """

    name: str
    blocks: tuple[Site, ...]
    heads: tuple[Site, ...]
    window_sites: tuple[Site, ...]
    windows: Aggregation = field(default_factory=lambda: Aggregation("top_mean", "turns", 8, 4))
    shrinkages: tuple[float, ...] = (0.1, 0.3)
    penalties: tuple[float, ...] = PENALTIES
    averaged_blocks: tuple[int, ...] = (3, 5)
    averaged_heads: tuple[int, ...] = (4, 8, 16)
    everyday_rows: tuple[int, ...] = (0, 80, 320)
    target_fpr: float = 0.01
    permutations: int = 20
    random_directions: int = 20
    attacked: int = 30
    families: tuple[Family, ...] = ()
    max_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.blocks or not self.heads or not self.window_sites:
            raise DataError("sites: blocks, heads and sites of windows are needed, at least one of each")
        if min(self.permutations, self.random_directions, self.attacked) < 0 or not 0 < self.target_fpr < 1:
            raise DataError("settings: numbers of controls and messages are 0 or more, target_fpr is between 0 and 1")

    def plain(self) -> dict[str, Any]:
        """As plain data; families by their names."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "families"}
        return own | {
            "blocks": list(map(str, self.blocks)),
            "heads": list(map(str, self.heads)),
            "window_sites": list(map(str, self.window_sites)),
            "windows": str(self.windows),
            "families": [family.name for family in self.families],
        }


def default_plan(layout: Layout, **settings: Any) -> DetectorPlan:
    """For a model: residual blocks and heads from a third of its depth on, and windows around its middle."""
    n = layout.n_blocks
    deep = range(n // 3, n)
    middle = range(2 * n // 5, max(2 * n // 5 + 1, 2 * n // 3 + 1), 2)
    return DetectorPlan(
        blocks=tuple(Site("residual", layer) for layer in deep),
        heads=tuple(Site("head", layer, head) for layer in deep for head in range(layout.heads_at(layer).count)),
        window_sites=tuple(Site("residual", layer) for layer in middle if layer < n),
        **settings,
    )


def default_families() -> tuple[Family, ...]:
    """All attack families but those of thousands of tokens, which take most of the time."""
    return tuple(family for family in FAMILIES.values() if not family.name.endswith("-2000"))
