"""Within-model prediction: does the last prompt token tell which message will show the behaviour?

The label of a message is what the model itself answers, unsteered, by the metric. Figures are on the test messages,
by block:

- `direction`: AUROC of the projection on the study's direction. No label went into it.
- `detector`: AUROC of a difference in means between the fit messages that show the behaviour and those that do not.
- `cosine` of the two: 2606.24952 finds detecting and controlling directions far apart (`docs/science.md` A.6). Its
  noise is taken off (`probes.statistics.cosine`): a detector made of few messages is noisy, and noise alone pulls the
  `plain` cosine to 0. `null` is the 95 % quantile of |plain| with shuffled labels.

Sites are chosen on the fit messages: the direction's by AUROC, the detector's by cross-validated AUROC. Beside them,
at the chosen sites: random directions, with the direction's rank among them (`p`); for the detector the labels of both
splits shuffled (`chance`, with `p`) and those of the fit split alone (`shuffled_fit`, which is not chance:
`probes.statistics.nulls`; results of before call it `permuted`); the control's direction, and TF-IDF of the text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.batches import Encoded
from probes.capture.sites import Site
from probes.conditions import Activations, Condition, Rows, activations_by_condition
from probes.directions import Direction, Floats, difference_in_means, random_like
from probes.errors import DirectionError
from probes.evaluation import auroc, auroc_value, from_chance
from probes.fitting import text_baseline
from probes.rows import Row
from probes.statistics.cosine import true_cosine
from probes.statistics.nulls import rank_among
from probes.studies.direction.conditions import encoded
from probes.studies.direction.separation import Directions

LEAST = 5
_FOLDS = 5
_COSINE_DRAWS = 100
Flags = NDArray[np.bool_]


def prediction(
    condition: Condition,
    messages: Sequence[str],
    shown: Flags,
    n_fit: int,
    directions: Directions,
    *,
    permutations: int,
    random_directions: int,
    seed: int,
) -> dict[str, Any]:
    """Figures as plain data; `shown[i]` says whether message i's answer shows the behaviour, the first n_fit to fit.

    With fewer than 5 messages of either class in a split there is no figure but `not_possible`, which says so.
    """
    fit, test = slice(0, n_fit), slice(n_fit, None)
    counts = {name: _counts(shown[part]) for name, part in (("fit", fit), ("test", test))}
    report: dict[str, Any] = {"arm": condition.name, "messages": counts}
    least = min(min(found.values()) for found in counts.values())
    if least < LEAST:
        few = "; ".join(f"{name}: {c['shown']} show it, {c['not_shown']} do not" for name, c in counts.items())
        return report | {"not_possible": f"at least {LEAST} messages of each kind are needed in each split ({few})"}
    with condition.applied() as chat:
        items: list[Encoded] = encoded(chat, messages)
    activations: Activations = activations_by_condition([(condition, item) for item in items], list(directions.own))
    rows = [
        _at(
            site,
            direction,
            activations[site][fit],
            activations[site][test],
            shown[fit],
            shown[test],
            permutations,
            seed,
        )
        for site, direction in directions.own.items()
    ]
    best = max(rows, key=lambda r: r["direction_on_fit"])
    detectors = [r for r in rows if r["detector"] is not None]
    site = next(s for s in directions.own if str(s) == best["site"])
    nulls = [
        auroc_value(activations[site][test] @ random_like(directions.own[site], seed + i).unit, shown[test])
        for i in range(random_directions)
    ]
    control = directions.control.get(site)
    texts = [
        Row(item, text, bool(bad), str(i))
        for i, (item, text, bad) in enumerate(zip(items, messages, shown, strict=True))
    ]
    return report | {
        "sites": rows,
        "direction": {"site": best["site"], "auroc": best["direction"]},
        "detector": _best_detector(detectors, activations, shown, n_fit, permutations, seed) if detectors else None,
        "random": _nulls(nulls) | {"p": rank_among(best["direction"]["value"], list(map(from_chance, nulls))).p},
        "control": asdict(auroc(activations[site][test] @ control.unit, shown[test])) if control else None,
        "text_only": text_baseline(texts[fit], texts[test])["auroc"],
    }


def _nulls(aurocs: Sequence[float]) -> dict[str, Any]:
    return {"n": len(aurocs), "mean": float(np.mean(aurocs)), "farthest": max(map(from_chance, aurocs))}


def _counts(shown: Flags) -> dict[str, int]:
    return {"shown": int(shown.sum()), "not_shown": int((~shown).sum())}


def _at(
    site: Site,
    direction: Direction,
    fit: Rows,
    test: Rows,
    fit_shown: Flags,
    test_shown: Flags,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "site": str(site),
        "direction": asdict(auroc(test @ direction.unit, test_shown)),
        "direction_on_fit": auroc_value(fit @ direction.unit, fit_shown),
        "detector": None,
        "detector_on_fit": None,
        "cosine": None,
    }
    try:
        detector = difference_in_means(site, fit[fit_shown], fit[~fit_shown])
    except DirectionError:
        return row
    return row | {
        "detector": asdict(auroc(test @ detector.unit, test_shown)),
        "detector_on_fit": _cross_validated(fit, fit_shown, seed),
        "cosine": _cosine(direction.unit, fit, fit_shown, draws, seed),
    }


def _cross_validated(values: Rows, shown: Flags, seed: int) -> float:
    """AUROC of differences in means on the folds that they were not made of; both classes in every fold."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(shown), dtype=int)
    for kind in (True, False):
        rows = np.flatnonzero(shown == kind)
        fold[rng.permutation(rows)] = np.arange(len(rows)) % _FOLDS
    scores = np.empty(len(shown))
    for k in range(_FOLDS):
        rest = fold != k
        vector = _difference(values[rest], shown[rest])
        middle = (values[rest][shown[rest]].mean(0) + values[rest][~shown[rest]].mean(0)) / 2
        scores[~rest] = (values[~rest] - middle) @ vector / max(float(vector.dot(vector)), 1e-30)
    return auroc_value(scores, shown)


