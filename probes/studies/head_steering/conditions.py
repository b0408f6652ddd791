"""Controls of a head-steering study, and what each condition does to the held-out choices.

Conditions are trials under a name for people. Random heads have their own directions and the chosen alpha; random
directions sit in the chosen heads at equal size; heads ranked by a probe and the layer-level vector (the residual
stream at the chosen heads' blocks, one of them or all) have their own best alpha, chosen as that of the chosen heads:
the largest effect on `retest` questions whose answers to the `select` messages stay coherent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from probes.binary_choice import BinaryChoice
from probes.capture.sites import Site
from probes.directions import Floats, random_like
from probes.evaluation import Interval, rate, student_interval
from probes.heads.choice_scoring import PLAIN, ChoiceScorer, SteeringTrial
from probes.heads.row_steering import Shift
from probes.heads.search import SearchPlan, SiteDirections, effects, joint, joint_name, objective
from probes.studies.head_steering.open_answers import OpenAnswerRunner
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

_LESS_COHERENT = 0.15
_TRIES = 3


@dataclass(frozen=True)
class HeldOutFigures:
    """Per condition: `figures` as plain data, and (questions,) arrays of effects and of wanted choices."""

    figures: dict[str, dict[str, Any]]
    effects: dict[str, Floats]
    wanted: dict[str, Floats]

    def share(self, key: str) -> dict[str, float]:
        """One figure's value of every condition."""
        return {name: float(figures[key]["value"]) for name, figures in self.figures.items()}


def settled(
    scorer: ChoiceScorer,
    runner: OpenAnswerRunner,
    options: Sequence[SteeringTrial],
    rows: Sequence[BinaryChoice],
    plan: SearchPlan,
    who: str,
) -> SteeringTrial:
    """The option with the largest effect on `rows` among the coherent; three are tried, then the most coherent of them.

    A warning says so when none was coherent.
    """
    outcomes = scorer([PLAIN, *options], rows)
    scores = objective(outcomes, outcomes.row(0), plan)[1:]
    order = [int(i) for i in np.argsort(-scores) if np.isfinite(scores[i])][:_TRIES] or [0]
    before = runner.coherent_share(runner.run(PLAIN))
    shares = {}
    for i in order:
        shares[i] = runner.coherent_share(runner.run(options[i]))
        if shares[i] >= before - _LESS_COHERENT:
            return options[i]
    scorer.warnings.append(f"{who}: no alpha tried leaves the answers coherent (before {before:.0%})")
    return options[max(shares, key=lambda i: shares[i])]


def probe_ranked(accuracy: Mapping[Site, float], directions: SiteDirections, n: int) -> list[Site]:
    """The n heads whose linear probe is best."""
    usable = [s for s in accuracy if s in directions.by_site]
    return sorted(usable, key=lambda s: (-accuracy[s], s))[:n]


def layer_options(
    layers: SiteDirections, sites: Sequence[Site], sign: float, alphas: Sequence[float]
) -> list[SteeringTrial]:
    """The residual stream at the heads' blocks: each block alone, and all of them, at every alpha."""
    blocks = [s for s in sorted({Site("residual", s.layer) for s in sites}) if s in layers.by_site]
    groups = [[b] for b in blocks] + ([blocks] if len(blocks) > 1 else [])
    return [joint(layers, group, sign * a) for group in groups for a in alphas]


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


def held_out(
    scorer: ChoiceScorer, trials: Mapping[str, SteeringTrial], rows: Sequence[BinaryChoice], plan: SearchPlan
) -> HeldOutFigures:
    """Figures of every condition; `effect` and `wanted_change` are paired with the model without intervention."""
    by_trial = {t.name: t for t in (PLAIN, *trials.values())}
    outcomes = scorer(list(by_trial.values()), rows)
    place = {name: i for i, name in enumerate(by_trial)}
    plain = outcomes.row(place[PLAIN.name])
    moved = effects(outcomes, plain, plan)
    chosen = outcomes.aligned if plan.aim == "away" else outcomes.misaligned
    measured = HeldOutFigures({}, {}, {})
    for name, trial in trials.items():
        i = place[trial.name]
        measured.effects[name], measured.wanted[name] = moved[i], chosen[i]
        measured.figures[name] = {
            "trial": trial.name,
            "wanted": asdict(_share(chosen[i])),
            "undefined": asdict(_share(outcomes.undefined[i])),
            "margin": asdict(student_interval(outcomes.margin[i])),
            "effect": asdict(student_interval(moved[i])),
            "wanted_change": asdict(student_interval(chosen[i] - chosen[place[PLAIN.name]])),
        }
    return measured


def _share(values: Floats) -> Interval:
    """A rate where every question counts as one or none, else (two orders) a mean within 0 and 1."""
    if set(np.unique(values)) <= {0.0, 1.0}:
        return rate(int(values.sum()), len(values))
    interval = student_interval(values)
    return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))
