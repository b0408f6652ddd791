"""Held-out separation of the two classes, site by site, beside its nulls.

The rule (ours; arXiv 2606.20225 leaves it open, `docs/science.md` A.1 step 4): project on the unit direction of the
fit split, cut at the midpoint of the fit split's two projected means, and give the balanced accuracy on the test
split. Effect size: Cohen's d of the test projections, pooled standard deviation with ddof 1. In-sample figures are
never given: with more dimensions than rows a difference in means separates noise (A.5.3).

Beside each site, each cut at its own midpoint (`farthest` is how far from 0.5 the farthest of many gets, either way):

- `chance`: the labels of both splits shuffled, within pairs where rows are pairs; with `p`, the rank of the figure
  among them. This is the null of "there is no difference".
- `shuffled_fit`: directions of shuffled fit labels, judged by the true test labels. Not chance: such a direction is a
  draw from the total covariance, so that it tells the labels apart, either way round, where they are its main axis
  (`probes.statistics.nulls`). Results of before call it `permuted`.
- `random`: random directions.
- the control's own direction and separation, which says what separation is worth; the misaligned class against the
  control's along the direction, and the contrast direction (misaligned - control).

Intervals: balanced accuracy has the mean of both classes' exact binomial intervals (not narrower than it should be,
also at 1.00); d the jackknife's over messages, over pairs where rows are pairs.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from probes.capture.sites import Site
from probes.conditions import Rows
from probes.directions import Direction, Floats, cosine, directions_at, random_like
from probes.errors import DirectionError
from probes.evaluation import Interval, from_chance, jackknife_interval, rate
from probes.statistics.nulls import rank_among, shuffled
from probes.studies.direction.conditions import ClassActivations, ComparisonActivations


@dataclass(frozen=True)
class Directions:
    """The fit split's directions by site: the one under study, the control's, misaligned minus control."""

    own: dict[Site, Direction]
    control: dict[Site, Direction]
    contrast: dict[Site, Direction]
    without: list[str]

    def plain(self) -> dict[str, Any]:
        """As plain data, for the result cache."""
        named = {"own": self.own, "control": self.control, "contrast": self.contrast}
        return {"without": self.without} | {name: [_plain(d) for d in found.values()] for name, found in named.items()}

    @staticmethod
    def of(plain: dict[str, Any]) -> Directions:
        """Back from plain data."""
        own, control, contrast = (
            {d.site: d for d in map(_direction, plain[name])} for name in ("own", "control", "contrast")
        )
        return Directions(own, control, contrast, plain["without"])


def fit_directions(fit: ClassActivations) -> Directions:
    """Directions of the fit split. DirectionError where neither the study's nor the control's conditions differ
    anywhere."""
    own, without = _between(fit.misaligned, fit.aligned)
    if fit.control is None or fit.control_aligned is None:
        return Directions(own, {}, {}, without)
    try:
        control, _ = _between(fit.control, fit.control_aligned)
    except DirectionError as error:
        # A control at exactly 50 % and d = 0 is what a zero vector gives (docs/science.md A.5.4).
        raise DirectionError(f"control: {error}") from None
    contrast: dict[Site, Direction] = {}
    if fit.paired:
        with suppress(DirectionError):  # a control that is the same as what it controls has none
            contrast, _ = _between(fit.misaligned, fit.control)
    return Directions(own, control, contrast, without)


def separation(
    reading: ComparisonActivations, directions: Directions, *, permutations: int, random_directions: int, seed: int
) -> list[dict[str, Any]]:
    """Figures of every site that has a direction, in the order of depth; the test split decides nothing."""
    fit, test = reading.fit, reading.test
    rows = []
    for site, direction in directions.own.items():
        bad, good = fit.misaligned[site], fit.aligned[site]
        test_rows = test.misaligned[site], test.aligned[site]

        def rule(unit: Floats, a: Rows = bad, b: Rows = good, test_rows: tuple[Rows, Rows] = test_rows) -> _Rule:
            return _Rule.at(unit, a, b, *test_rows)

        row: dict[str, Any] = {
            "site": str(site),
            "norm": direction.norm,
            "relative_norm": direction.norm / float(np.linalg.norm(good, axis=1).mean()),
            "top_dimension_share": float((direction.unit**2).max()),
            **_figures(rule(direction.unit), test.paired),
            "chance": _chance(bad, good, *test_rows, permutations, seed, rule(direction.unit).accuracy, test.paired),
            "shuffled_fit": _spread(_shuffled_fit(bad, good, *test_rows, permutations, seed, fit.paired)),
            "random": _spread([rule(random_like(direction, seed + i).unit).accuracy for i in range(random_directions)]),
            "control": None,
            "against_control": None,
            "contrast": None,
        }
        control = directions.control.get(site)
        if control is not None and fit.control and fit.control_aligned and test.control and test.control_aligned:
            own = _Rule.at(
                control.unit,
                fit.control[site],
                fit.control_aligned[site],
                test.control[site],
                test.control_aligned[site],
            )
            row["control"] = _figures(own, test.paired) | {
                "norm": control.norm,
                "cosine": cosine(direction, control),
            }
            if fit.paired:
                against = fit.control[site], test.control[site]
                row["against_control"] = _figures(
                    _Rule.at(direction.unit, bad, against[0], test_rows[0], against[1]), test.paired
                )
                if site in directions.contrast:
                    contrast = directions.contrast[site]
                    row["contrast"] = _figures(
                        _Rule.at(contrast.unit, bad, against[0], test_rows[0], against[1]), test.paired
                    ) | {"norm": contrast.norm, "cosine": cosine(direction, contrast)}
        rows.append(row)
    return rows


@dataclass(frozen=True)
class _Rule:
    """Held-out projections of both classes, and where the fit split's midpoint cuts them."""

    bad: Floats
    good: Floats
    cut: float

    @staticmethod
    def at(unit: Floats, fit_bad: Rows, fit_good: Rows, test_bad: Rows, test_good: Rows) -> _Rule:
        a, b = float((fit_bad @ unit).mean()), float((fit_good @ unit).mean())
        sign = 1.0 if a >= b else -1.0  # of a direction that was not made of these classes
        return _Rule(sign * (test_bad @ unit), sign * (test_good @ unit), sign * (a + b) / 2)

    @property
    def hits(self) -> tuple[int, int]:
        return int((self.bad > self.cut).sum()), int((self.good <= self.cut).sum())

    @property
    def accuracy(self) -> float:
        return self.hits[0] / len(self.bad) / 2 + self.hits[1] / len(self.good) / 2