def _difference(values: Rows | Floats, shown: Flags) -> Floats:
    wide = values.astype(np.float64)
    difference: Floats = wide[shown].mean(0) - wide[~shown].mean(0)
    return difference


def _cosine(unit: Floats, values: Rows, shown: Flags, draws: int, seed: int) -> dict[str, Any]:
    """The true cosine of the detector to a unit vector; `plain`, as it is, and 95 % of |plain| of shuffled labels."""
    rng = np.random.default_rng(seed)
    wide = values.astype(np.float64)

    def plain(labels: Flags) -> float:
        vector = _difference(wide, labels)
        return float(vector.dot(unit) / max(float(np.linalg.norm(vector)), 1e-30))

    shuffled = [abs(plain(rng.permutation(shown))) for _ in range(max(draws, _COSINE_DRAWS))]
    found = asdict(true_cosine(unit, wide[shown], wide[~shown]))
    return found | {"plain": plain(shown), "null": float(np.quantile(shuffled, 0.95))}


def _best_detector(
    rows: Sequence[dict[str, Any]], activations: Activations, shown: Flags, n_fit: int, draws: int, seed: int
) -> dict[str, Any]:
    best = max(rows, key=lambda r: r["detector_on_fit"])
    values = next(v for s, v in activations.items() if str(s) == best["site"])
    fit, test = values[:n_fit], values[n_fit:]
    rng = np.random.default_rng(seed)
    chance, shuffled_fit = [], []
    for _ in range(draws):
        scores = test @ _difference(fit, rng.permutation(shown[:n_fit]))
        shuffled_fit.append(auroc_value(scores, shown[n_fit:]))
        chance.append(auroc_value(scores, rng.permutation(shown[n_fit:])))
    return {
        "site": best["site"],
        "auroc": best["detector"],
        "cosine": best["cosine"],
        "chance": _nulls(chance) | {"p": rank_among(best["detector"]["value"], chance).p},
        "shuffled_fit": _nulls(shuffled_fit),
    }
