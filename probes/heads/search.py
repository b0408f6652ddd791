"""The head search of HSI: directions, one head at a time, re-test, greedy combination, choice of alpha.

After HSI (arXiv 2502.05945; `docs/science.md` B.1):

- direction of head (l, h): mean of the misaligned texts' head outputs less the mean of the aligned ones', both read at
  the token that closes the assistant's turn; sigma is the spread of all rows' projections on it (steps 2 to 4)
- each head alone, at one alpha, on some `search` questions; those with the largest mean effect make the shortlist
  (6a). A head that breaks the text there is tried at half of that alpha and at a quarter, then left out
- the shortlist again on the `retest` questions, each head at the alpha at which its text held: a survivor's interval,
  widened for as many heads as it holds, lies above zero (step 6d; without it the best of hundreds of heads is luck,
  B.5 pitfall 10), and its text holds there too
- survivors are joined greedily on the `retest` questions (step 6e); the head that is added and the common alpha are
  chosen together, over every pair of the two

The effect of a trial is the change of the questions' margins in the wanted direction (`ChoiceOutcomes.margin`), in nats
a token or, in the `letters` form, in shares of answers: `away` wants the misaligned choice preferred less (alpha is
negative then), `towards` more. Text breaks where the share of undefined answers grows by more than a tenth: such a
trial is never chosen. Strengths go on past the grid until the effect falls or the text breaks (`dose_curves`), for
heads and for what they are compared with alike. Figures here chose something: none of them is a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probes.binary_choice import BinaryChoice, Form, contrast_texts
from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site, check_site
from probes.directions import Direction, Floats, difference_in_means, pooled_activations
from probes.errors import DataError, DirectionError
from probes.evaluation import Interval, student_interval
from probes.heads.choice_scoring import PLAIN, ChoiceOutcomes, ChoiceScorer, SteeringTrial
from probes.heads.row_steering import Shift
from probes.model.load import ChatModel
from probes.progress import Progress, silent

Aim = Literal["away", "towards"]
CLOSING_TOKEN = Aggregation("last", "response")
# A trial of one family at a signed alpha.
Family = Callable[[float], SteeringTrial]
_MORE_UNDEFINED = 0.1
# How a grid of strengths goes on, and how far below the search's alpha a head is tried that breaks the text there.
_STRONGER, _WEAKER = 1.6, (0.5, 0.25)


@dataclass(frozen=True)
class ChoiceActivations:
    """Site outputs at the closing token, site -> (texts, width), and which texts are misaligned."""

    values: dict[Site, NDArray[np.float32]]
    misaligned: NDArray[np.bool_]

    def only(self, sites: Sequence[Site]) -> ChoiceActivations:
        return ChoiceActivations({s: self.values[s] for s in sites}, self.misaligned)


@dataclass(frozen=True)
class SiteDirections:
    """Usable directions (HSI, `docs/science.md` B.1 steps 3 and 4: sigma over both classes, ddof 0).

    `sizes` is the mean norm of a site's output; `skipped` names sites and why.
    """

    by_site: dict[Site, Direction]
    sizes: dict[Site, float]
    skipped: dict[Site, str]

    def shift(self, site: Site, alpha: float) -> Shift:
        return Shift(self.by_site[site], alpha)


@dataclass(frozen=True)
class SearchPlan:
    """How the search goes. Alphas are magnitudes, in sigmas; the aim gives the sign.

    `alphas` is where grids of strengths start; they go on, by a factor of 1.6, up to `strongest`.
    """

    aim: Aim = "away"
    alpha: float = 15.0
    alphas: tuple[float, ...] = (2.5, 5.0, 10.0, 15.0, 25.0, 40.0)
    strongest: float = 250.0
    search_questions: int = 8
    keep: int = 16
    max_heads: int = 4

    def __post_init__(self) -> None:
        if not self.alphas or min(*self.alphas, self.alpha) <= 0:
            raise DataError("alpha: must be above zero; the aim (away or towards) gives the sign")
        if self.keep < 1 or self.max_heads < 1 or self.search_questions < 2:
            raise DataError("search: keep and max_heads must be at least 1, search_questions at least 2")

    @property
    def sign(self) -> float:
        return -1.0 if self.aim == "away" else 1.0


@dataclass(frozen=True)
class Dose:
    """One trial at one strength: alpha (signed), its objective (-inf where the text breaks), effects (questions,)."""

    alpha: float
    trial: SteeringTrial
    objective: float
    effects: Floats


@dataclass(frozen=True)
class FirstStages:
    """Every head alone on the search questions, and the best of them again on others, with the figures of both.

    `alphas` (magnitudes) is what each head was tried at, `broken` are heads that only break the text; `holds` says of
    which re-tested heads the text held again.
    """

    singles: dict[Site, Interval]
    alphas: dict[Site, float]
    broken: tuple[Site, ...]
    shortlist: tuple[Site, ...]
    retest: dict[Site, Interval]
    holds: dict[Site, bool]


@dataclass(frozen=True)
class Search:
    """What was found: heads and their common alpha (signed), and every figure on the way there.

    `singles` leaves out the heads in `broken`, which only break the text; `alphas` (magnitudes) is what each of the
    others was tried and re-tested at; `doses` is the curve of the chosen heads over alpha on the `retest` questions.
    """

    heads: tuple[Site, ...]
    alpha: float
    survivors: tuple[Site, ...]
    singles: dict[Site, Interval]
    retest: dict[Site, Interval]
    steps: list[dict[str, Any]]
    alphas: dict[Site, float]
    broken: tuple[Site, ...]
    doses: tuple[Dose, ...]
    warnings: list[str] = field(default_factory=list)


def read_activations(
    chat: ChatModel, rows: Sequence[BinaryChoice], form: Form, sites: Sequence[Site]
) -> ChoiceActivations:
    """Both texts of every row at the token that closes the turn. DirectionError where they are not finite."""
    for site in sites:
        check_site(site, chat.layout)
    pairs = [contrast_texts(chat, row, form) for row in rows]
    items = [item for good, bad in pairs for item in (*good, *bad)]
    misaligned = np.array([side for good, bad in pairs for side in [False] * len(good) + [True] * len(bad)], dtype=bool)
    values = pooled_activations(chat, items, sites, CLOSING_TOKEN)
    for site in sites:
        if not np.isfinite(values[site]).all():
            raise DirectionError(
                f"activations at {site} are not finite (NaN, or float16 overflow?); load the model in float32 or "
                "bfloat16"
            )
    return ChoiceActivations(values, misaligned)


def site_directions(read: ChoiceActivations) -> SiteDirections:
    """Directions and scales of every site; one whose classes do not differ is skipped, and none left is an error."""
    directions: dict[Site, Direction] = {}
    sizes: dict[Site, float] = {}
    skipped: dict[Site, str] = {}
    for site, values in read.values.items():
        try:
            direction = difference_in_means(site, values[read.misaligned], values[~read.misaligned])
        except DirectionError:
            skipped[site] = "zero direction: both classes have the same mean there"
            continue
        if direction.sigma <= 0:
            skipped[site] = "sigma is zero"
            continue
        directions[site] = direction
        sizes[site] = float(np.linalg.norm(values.astype(np.float64), axis=1).mean())
    if not directions:
        raise DirectionError("heads: no head has a direction; the two choices of every question are read alike")
    return SiteDirections(directions, sizes, skipped)


def probe_accuracy(fit: ChoiceActivations, test: ChoiceActivations) -> dict[Site, float]:
    """Accuracy of a linear probe a head, fitted on one split and counted on another: how ITI ranks heads."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=0.1))
    accuracy = {}
    for site, values in fit.values.items():
        model.fit(values, fit.misaligned)
        accuracy[site] = float(model.score(test.values[site], test.misaligned))
    return accuracy


