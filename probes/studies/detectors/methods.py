"""The methods that are compared, the readings of each, and the choice of one reading a method on the select rows.

Contract: `first_specs` are the readings at one site; `several_specs` follow from how those did on the select rows: the
best blocks or heads, averaged or in one regression. `choose` keeps one reading a method, by the mean of two figures on
the select rows: AUROC of harmful requests against their twins, and the true-positive rate at the threshold of everyday
messages that are there for choosing alone. Of equal ones the first stays. Test rows choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from probes.calibration import Values, calibrate
from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site
from probes.evaluation import auroc_value
from probes.studies.detectors.fits import Spec
from probes.studies.detectors.plan import DetectorPlan

LAST = Aggregation("last", "prompt")
MEAN_USER = Aggregation("mean", "user")

MEAN_LAST = "difference in means, last token"
MEAN_OF_USER = "difference in means, mean of the user's tokens"
MEAN_BLOCKS = "difference in means, several blocks averaged"
MEAN_HEADS = "difference in means, several heads averaged"
WHITENED_LAST = "whitened, last token"
WHITENED_OF_USER = "whitened, mean of the user's tokens"
WHITENED_WINDOWS = "whitened, top windows"
LOGISTIC_LAST = "logistic, last token"
LOGISTIC_OF_USER = "logistic, mean of the user's tokens"
LOGISTIC_WINDOWS = "logistic, top windows"
LOGISTIC_SEVERAL = "logistic, several blocks"
METHODS = (
    MEAN_LAST,
    MEAN_OF_USER,
    MEAN_BLOCKS,
    MEAN_HEADS,
    WHITENED_LAST,
    WHITENED_OF_USER,
    WHITENED_WINDOWS,
    LOGISTIC_LAST,
    LOGISTIC_OF_USER,
    LOGISTIC_WINDOWS,
    LOGISTIC_SEVERAL,
)
# Single heads are read only to be averaged.
_SINGLE_HEADS = "difference in means, one head"


def first_specs(plan: DetectorPlan) -> list[Spec]:
    """All readings at one site."""
    specs: list[Spec] = []
    for site in plan.blocks:
        specs += [Spec(MEAN_LAST, "mean", (site,), LAST), Spec(MEAN_OF_USER, "mean", (site,), MEAN_USER)]
        for aggregation, whitened, logistic in (
            (LAST, WHITENED_LAST, LOGISTIC_LAST),
            (MEAN_USER, WHITENED_OF_USER, LOGISTIC_OF_USER),
        ):
            specs += [Spec(whitened, "rows", (site,), aggregation, shrinkage) for shrinkage in plan.shrinkages]
            specs += [Spec(logistic, "logistic", (site,), aggregation, penalty) for penalty in plan.penalties]
    for site in plan.window_sites:
        specs += [Spec(WHITENED_WINDOWS, "tokens", (site,), plan.windows, x) for x in plan.shrinkages]
        specs += [Spec(LOGISTIC_WINDOWS, "logistic", (site,), plan.windows, x) for x in plan.penalties]
    return [*specs, *(Spec(_SINGLE_HEADS, "mean", (head,), LAST) for head in plan.heads)]


def several_specs(plan: DetectorPlan, merits: Mapping[Spec, float]) -> list[Spec]:
    """Readings over several sites, from the merits of those at one site."""
    specs: list[Spec] = []
    for method, of, wanted in (
        (MEAN_BLOCKS, MEAN_LAST, plan.averaged_blocks),
        (MEAN_HEADS, _SINGLE_HEADS, plan.averaged_heads),
    ):
        ranked = _ranked(merits, of)
        specs += [Spec(method, "mean", ranked[:n], LAST) for n in wanted if n <= len(ranked)]
    for of, aggregation in ((LOGISTIC_LAST, LAST), (LOGISTIC_OF_USER, MEAN_USER)):
        ranked = _ranked(merits, of)
        specs += [
            Spec(LOGISTIC_SEVERAL, "logistic", ranked[:n], aggregation, penalty)
            for n in plan.averaged_blocks
            for penalty in plan.penalties
            if n <= len(ranked)
        ]
    return specs


def merit(requests: Values, labels: NDArray[np.bool_], benign: Values, column: int, target: float) -> float:
    """Of one reading on the select rows: the mean of AUROC against twins and TPR at the everyday threshold."""
    quiet, lengths = benign.values[:, column], benign.tokens[:, column].tolist()
    at = calibrate(quiet, [""] * len(quiet), target, "choosing", tokens=lengths)
    scores = at.scores(requests.values[:, column], requests.tokens[:, column].tolist())
    return (auroc_value(scores, labels) + float((scores[labels] > at.threshold).mean())) / 2


def choose(merits: Mapping[Spec, float]) -> dict[str, Spec]:
    """The best reading of each method, in the order of METHODS."""
    chosen: dict[str, Spec] = {}
    for method in METHODS:
        own = [spec for spec in merits if spec.method == method]
        if own:
            chosen[method] = max(own, key=lambda spec: merits[spec])
    return chosen


def _ranked(merits: Mapping[Spec, float], method: str) -> tuple[Site, ...]:
    """Sites of the readings of a method, the best first, each once."""
    own: Sequence[Spec] = sorted((s for s in merits if s.method == method), key=lambda s: -merits[s])
    return tuple(dict.fromkeys(spec.sites[0] for spec in own))
