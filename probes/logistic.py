"""Directions by logistic regression: what tells the classes apart best, where `probes.directions` says where they lie.

A linear probe in the sense of Alain and Bengio (arXiv 1610.01644): logistic regression on the activations of the fit
rows, each dimension standardised, with an L2 penalty. Its weights are the direction, put back into the units of the
activations. Over several sites one regression is fitted on their activations side by side, and each site gets its part.

Contract: `logistic_directions` gives a Direction a site, with the aligned mean as its centre, as a difference in means
has it. Values are in class gaps: their mean over the sites (`probes.scoring.Reader`) is 0 at the aligned mean and 1 at
the misaligned mean of the fit rows. `converged` is False where the optimiser stopped at `MOST_STEPS`. What such a
direction *reads* best need not be what acts in the model: to steer, the difference in means is used.

Units: `penalty` is lambda in  sum of log losses + lambda/2 |w|^2,  with w in standardised dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.capture.sites import Site
from probes.directions import Direction, Floats
from probes.errors import DataError, DirectionError

# What a fit chooses between, on rows that it was not fitted on.
PENALTIES = (10.0, 100.0, 1000.0)
MOST_STEPS = 1000
# Of fewer rows of a class a regression in hundreds of dimensions says nothing.
FEWEST_OF_CLASS = 5


@dataclass(frozen=True)
class LogisticFit:
    """The directions of one regression, a site each, in the order of the sites that were given."""

    directions: tuple[Direction, ...]
    steps: int
    converged: bool


def logistic_directions(
    activations: Mapping[Site, NDArray[np.floating]],
    misaligned: NDArray[np.bool_],
    penalty: float,
    *,
    most_steps: int = MOST_STEPS,
) -> LogisticFit:
    """One regression over the rows (rows, width) of all sites side by side.

    Raises DataError for one class, too few rows or a penalty that is not above 0, DirectionError for activations that
    are not finite or tell nothing.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    _check(misaligned, penalty)
    sites = list(activations)
    parts = [np.asarray(activations[site], dtype=np.float64) for site in sites]
    for site, part in zip(sites, parts, strict=True):
        if not np.isfinite(part).all():
            raise DirectionError(
                f"direction at {site}: activations are not finite (float16 overflow?); load the model in float32"
            )
    rows = np.concatenate(parts, axis=1)
    spread = rows.std(0)
    # A dimension that never changes has no weight, whatever it is divided by.
    spread[spread <= 1e-9 * max(float(np.abs(rows).max()), 1.0)] = np.inf
    model = LogisticRegression(C=1 / penalty, max_iter=most_steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((rows - rows.mean(0)) / spread, misaligned)
    weights: Floats = model.coef_[0] / spread
    centre: Floats = rows[~misaligned].mean(0)
    gap = float((rows[misaligned].mean(0) - centre) @ weights)
    if not gap > 0:
        raise DirectionError(f"direction at {sites[0]}: logistic regression found nothing that tells the classes apart")
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    directions = tuple(
        _direction(site, part, w, mu, gap / len(sites))
        for site, part, w, mu in zip(sites, parts, np.split(weights, ends), np.split(centre, ends), strict=True)
    )
    steps = int(model.n_iter_[0])
    return LogisticFit(directions, steps, steps < most_steps)


def _direction(site: Site, rows: Floats, weights: Floats, centre: Floats, gap: float) -> Direction:
    """Scaled so that a token's value, (h - centre) . v / |v|^2, is (h - centre) . weights / gap."""
    square = float(weights @ weights)
    if square == 0:
        raise DirectionError(f"direction at {site}: the activations there are the same for every row")
    unit = weights / np.sqrt(square)
    return Direction(site, weights * (gap / square), centre, float((rows @ unit).std()))


def _check(misaligned: NDArray[np.bool_], penalty: float) -> None:
    if not 0 < penalty < np.inf:
        raise DataError(f"penalty: {penalty} is not above 0")
    bad = int(misaligned.sum())
    if min(bad, len(misaligned) - bad) < FEWEST_OF_CLASS:
        raise DataError(
            f"logistic regression: {bad} misaligned and {len(misaligned) - bad} aligned rows to fit on; at least "
            f"{FEWEST_OF_CLASS} of each are needed: give more rows, or fit by --method mean-difference"
        )