def effects(outcomes: ChoiceOutcomes, plain: ChoiceOutcomes, plan: SearchPlan) -> Floats:
    """Change of the margins in the wanted direction, (trials, questions)."""
    change: Floats = plan.sign * (outcomes.margin - plain.margin)
    return change


def objective(outcomes: ChoiceOutcomes, plain: ChoiceOutcomes, plan: SearchPlan) -> Floats:
    """Mean effect of each trial; -inf where more than a tenth more answers than before are undefined."""
    means = effects(outcomes, plain, plan).mean(1)
    broken = outcomes.undefined.mean(1) > plain.undefined.mean(1) + _MORE_UNDEFINED
    return np.where(broken, -np.inf, means)


def joint_name(sites: Sequence[Site], alpha: float) -> str:
    """The name of a trial of heads with their own directions; the order of the heads does not matter."""
    return f"{'+'.join(str(s) for s in sorted(sites))} x{alpha:g}"


def joint(directions: SiteDirections, sites: Sequence[Site], alpha: float) -> SteeringTrial:
    """A trial of several sites with their own directions and one alpha (signed)."""
    return SteeringTrial(joint_name(sites, alpha), tuple(directions.shift(s, alpha) for s in sites))


def family(directions: SiteDirections, sites: Sequence[Site]) -> Family:
    """Trials of some sites with their own directions, at any common alpha."""
    return lambda alpha: joint(directions, sites, alpha)


