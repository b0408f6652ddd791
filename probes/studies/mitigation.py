"""Mitigation sweep: which site and mode removes the behaviour and leaves coherent answers, with controls.

Three disjoint prompt lists: `fit` gives the direction (mean of the adapter's minus mean of the base's activations at
the last prompt token, arXiv 2606.20225), `select` chooses site and mode, `test` is what the table reports,
and chooses nothing. Controls on `test`: random directions, an orthogonal one and the wrong layer's, each acting as far
as what was chosen (`probes.studies.framework.controls`), the base model, and, where a control adapter is given, its
direction ablated in the same place: if that works as well, the verdict is *works, not specific*.

A steering effect is never printed without coherence: `good` is the share of answers that do not show the behaviour and
are coherent (`probes.steer.coherence.Coherence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.conditions import Condition, adapter_directions
from probes.directions import Direction, cosine
from probes.errors import DataError
from probes.evaluation import Interval, rate
from probes.model.load import ChatModel, user_message
from probes.progress import Progress, silent
from probes.steer.coherence import Coherence
from probes.steer.outcomes import GenerationOutcome, good
from probes.steer.steering import Intervention, Mode
from probes.studies.framework.controls import ORTHOGONAL, as_far, is_random, vectors
from probes.studies.framework.verdict import CONTROL_MARGIN, EFFECT, TEXT_BROKEN, Judgement, Verdict
from probes.studies.metric import Metric
from probes.studies.runner import ConditionRunner

_RANDOM = 5
CONTENT = "control adapter's direction"


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
    verdict: Judgement

    def as_dict(self) -> dict[str, Any]:
        return {
            "chosen": str(self.chosen),
            "site": str(self.chosen.direction.site),
            "mode": self.chosen.mode,
            "strength": self.chosen.strength,
            "positions": self.chosen.positions,
            "control_cosine": self.control_cosine,
            "verdict": self.verdict.as_dict(),
            "select": [asdict(c) for c in self.selection],
            "test": [asdict(c) for c in self.test],
        }


class _SweepRunner:
    """Generates and judges one prompt list under one condition after the other."""

    def __init__(self, chat: ChatModel, texts: Sequence[str], metric: Metric, tokens: int, progress: Progress) -> None:
        self._condition, self._progress = Condition(chat, chat.active), progress
        self._runner = ConditionRunner(chat, texts, metric, max_new_tokens=tokens)
        own = self._runner.run(Condition(chat, None))
        self.coherence = Coherence.of(own)
        self.base = self._judged("base model", own)

    def run(self, name: str, intervention: Intervention | None) -> ConditionFigures:
        return self._judged(name, self._runner.run(self._condition, intervention))

    def _judged(self, name: str, outcome: GenerationOutcome) -> ConditionFigures:
        n = len(outcome.behaviour)
        finite = outcome.nll[np.isfinite(outcome.nll)]
        condition = ConditionFigures(
            name,
            rate(int(outcome.behaviour.sum()), n),
            rate(int(good(outcome, self.coherence).sum()), n),
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
    along = vectors(direction, directions, _RANDOM, 0)
    named = list(as_far(chosen, along).items())
    if direction.site in controls:
        named.append((CONTENT, replace(chosen, direction=controls[direction.site])))
    return named


def _verdict(test: Sequence[ConditionFigures]) -> Judgement:
    """Does it work, and is it specific?"""
    by_name = {c.name: c for c in test}
    before, after = test[1], test[2]
    random_good = max(c.good.value for c in test if is_random(c.name) or c.name == ORTHOGONAL)
    if after.behaviour.value > before.behaviour.value - EFFECT:
        return Judgement(Verdict.NO_EFFECT, "the behaviour stays")
    if after.good.value < max(TEXT_BROKEN, random_good + CONTROL_MARGIN):
        return Judgement(Verdict.NOISE, "the behaviour goes because the text breaks, as under a random shift")
    control = by_name.get(CONTENT)
    if control is None:
        return Judgement(Verdict.SPECIFICITY_UNKNOWN, "no control adapter was given")
    as_low = control.behaviour.value <= after.behaviour.value + CONTROL_MARGIN
    if as_low and control.good.value >= after.good.value - EFFECT:
        return Judgement(Verdict.WORKS_NOT_SPECIFIC, "the control adapter's direction removes the behaviour as well")
    return Judgement(Verdict.WORKS_SPECIFIC, "the control adapter's direction does less")
