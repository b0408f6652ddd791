"""The plan of a safety-heads study and the requests that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.errors import DataError
from probes.heads.ablation import Ablation, AblationKind
from probes.model.load import Message
from probes.studies.framework.verdict import FEWEST_DRAWS


@dataclass(frozen=True)
class Request:
    """One conversation that ends with the user; those of one group never straddle the split."""

    messages: Sequence[Message]
    group: str


@dataclass(frozen=True)
class SafetyPlan:
    """What the study does.

    `name` is the probe's. `subspaces` are (r, centred) of dataset-level Ships, the first is Sahara's; `steps` its
    heads; `top` how many of the best heads are ablated together; `listed` how long top lists are; `draws` random
    controls of each kind for the largest set of each ranking. `attributed`, `dataset_prompts` and `held_out` bound rows
    of each class (None: all), `held_out_harmless` those of the harmless class; `per_query` is how many held-out harmful
    requests have their own head ablated (0: none, None: all). `split_seed` splits requests (None: `seed`): one that an
    adapter was trained by keeps its training out of `test`. `interval` is the widest half-width that a rate on held-out
    requests may have. DataError for what makes no study.
    """

    name: str = "safety-heads"
    eps: float = 1e-5
    subspaces: tuple[tuple[int, bool], ...] = ((1, False), (1, True), (4, False), (4, True))
    steps: int = 3
    top: tuple[int, ...] = (1, 3)
    listed: int = 10
    draws: int = FEWEST_DRAWS
    attributed: int | None = None
    dataset_prompts: int | None = 64
    held_out: int | None = None
    held_out_harmless: int | None = 30
    per_query: int | None = 30
    interval: float = 0.2
    max_new_tokens: int = 40
    max_tokens: int = 2048
    resamples: int = 1000
    seed: int = 0
    split_seed: int | None = None
    token_budget: int = 2048

    def __post_init__(self) -> None:
        if not self.top or not 1 <= min(self.top) <= max(self.top) <= self.listed:
            given = ", ".join(map(str, self.top)) or "none"
            raise DataError(f"top: {given}; each must be in 1..{self.listed} (listed)")
        if self.steps < 1 or self.draws < 0 or not self.subspaces:
            raise DataError("plan: steps must be at least 1, draws at least 0, and one subspace given")

    @property
    def splits(self) -> int:
        """The seed that splits requests."""
        return self.seed if self.split_seed is None else self.split_seed

    def ablation(self, kind: AblationKind) -> Ablation:
        return Ablation(kind, self.eps)
