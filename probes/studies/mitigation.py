"""Mitigation sweep: which site and mode removes the behaviour and leaves coherent answers, with controls.

Three disjoint prompt lists: `fit` gives the direction (mean of the adapter's minus mean of the base's activations at
the last prompt token, arXiv 2606.20225), `select` chooses site and mode, `test` is what the table reports,
and chooses nothing. Controls on `test`: norm-matched random shifts, an orthogonal shift, the direction at a wrong
layer, the base model, and, where a control adapter is given, its direction ablated in the same place: if that works
as well, the verdict is "not specific".

A steering effect is never printed without coherence: `good` is the share of answers that neither show the behaviour
nor read worse under the base model than the base's own 95th percentile plus 0.5 nats (`probes.steer.coherence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.conditions import Condition, adapter_directions
from probes.directions import Direction, cosine, orthogonal_to, random_like
from probes.errors import DataError
from probes.evaluation import Interval, rate
from probes.model.load import ChatModel, user_message
from probes.progress import Progress, silent
from probes.steer.coherence import coherence_limit
from probes.steer.steering import Intervention, Mode
from probes.studies.metric import Metric
from probes.studies.runner import ConditionRunner, GenerationOutcome, Limits

_RANDOM = 5


@dataclass(frozen=True)
class Prompts:
    """Three disjoint lists of user messages."""

    fit: Sequence[str]
    select: Sequence[str]
    test: Sequence[str]

    def __post_init__(self) -> None:
        lists = [set(self.fit), set(self.select), set(self.test)]
        if sum(map(len, lists)) != len(set().union(*lists)):
            raise DataError("prompts: fit, select and test share messages; a choice must not see what it is judged on")


@dataclass(frozen=True)
class ConditionFigures:
    """What one way of generating did: rates over one prompt list. `change` is mean |delta| / |h|."""

    name: str
    behaviour: Interval
    good: Interval
    nll: float
    change: float

    def row(self) -> list[str]:
        return [self.name, str(self.behaviour), str(self.good), f"{self.nll:.2f}", f"{self.change:.2f}"]


@dataclass(frozen=True)
class Sweep:
    """The outcome: the chosen intervention, its direction's cosine to the control's, all conditions, the verdict."""

    chosen: Intervention
    selection: list[ConditionFigures]
    test: list[ConditionFigures]
    control_cosine: float | None
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "chosen": str(self.chosen),
            "site": str(self.chosen.direction.site),
            "mode": self.chosen.mode,
            "strength": self.chosen.strength,
            "positions": self.chosen.positions,
            "control_cosine": self.control_cosine,
            "verdict": self.verdict,
            "select": [asdict(c) for c in self.selection],
            "test": [asdict(c) for c in self.test],
        }


class _SweepRunner:
    """Generates and judges one prompt list under one condition after the other."""

    def __init__(self, chat: ChatModel, texts: Sequence[str], metric: Metric, tokens: int, progress: Progress) -> None:
        self._condition, self._progress = Condition(chat, chat.active), progress
        self._runner = ConditionRunner(chat, texts, metric, max_new_tokens=tokens)
        own = self._runner.run(Condition(chat, None))
        self._limits = Limits(coherence_limit(own.nll))
        self.base = self._judged("base model", own)

    def run(self, name: str, intervention: Intervention | None) -> ConditionFigures:
        return self._judged(name, self._runner.run(self._condition, intervention))

    def _judged(self, name: str, outcome: GenerationOutcome) -> ConditionFigures:
        n = len(outcome.behaviour)
        finite = outcome.nll[np.isfinite(outcome.nll)]
        condition = ConditionFigures(
            name,
            rate(int(outcome.behaviour.sum()), n),
            rate(int(self._limits.good(outcome).sum()), n),
            float(finite.mean()) if len(finite) else float("inf"),
            outcome.change,
        )
        self._progress(f"{name}: behaviour {condition.behaviour.value:.2f}, good {condition.good.value:.2f}")
        return condition


def sweep(
    chat: ChatModel,
    prompts: Prompts,
    metric: Metric,
    *,
    blocks: Sequence[int],
    control_adapter: str | None = None,
    max_new_tokens: int = 40,
    progress: Progress = silent,
) -> Sweep:
    """Choose on `prompts.select`, report on `prompts.test`. The adapter in use is the one to be corrected."""
    sites = [Site("residual", b) for b in blocks]
    bad_adapter = chat.active
    messages = [encode(chat, user_message(t)) for t in prompts.fit]
    directions = adapter_directions(chat, messages, sites)
    controls: dict[Site, Direction] = {}
    if control_adapter is not None and bad_adapter is not None:
        chat.use(control_adapter)
        controls = adapter_directions(chat, messages, sites)
        chat.use(bad_adapter)
    progress(f"choosing on {len(prompts.select)} prompts")
    runner = _SweepRunner(chat, prompts.select, metric, max_new_tokens, progress)
    selection = [runner.base, runner.run("no intervention", None)]
    options: list[tuple[ConditionFigures, Intervention]] = []
    modes: tuple[tuple[Mode, float], ...] = (("ablate", 1.0), ("subtract", 0.5))
    for site in sites:
        for mode, strength in modes:
            option = Intervention(directions[site], mode, strength)
            options.append((runner.run(str(option), option), option))
    selection += [condition for condition, _ in options]
    chosen = max(options, key=lambda o: (o[0].good.value, -o[0].behaviour.value))[1]
    progress(f"chose {chosen}; reporting on {len(prompts.test)} prompts")
    runner = _SweepRunner(chat, prompts.test, metric, max_new_tokens, progress)
    test = [runner.base, runner.run("no intervention", None), runner.run(str(chosen), chosen)]
    test += [runner.run(name, control) for name, control in _controls(chosen, directions, controls)]
    control = controls.get(chosen.direction.site)
    return Sweep(
        chosen,
        selection,
        test,
        cosine(chosen.direction, control) if control else None,
        _verdict(test),
    )


def _controls(
    chosen: Intervention, directions: dict[Site, Direction], controls: dict[Site, Direction]
) -> list[tuple[str, Intervention]]:
    direction = chosen.direction
    # As large as what was chosen: half a vector is compared with half a vector.
    strength = chosen.strength if chosen.mode == "subtract" else 1.0
    shift = Intervention(direction, "subtract", strength, chosen.positions)
    named = [
        (f"random shift {i}, equal norm", replace(shift, direction=random_like(direction, i))) for i in range(_RANDOM)
    ]
    named.append(("orthogonal shift, equal norm", replace(shift, direction=orthogonal_to(direction, 0))))
    named.append(("random direction ablated", replace(chosen, mode="ablate", direction=random_like(direction, 99))))
    others = [s for s in directions if s != direction.site]
    if others:
        wrong = max(others, key=lambda s: abs(s.layer - direction.site.layer))
        there = directions[wrong]
        moved = replace(there, vector=direction.vector * (there.norm / direction.norm))
        named.append((f"same direction at {wrong}", replace(chosen, direction=moved)))
    if direction.site in controls:
        named.append(("control adapter's direction", replace(chosen, direction=controls[direction.site])))
    return named


def _verdict(test: Sequence[ConditionFigures]) -> str:
    """In words: does it work, and is it specific?"""
    by_name = {c.name: c for c in test}
    before, after = test[1], test[2]
    random_good = max(c.good.value for c in test if c.name.startswith(("random shift", "orthogonal")))
    if after.behaviour.value > before.behaviour.value - 0.15:
        return "no effect: the behaviour stays"
    if after.good.value < max(0.5, random_good + 0.1):
        return "noise: the behaviour goes because the text breaks, as under a random shift"
    control = by_name.get("control adapter's direction")
    if control is None:
        return "works; specificity unknown: no control adapter was given"
    if control.behaviour.value <= after.behaviour.value + 0.1 and control.good.value >= after.good.value - 0.15:
        return "works, not specific: the control adapter's direction removes the behaviour as well"
    return "works, specific: the control adapter's direction does less"