def _figures(rule: _Rule, paired: bool) -> dict[str, Any]:
    parts = [rate(rule.hits[0], len(rule.bad)), rate(rule.hits[1], len(rule.good))]
    low, high = (float(np.mean([getattr(part, end) for part in parts])) for end in ("low", "high"))
    accuracy = Interval(rule.accuracy, low, high, len(rule.bad) + len(rule.good))
    effect = cohens_d(rule.bad, rule.good, paired=paired)
    return {"accuracy": asdict(accuracy), "effect_size": asdict(effect) if effect else None}


def cohens_d(bad: Floats, good: Floats, *, paired: bool) -> Interval | None:
    """Cohen's d of projections (rows,): difference of means over the pooled standard deviation (ddof 1).

    `docs/science.md` A.1 step 4. The interval is the jackknife's over messages (over pairs when `paired`). None below
    three rows of a class, or without spread.
    """

    def d(a: Floats, b: Floats) -> Floats:
        na, nb = a.shape[-1], b.shape[-1]
        pooled = ((na - 1) * a.var(-1, ddof=1) + (nb - 1) * b.var(-1, ddof=1)) / (na + nb - 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            value: Floats = (a.mean(-1) - b.mean(-1)) / np.sqrt(pooled)
        return value

    if min(len(bad), len(good)) < 3:
        return None
    less, fewer = _each_left_out(bad), _each_left_out(good)
    left_out = [d(less, fewer)] if paired else [d(less, good[None]), d(bad[None], fewer)]
    value = float(d(bad, good))
    if not np.isfinite([value, *np.concatenate(left_out)]).all():
        return None
    return jackknife_interval(value, *left_out, n=len(bad) + len(good))


def _each_left_out(values: Floats) -> Floats:
    """(rows,) as (rows, rows - 1): row i lacks value i."""
    n = len(values)
    rest: Floats = np.broadcast_to(values, (n, n))[~np.eye(n, dtype=np.bool_)].reshape(n, n - 1)
    return rest


def _chance(
    bad: Rows, good: Rows, test_bad: Rows, test_good: Rows, draws: int, seed: int, own: float, paired: bool
) -> dict[str, Any]:
    """Accuracies where the labels of both splits are shuffled, and the rank of the figure among them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        fit = shuffled(bad, good, rng, paired=paired)
        found.append(_accuracy(*fit, *shuffled(test_bad, test_good, rng, paired=paired)))
    return _spread(found) | {"p": rank_among(own, found).p}


def _shuffled_fit(
    bad: Rows, good: Rows, test_bad: Rows, test_good: Rows, draws: int, seed: int, paired: bool
) -> list[float]:
    """Accuracies, by the true test labels, of directions of shuffled fit labels."""
    rng = np.random.default_rng(seed)
    return [_accuracy(*shuffled(bad, good, rng, paired=paired), test_bad, test_good) for _ in range(draws)]


def _accuracy(bad: Floats, good: Floats, test_bad: Rows | Floats, test_good: Rows | Floats) -> float:
    """Balanced accuracy of a difference in means, cut at its midpoint."""
    vector = bad.mean(0) - good.mean(0)
    cut = (bad.mean(0) + good.mean(0)).dot(vector) / 2
    return float(((test_bad @ vector > cut).mean() + (test_good @ vector <= cut).mean()) / 2)


def _spread(accuracies: list[float]) -> dict[str, Any]:
    """Mean, and the accuracy of the one farthest from chance, either way."""
    return {
        "n": len(accuracies),
        "mean": float(np.mean(accuracies)),
        "farthest": max(map(from_chance, accuracies)),
    }


def _between(bad: dict[Site, Rows], good: dict[Site, Rows]) -> tuple[dict[Site, Direction], list[str]]:
    activations = {site: np.concatenate([bad[site], good[site]]) for site in bad}
    n_bad, n_good = (len(next(iter(side.values()))) for side in (bad, good))
    return directions_at(activations, np.arange(n_bad + n_good) < n_bad)


def _plain(direction: Direction) -> dict[str, Any]:
    return {
        "site": [direction.site.kind, direction.site.layer, direction.site.head],
        "vector": direction.vector.tolist(),
        "centre": direction.centre.tolist(),
        "sigma": direction.sigma,
    }


def _direction(plain: dict[str, Any]) -> Direction:
    return Direction(Site(*plain["site"]), np.array(plain["vector"]), np.array(plain["centre"]), plain["sigma"])
