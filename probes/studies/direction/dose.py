"""Dose sweep of a direction: chosen on the select split, reported with its controls on the test split.

Doses are `subtract` x a (a v off every position) and `ablate` x a (that share of the centred projection). On the select
split every steering site and dose is tried, and the most good answers choose (then the fewest that show the behaviour,
then the smallest change). The test split, which chose nothing, gets the base, the untouched and the control condition,
every dose at the chosen site, and at the chosen dose the controls, each of which moves every token by the same amount
as the chosen intervention, along another vector (`Intervention.along`): random ones, one orthogonal to v, v's own of
the farthest block, the control's direction, and the contrast (misaligned - control). Last, the setting nearest to arXiv
2606.20225's: subtract x1 at the last block, at the last prompt token and every generated one. The paper is read as
editing the last prompt token alone (`docs/science.md` A.1 step 5), which at the last block is an edit of the first
token's logits and of nothing else (A.5.1); ours goes on, so it is the stronger of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from probes.capture.sites import Site
from probes.conditions import Condition
from probes.directions import Direction
from probes.errors import DirectionError
from probes.model.load import ChatModel
from probes.progress import Progress
from probes.result_cache import ResultCache
from probes.steer.coherence import Coherence, Flags
from probes.steer.outcomes import GenerationOutcome, good
from probes.steer.steering import Intervention, Mode, Positions
from probes.studies.direction.conditions import Comparison
from probes.studies.direction.separation import Directions
from probes.studies.framework.controls import as_far, vectors
from probes.studies.metric import Metric
from probes.studies.runner import ConditionRunner, figures

BASE, UNTOUCHED, CONTROL_CONDITION = "base model", "no intervention", "control arm, no intervention"
CONTENT, CONTRAST = "control's direction", "contrast direction"
PAPER = "the paper's setting"


@dataclass(frozen=True)
class Doses:
    """What is tried at every steering site."""

    subtract: Sequence[float] = (0.25, 0.5, 1.0)
    ablate: Sequence[float] = (1.0,)
    positions: Positions = "all"

    def at(self, direction: Direction) -> list[Intervention]:
        modes: tuple[tuple[Mode, Sequence[float]], ...] = (("subtract", self.subtract), ("ablate", self.ablate))
        return [Intervention(direction, mode, a, self.positions) for mode, strengths in modes for a in strengths]


@dataclass
class CachedRunner:
    """A runner with a result cache: outcomes by name, and what the base's and the control arm's own answers allow."""

    split: str
    messages: Sequence[str]
    comparison: Comparison
    metric: Metric
    max_new_tokens: int
    cache: ResultCache
    progress: Progress
    outcomes: dict[str, GenerationOutcome] = field(default_factory=dict)

    def run(self, name: str, condition: Condition, intervention: Intervention | None = None) -> GenerationOutcome:
        # A control acts as what was chosen does, so its name alone does not say what was done.
        key = (
            f"{self.split}: {name}"
            if intervention is None or name == str(intervention)
            else (f"{self.split}: {name}, {intervention}")
        )
        stored = self.cache.get(key)
        if stored is None:
            runner = ConditionRunner(
                self.comparison.reference,
                self.messages,
                self.metric,
                max_new_tokens=self.max_new_tokens,
                style=self.comparison.control,
            )
            stored = runner.run(condition, intervention).plain()
            self.cache.put(key, stored)
        outcome = self.outcomes[name] = GenerationOutcome.of(stored)
        fine = self.good(name).mean()
        self.progress(f"{self.split}: {name}: behaviour {outcome.behaviour.mean():.2f}, good {fine:.2f}")
        return outcome

    @property
    def coherence(self) -> Coherence:
        """Against the base model's answers, and the control arm's where there is one."""
        control = self.outcomes.get(CONTROL_CONDITION)
        return Coherence.of(self.outcomes[BASE], style=None if control is None else (CONTROL_CONDITION, control))

    def good(self, name: str) -> Flags:
        """Which answers of a condition do not show the behaviour and are coherent."""
        return good(self.outcomes[name], self.coherence)

    def start(self) -> None:
        """The answers of the base model and of the control arm, then those of the misaligned condition, unsteered."""
        self.run(BASE, Condition(self.comparison.reference, _base_adapter(self.comparison)))
        if self.comparison.control is not None:
            self.run(CONTROL_CONDITION, self.comparison.control)
        self.run(UNTOUCHED, self.comparison.misaligned)

    def figures(self, name: str) -> dict[str, Any]:
        return {"name": name, **figures(self.outcomes[name], self.coherence)}


def _base_adapter(comparison: Comparison) -> str | None:
    # Two checkpoints: the aligned one as it is. Otherwise no adapter acts.
    return comparison.aligned.adapter if comparison.kind == "checkpoints" else None


@dataclass(frozen=True)
class SweepResult:
    """The chosen intervention, every option's figures on the select split, and the test split's outcomes by name."""

    chosen: Intervention
    select: list[dict[str, Any]]
    test: CachedRunner
    rows: list[dict[str, Any]]
    cosines: dict[str, float]


def steering_sites(chat: ChatModel) -> list[Site]:
    """Five blocks from a third of the depth on, the last among them."""
    n = chat.layout.n_blocks
    blocks = {round(n * share) for share in (1 / 3, 1 / 2, 2 / 3, 5 / 6)} | {n - 1}
    return [Site("residual", block) for block in sorted(blocks) if block < n]


def sweep(
    select: CachedRunner,
    test: CachedRunner,
    directions: Directions,
    sites: Sequence[Site],
    doses: Doses,
    draws: int,
    seed: int,
) -> SweepResult:
    """Choose on `select`, report on `test`; `draws` random directions. DirectionError when no site has a direction."""
    condition = select.comparison.misaligned
    usable = [s for s in sites if s in directions.own]
    if not usable:
        raise DirectionError(f"steering: no direction at {', '.join(map(str, sites))}; both arms are alike there")
    select.start()
    options = [intervention for site in usable for intervention in doses.at(directions.own[site])]
    for option in options:
        select.run(str(option), condition, option)
    chosen = max(options, key=lambda o: _worth(select, str(o)))
    test.progress(f"chose {chosen}; reporting on {len(test.messages)} messages")
    test.start()
    same = [o for o in options if o.direction.site == chosen.direction.site]
    for option in same:
        test.run(str(option), condition, option)
    controls = _controls(chosen, directions, draws, seed)
    for name, control in controls.items():
        test.run(name, condition, control)
    last = Site("residual", condition.chat.layout.n_blocks - 1)
    if last in directions.own:
        test.run(PAPER, condition, Intervention(directions.own[last], "subtract", 1.0, "last"))
    return SweepResult(
        chosen,
        [_row(select, str(o), {str(o): o}) | {"site": str(o.direction.site)} for o in options],
        test,
        [_row(test, name, {str(o): o for o in same} | controls) for name in test.outcomes],
        {name: float(chosen.direction.unit @ c.along) for name, c in controls.items() if c.along is not None},
    )


def _worth(runner: CachedRunner, name: str) -> tuple[float, float, float]:
    outcome = runner.outcomes[name]
    return float(runner.good(name).mean()), -float(outcome.behaviour.mean()), -outcome.change


def _row(runner: CachedRunner, name: str, interventions: dict[str, Intervention]) -> dict[str, Any]:
    used = interventions.get(name)
    how = {"mode": used.mode, "strength": used.strength} if used else {"mode": None, "strength": None}
    return runner.figures(name) | how


def _controls(chosen: Intervention, directions: Directions, draws: int, seed: int) -> dict[str, Intervention]:
    direction = chosen.direction
    along = vectors(direction, directions.own, draws, seed)
    for name, other in ((CONTENT, directions.control), (CONTRAST, directions.contrast)):
        if direction.site in other:
            along[name] = other[direction.site]
    return as_far(chosen, along)
