"""Controls of a head-steering study, and what each condition does to the held-out choices.

Conditions are trials under a name for people. Random heads have their own directions and the chosen alpha; random
directions sit in the chosen heads at equal size; heads ranked by a probe and the layer-level vector (the residual
stream at the chosen heads' blocks, one of them or all) have their own best alpha, over a grid that goes on by the same
rule (`probes.heads.search.dose_curves`) and chosen as that of the chosen heads: the largest effect on `retest`
questions whose answers to the `select` messages stay coherent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from probes.binary_choice import BinaryChoice
from probes.capture.sites import Site
from probes.directions import Floats, random_like
from probes.evaluation import Interval, paired_difference, rate, student_interval
from probes.heads.choice_scoring import PLAIN, ChoiceOutcomes, ChoiceScorer, SteeringTrial
from probes.heads.row_steering import Shift
from probes.heads.search import (
    Dose,
    Family,
    Search,
    SearchPlan,
    SiteDirections,
    dose_curves,
    effects,
    family,
    joint,
    joint_name,
    next_strength,
)
from probes.studies.framework.verdict import LESS_COHERENT
from probes.studies.head_steering.open_answers import OpenAnswerRunner
from probes.studies.head_steering.plan import HeadsPlan
from probes.studies.head_steering.verdict import (
    CHOSEN,
    LAYER,
    OPPOSITE,
    PLAIN_NAME,
    PROBE_HEADS,
    RANDOM_DIRECTIONS,
    RANDOM_HEADS,
    WITHOUT_BEST,
)

_TRIES = 6


@dataclass(frozen=True)
class HeldOutFigures:
    """Per condition: `figures` as plain data, and (questions,) arrays of effects and of wanted choices."""

    figures: dict[str, dict[str, Any]]
    effects: dict[str, Floats]
    wanted: dict[str, Floats]

    def share(self, key: str) -> dict[str, float]:
        """One figure's value of every condition."""
        return {name: float(figures[key]["value"]) for name, figures in self.figures.items()}


@dataclass(frozen=True)
class Readings:
    """What the `search` split gives: directions of heads and layers, and each head's probe accuracy on `retest`."""

    heads: SiteDirections
    layers: SiteDirections
    accuracy: dict[Site, float]


def settled(runner: OpenAnswerRunner, doses: Sequence[Dose], who: str, warnings: list[str]) -> SteeringTrial:
    """The dose with the largest objective among the coherent; six are tried, then the most coherent of them.

    A warning says so when none was coherent.
    """
    order = sorted((d for d in doses if np.isfinite(d.objective)), key=lambda d: -d.objective)[:_TRIES] or [doses[0]]
    before = runner.coherent_share(runner.run(PLAIN))
    shares = []
    for dose in order:
        shares.append(runner.coherent_share(runner.run(dose.trial)))
        if shares[-1] >= before - LESS_COHERENT:
            return dose.trial
    warnings.append(f"{who}: no alpha tried leaves the answers coherent (before {before:.0%})")
    return order[int(np.argmax(shares))].trial


def probe_ranked(accuracy: Mapping[Site, float], directions: SiteDirections, n: int) -> list[Site]:
    """The n heads whose linear probe is best."""
    usable = [s for s in accuracy if s in directions.by_site]
    return sorted(usable, key=lambda s: (-accuracy[s], s))[:n]


def layer_families(layers: SiteDirections, sites: Sequence[Site]) -> dict[str, Family]:
    """The residual stream at the heads' blocks: each block alone, and all of them."""
    blocks = [s for s in sorted({Site("residual", s.layer) for s in sites}) if s in layers.by_site]
    groups = [[b] for b in blocks] + ([blocks] if len(blocks) > 1 else [])
    return {"+".join(map(str, group)): family(layers, group) for group in groups}


def random_directions(
    directions: SiteDirections, sites: Sequence[Site], alpha: float, draw: int, seed: int
) -> SteeringTrial:
    """Gaussian directions in the same heads, each as large as the one that it stands for."""
    shifts = []
    for k, site in enumerate(sites):
        drawn = random_like(directions.by_site[site], 10_000 * seed + 100 * draw + k)
        shifts.append(Shift(drawn, alpha))
    return SteeringTrial(f"random direction {draw} of seed {seed} in {joint_name(sites, alpha)}", tuple(shifts))


def random_heads(
    directions: SiteDirections, sites: Sequence[Site], alpha: float, draws: int, seed: int
) -> list[SteeringTrial]:
    """As many other heads, with their own directions and the same alpha; fewer draws where there are too few heads."""
    rest = [s for s in sorted(directions.by_site) if s not in sites]
    rng = np.random.default_rng(seed)
    trials: dict[str, SteeringTrial] = {}
    # Few heads may be drawn alike; a few more draws find the others.
    for _ in range(20 * draws if len(rest) >= len(sites) else 0):
        if len(trials) == draws:
            break
        picked = [rest[i] for i in rng.choice(len(rest), len(sites), replace=False)]
        trial = joint(directions, picked, alpha)
        trials.setdefault(trial.name, trial)
    return list(trials.values())


