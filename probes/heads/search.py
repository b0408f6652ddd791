"""The head search of HSI: directions, one head at a time, re-test, greedy combination, choice of alpha.

After HSI (arXiv 2502.05945; `docs/science.md` B.1):

- direction of head (l, h): mean of the misaligned texts' head outputs less the mean of the aligned ones', both read at
  the token that closes the assistant's turn; sigma is the spread of all rows' projections on it (steps 2 to 4)
- each head alone, at one alpha, on some `search` questions; those with the largest mean effect make the shortlist (6a)
- the shortlist again on the `retest` questions: a survivor's interval, widened for as many heads as it holds, lies
  above zero (step 6d; without it the best of hundreds of heads is luck, B.5 pitfall 10)
- survivors are joined greedily, and a common alpha is chosen anew after each (step 6e), on the `retest` questions

The effect of a trial is the change of the questions' margins in the wanted direction (`ChoiceOutcomes.margin`), in nats
a token or, in the `letters` form, in shares of answers: `away` wants the misaligned choice preferred less (alpha is
negative then), `towards` more. An alpha at which the share of undefined answers grows by more than a tenth is never
chosen. Figures here chose something: none of them is a result.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_MORE_UNDEFINED = 0.1


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
    """How the search goes. Alphas are magnitudes, in sigmas; the aim gives the sign."""

    aim: Aim = "away"
    alpha: float = 15.0
    alphas: tuple[float, ...] = (2.5, 5.0, 10.0, 15.0, 25.0, 40.0)
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
class Search:
    """What was found: heads and their common alpha (signed), and every figure on the way there."""

    heads: tuple[Site, ...]
    alpha: float
    survivors: tuple[Site, ...]
    singles: dict[Site, Interval]
    retest: dict[Site, Interval]
    steps: list[dict[str, Any]]
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


def search(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    search_rows: Sequence[BinaryChoice],
    retest_rows: Sequence[BinaryChoice],
    plan: SearchPlan,
    progress: Progress = silent,
) -> Search:
    """Find heads on the two splits (HSI, `docs/science.md` B.1 step 6); DataError below two questions to re-test.

    When no head survives, the best re-tested ones are taken and `warnings` says so.
    """
    if len(retest_rows) < 2:
        raise DataError(f"retest: {len(retest_rows)} questions; at least 2 are needed, give more rows")
    warnings = []
    if directions.skipped:
        named = ", ".join(str(s) for s in list(directions.skipped)[:5])
        warnings.append(f"{len(directions.skipped)} heads have no direction and were left out: {named}")
    singles = _singles(scorer, directions, search_rows[: plan.search_questions], plan, progress)
    shortlist = sorted(singles, key=lambda s: -singles[s].value)[: plan.keep]
    progress(f"re-testing {len(shortlist)} heads on {len(retest_rows)} other questions")
    retest = _retest(scorer, directions, shortlist, retest_rows, plan)
    survivors = tuple(s for s in shortlist if retest[s].low > 0)
    candidates = sorted(survivors or shortlist[: plan.max_heads], key=lambda s: -retest[s].value)
    if not survivors:
        warnings.append(
            f"no head survived the re-test: none of {len(shortlist)} has an effect that is surely above zero"
        )
    progress(f"{len(survivors)} heads survived; combining")
    heads, alpha, steps = _combine(scorer, directions, candidates, retest_rows, plan)
    return Search(heads, alpha, survivors, singles, retest, steps, warnings)


def _singles(
    scorer: ChoiceScorer, directions: SiteDirections, rows: Sequence[BinaryChoice], plan: SearchPlan, progress: Progress
) -> dict[Site, Interval]:
    sites = list(directions.by_site)
    progress(f"trying {len(sites)} heads one at a time on {len(rows)} questions")
    outcomes = scorer([PLAIN, *(joint(directions, [s], plan.sign * plan.alpha) for s in sites)], rows)
    change = effects(outcomes, outcomes.row(0), plan)[1:]
    return {site: student_interval(values) for site, values in zip(sites, change, strict=True)}


def _retest(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    shortlist: Sequence[Site],
    rows: Sequence[BinaryChoice],
    plan: SearchPlan,
) -> dict[Site, Interval]:
    outcomes = scorer([PLAIN, *(joint(directions, [s], plan.sign * plan.alpha) for s in shortlist)], rows)
    change = effects(outcomes, outcomes.row(0), plan)[1:]
    # Bonferroni: as if 95 % for the whole shortlist together.
    return {s: student_interval(v, level=1 - 0.05 / len(shortlist)) for s, v in zip(shortlist, change, strict=True)}


def _combine(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    candidates: Sequence[Site],
    rows: Sequence[BinaryChoice],
    plan: SearchPlan,
) -> tuple[tuple[Site, ...], float, list[dict[str, Any]]]:
    """Add the head that helps most until none helps by more than its own uncertainty."""
    chosen: tuple[Site, ...] = ()
    alpha, best = plan.sign * plan.alpha, np.zeros(len(rows))
    steps: list[dict[str, Any]] = []
    while len(chosen) < plan.max_heads:
        left = [s for s in candidates if s not in chosen]
        if not left:
            break
        outcomes = scorer([PLAIN, *(joint(directions, [*chosen, s], alpha) for s in left)], rows)
        scores = objective(outcomes, outcomes.row(0), plan)[1:]
        added = left[int(scores.argmax())]
        best_alpha, values = choose_alpha(scorer, directions, [*chosen, added], rows, plan)
        gain = student_interval(values - best, level=0.68)
        steps.append({"added": str(added), "alpha": best_alpha, "effect": float(values.mean()), "gain": gain.value})
        if chosen and gain.low <= 0:
            steps[-1]["kept"] = False
            break
        steps[-1]["kept"] = True
        chosen, alpha, best = (*chosen, added), best_alpha, values
    return chosen, alpha, steps


def choose_alpha(
    scorer: ChoiceScorer,
    directions: SiteDirections,
    sites: Sequence[Site],
    rows: Sequence[BinaryChoice],
    plan: SearchPlan,
) -> tuple[float, Floats]:
    """The grid's alpha (signed) with the largest objective, and its effects (questions,)."""
    grid = [plan.sign * a for a in plan.alphas]
    outcomes = scorer([PLAIN, *(joint(directions, sites, a) for a in grid)], rows)
    scores = objective(outcomes, outcomes.row(0), plan)[1:]
    # Where every alpha breaks answers, the smallest.
    at = int(scores.argmax()) if np.isfinite(scores).any() else 0
    return grid[at], effects(outcomes, outcomes.row(0), plan)[1 + at]