def dose_curves(
    scorer: ChoiceScorer,
    families: Mapping[str, Family],
    alphas: Sequence[float],
    rows: Sequence[BinaryChoice],
    plan: SearchPlan,
) -> dict[str, tuple[Dose, ...]]:
    """Every family over the grid `alphas` (magnitudes), weakest first, and on until its effect falls or text breaks.

    A curve ends at `plan.strongest` at the latest. All families of a round are measured together.
    """
    curves: dict[str, list[Dose]] = {name: [] for name in families}
    wanted = {name: sorted(alphas) for name in families}
    while wanted:
        asked = [(name, plan.sign * a) for name, some in wanted.items() for a in some]
        trials = [families[name](alpha) for name, alpha in asked]
        outcomes = scorer([PLAIN, *trials], rows)
        scores, change = (f(outcomes, outcomes.row(0), plan)[1:] for f in (objective, effects))
        for (name, alpha), trial, score, values in zip(asked, trials, scores, change, strict=True):
            curves[name].append(Dose(alpha, trial, float(score), values))
        wanted = {name: [a] for name in wanted if (a := _stronger(curves[name], plan)) is not None}
    return {name: tuple(curve) for name, curve in curves.items()}


def _stronger(curve: Sequence[Dose], plan: SearchPlan) -> float | None:
    """The next magnitude of a curve; None where it broke, fell, or ends."""
    last, following = curve[-1], next_strength(abs(curve[-1].alpha))
    fell = last.objective < max(d.objective for d in curve)
    return None if fell or not np.isfinite(last.objective) or following > plan.strongest else following


def next_strength(magnitude: float) -> float:
    """The magnitude after this one, where a grid goes on."""
    return float(f"{magnitude * _STRONGER:.3g}")


def best_dose(curve: Sequence[Dose]) -> Dose:
    """The dose with the largest objective; where every one breaks the text, the weakest."""
    return max(curve, key=lambda d: d.objective) if any(np.isfinite(d.objective) for d in curve) else curve[0]


def search(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    search_rows: Sequence[BinaryChoice],
    retest_rows: Sequence[BinaryChoice],
    plan: SearchPlan,
    progress: Progress = silent,
) -> Search:
    """Find heads on the two splits (HSI, `docs/science.md` B.1 step 6).

    DataError below two questions to re-test, or when every head breaks the text. When no head survives, the best
    re-tested ones are taken and `warnings` says so.
    """
    stages = first_stages(scorer, directions, search_rows, retest_rows, plan, progress)
    retest, holds, broken, shortlist = stages.retest, stages.holds, stages.broken, stages.shortlist
    warnings = []
    if directions.skipped:
        named = ", ".join(str(s) for s in list(directions.skipped)[:5])
        warnings.append(f"{len(directions.skipped)} heads have no direction and were left out: {named}")
    if broken:
        warnings.append(f"{len(broken)} heads only break the text and were left out, {broken[0]} among them")
    survivors = tuple(s for s in shortlist if holds[s] and retest[s].low > 0)
    holding = [s for s in shortlist if holds[s]] or shortlist
    candidates = sorted(survivors or holding[: plan.max_heads], key=lambda s: -retest[s].value)
    if not survivors:
        warnings.append(
            f"no head survived the re-test: none of {len(shortlist)} has an effect that is surely above zero"
        )
    progress(f"{len(survivors)} heads survived; combining")
    heads, doses, steps = _combine(scorer, directions, candidates, retest_rows, plan)
    chosen = best_dose(doses)
    if not np.isfinite(chosen.objective):
        warnings.append("every strength tried breaks the text: the weakest was taken")
    return Search(heads, chosen.alpha, survivors, stages.singles, retest, steps, stages.alphas, broken, doses, warnings)