def conditions(
    directions: SiteDirections,
    chosen: SteeringTrial,
    probe_heads: SteeringTrial | None,
    layer: SteeringTrial | None,
    draws: int,
    seed: int,
) -> dict[str, SteeringTrial]:
    """Everything that is measured on held-out questions but the curve over alpha; `chosen` has its best head first."""
    sites = [s.site for s in chosen.shifts]
    alpha = chosen.shifts[0].alpha
    trials = {PLAIN_NAME: PLAIN, CHOSEN: chosen, OPPOSITE: joint(directions, sites, -alpha)}
    if len(sites) > 1:
        trials[WITHOUT_BEST] = joint(directions, sites[1:], alpha)
    for i in range(draws):
        trials[f"{RANDOM_DIRECTIONS} {i}"] = random_directions(directions, sites, alpha, i, seed)
    for i, trial in enumerate(random_heads(directions, sites, alpha, draws, seed)):
        trials[f"{RANDOM_HEADS} {i}"] = trial
    if probe_heads is not None:
        trials[PROBE_HEADS] = probe_heads
    if layer is not None:
        trials[LAYER] = layer
    return trials


def settled_conditions(
    scorer: ChoiceScorer,
    runner: OpenAnswerRunner,
    read: Readings,
    found: Search,
    rows: Sequence[BinaryChoice],
    plan: HeadsPlan,
) -> dict[str, SteeringTrial]:
    """Every condition, each method at the alpha that is best for it; `rows` are the `retest` questions."""
    ranked = probe_ranked(read.accuracy, read.heads, len(found.heads))
    by_probe = {PROBE_HEADS: family(read.heads, ranked)} if ranked else {}
    layers = layer_families(read.layers, found.heads)
    probe_doses = dose_curves(scorer, by_probe, plan.search.alphas, rows, plan.search)
    layer_doses = dose_curves(scorer, layers, plan.layer_alphas, rows, plan.search)
    warnings = scorer.warnings
    chosen = settled(runner, found.doses, CHOSEN, warnings)
    probe_heads = settled(runner, probe_doses[PROBE_HEADS], PROBE_HEADS, warnings) if ranked else None
    every_layer = [d for curve in layer_doses.values() for d in curve]
    layer = settled(runner, every_layer, LAYER, warnings) if every_layer else None
    return conditions(read.heads, chosen, probe_heads, layer, plan.draws, plan.seed)


def curves(
    scorer: ChoiceScorer,
    read: Readings,
    found: Search,
    trials: Mapping[str, SteeringTrial],
    rows: Sequence[BinaryChoice],
    plan: HeadsPlan,
) -> dict[str, list[SteeringTrial]]:
    """The curves over alpha of the chosen heads and of the layer vector, on until they fall on the questions given."""
    starts = {CHOSEN: (family(read.heads, found.heads), [abs(d.alpha) for d in found.doses])}
    if LAYER in trials:
        sites = [s.site for s in trials[LAYER].shifts]
        strengths = sorted(plan.layer_alphas)
        while strengths[-1] < abs(trials[LAYER].shifts[0].alpha):
            strengths.append(next_strength(strengths[-1]))
        starts[LAYER] = (family(read.layers, sites), strengths)
    return {
        name: [d.trial for d in dose_curves(scorer, {name: made}, alphas, rows, plan.search)[name]]
        for name, (made, alphas) in starts.items()
    }


def held_out(
    scorer: ChoiceScorer, trials: Mapping[str, SteeringTrial], rows: Sequence[BinaryChoice], plan: SearchPlan
) -> HeldOutFigures:
    """Figures of every condition; `effect` and `wanted_change` are paired with the model without intervention."""
    by_trial = {t.name: t for t in (PLAIN, *trials.values())}
    outcomes = scorer(list(by_trial.values()), rows)
    place = {name: i for i, name in enumerate(by_trial)}
    plain = outcomes.row(place[PLAIN.name])
    measured = HeldOutFigures({}, {}, {})
    for name, trial in trials.items():
        add_condition(measured, name, trial.name, outcomes.row(place[trial.name]), plain, plan)
    return measured


def add_condition(
    measured: HeldOutFigures, name: str, trial: str, found: ChoiceOutcomes, plain: ChoiceOutcomes, plan: SearchPlan
) -> None:
    """One more condition's figures, from its outcomes and the plain model's, both (1, questions)."""
    moved = effects(found, plain, plan)[0]
    chosen, before = ((o.aligned if plan.aim == "away" else o.misaligned)[0] for o in (found, plain))
    measured.effects[name], measured.wanted[name] = moved, chosen
    measured.figures[name] = {
        "trial": trial,
        "wanted": asdict(_share(chosen)),
        "undefined": asdict(_share(found.undefined[0])),
        "margin": asdict(student_interval(found.margin[0])),
        "effect": asdict(student_interval(moved)),
        "wanted_change": asdict(paired_difference(chosen, before)),
    }


def _share(values: Floats) -> Interval:
    """A rate where every question counts as one or none, else (two orders) a mean within 0 and 1."""
    if set(np.unique(values)) <= {0.0, 1.0}:
        return rate(int(values.sum()), len(values))
    interval = student_interval(values)
    return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))