def first_stages(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    search_rows: Sequence[BinaryChoice],
    retest_rows: Sequence[BinaryChoice],
    plan: SearchPlan,
    progress: Progress = silent,
) -> FirstStages:
    """What `search` begins with. DataError below two questions to re-test, or when every head breaks the text."""
    if len(retest_rows) < 2:
        raise DataError(f"retest: {len(retest_rows)} questions; at least 2 are needed, give more rows")
    singles, alphas, broken = _singles(scorer, directions, search_rows[: plan.search_questions], plan, progress)
    shortlist = tuple(sorted(singles, key=lambda s: -singles[s].value)[: plan.keep])
    progress(f"re-testing {len(shortlist)} heads on {len(retest_rows)} other questions")
    retest, holds = _alone(scorer, directions, {s: alphas[s] for s in shortlist}, retest_rows, plan)
    return FirstStages(singles, alphas, broken, shortlist, retest, holds)


def _singles(
    scorer: ChoiceScorer, directions: SiteDirections, rows: Sequence[BinaryChoice], plan: SearchPlan, progress: Progress
) -> tuple[dict[Site, Interval], dict[Site, float], tuple[Site, ...]]:
    """Effects of the heads whose text holds, the magnitudes at which it does, and the heads that only break it."""
    singles: dict[Site, Interval] = {}
    alphas: dict[Site, float] = {}
    left = list(directions.by_site)
    for alpha in (plan.alpha, *(plan.alpha * part for part in _WEAKER)):
        if not left:
            break
        progress(f"trying {len(left)} heads one at a time on {len(rows)} questions, alpha {alpha:g}")
        found, holds = _alone(scorer, directions, dict.fromkeys(left, alpha), rows, plan, level=0.95)
        singles |= {s: found[s] for s in left if holds[s]}
        alphas |= {s: alpha for s in left if holds[s]}
        left = [s for s in left if not holds[s]]
    if not singles:
        raise DataError(
            f"alpha: every head breaks the text at {plan.alpha:g} and at a quarter of it; search with a smaller alpha"
        )
    return singles, alphas, tuple(left)


def _alone(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    alphas: Mapping[Site, float],
    rows: Sequence[BinaryChoice],
    plan: SearchPlan,
    level: float | None = None,
) -> tuple[dict[Site, Interval], dict[Site, bool]]:
    """The effect of each head alone at its magnitude, and whether its text holds.

    Bonferroni without a `level`: as if 95 % for all of them together.
    """
    level = 1 - 0.05 / len(alphas) if level is None else level
    outcomes = scorer([PLAIN, *(joint(directions, [s], plan.sign * a) for s, a in alphas.items())], rows)
    change = effects(outcomes, outcomes.row(0), plan)[1:]
    holds = np.isfinite(objective(outcomes, outcomes.row(0), plan)[1:])
    found = {s: student_interval(v, level=level) for s, v in zip(alphas, change, strict=True)}
    return found, dict(zip(alphas, holds.tolist(), strict=True))


def _combine(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    candidates: Sequence[Site],
    rows: Sequence[BinaryChoice],
    plan: SearchPlan,
) -> tuple[tuple[Site, ...], tuple[Dose, ...], list[dict[str, Any]]]:
    """Add the head that helps most, at the alpha at which it does, until none helps by more than its uncertainty."""
    chosen: tuple[Site, ...] = ()
    doses: tuple[Dose, ...] = ()
    steps: list[dict[str, Any]] = []
    while len(chosen) < plan.max_heads:
        left = [s for s in candidates if s not in chosen]
        if not left:
            break
        families = {str(s): family(directions, (*chosen, s)) for s in left}
        curves = dose_curves(scorer, families, plan.alphas, rows, plan)
        added = max(left, key=lambda s: max(d.objective for d in curves[str(s)]))
        dose = best_dose(curves[str(added)])
        step = {"added": str(added), "alpha": dose.alpha, "effect": float(dose.effects.mean())}
        before = best_dose(doses).effects if doses else np.zeros(len(rows))
        gain = student_interval(dose.effects - before, level=0.68)
        kept = not chosen or (gain.low > 0 and bool(np.isfinite(dose.objective)))
        steps.append(step | {"gain": gain.value, "breaks": not np.isfinite(dose.objective), "kept": kept})
        if not kept:
            break
        chosen, doses = (*chosen, added), curves[str(added)]
    return chosen, doses, steps
