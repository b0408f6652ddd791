"""Ridge maps between two models' activations, and directions sent through them.

With centred anchors X (n, d_s) of the donor and Y (n, d_t) of the receiver, paired row by row,

    W = (X'X + lambda I)^-1 X'Y,        v mapped = v W

(the standard ridge map; `docs/science.md` A.1 step 8; the source, arXiv 2606.20225, gives no lambda, anchors or
rescaling: these are ours). Lambda is chosen by cross-validation on a grid in units of the mean eigenvalue of X'X, so
that the grid means the same in every model. A mapped direction is rescaled to the norm of the receiver's own.
R2 is 1 - SSE / SST on held-out anchors, SST about the mean of the anchors that were fitted; all in float64.

Anchors are texts and positions are named, so tokenizers may differ: what is paired is "the last prompt token of text
i" in both models. Does not know: maps that are not linear.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.directions import Direction, Floats, random_like
from probes.errors import DataError, DirectionError

# Multiples of the mean eigenvalue of X'X.
PENALTIES: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-12, 5))
HELD_OUT, FOLDS = 0.25, 5


@dataclass(frozen=True)
class RidgeMap:
    """A fitted map. `weights` is (d_s, d_t); `penalty` is the chosen multiple of the mean eigenvalue of X'X.

    `at_edge`: the chosen penalty is the grid's first or last. `r2` is on held-out anchors, `r2_median` the median over
    the receiver's dimensions (a few large ones can carry `r2` alone).
    """

    weights: Floats
    source_centre: Floats
    target_centre: Floats
    penalty: float
    at_edge: bool
    r2: float
    r2_median: float
    fitted: int
    held_out: int

    def predict(self, source: NDArray[np.floating]) -> Floats:
        """The receiver's activations as this map sees them from the donor's (rows, d_s)."""
        mapped: Floats = (source.astype(np.float64) - self.source_centre) @ self.weights + self.target_centre
        return mapped


def fit_map(
    source: NDArray[np.floating],
    target: NDArray[np.floating],
    *,
    groups: NDArray[np.int_] | None = None,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> RidgeMap:
    """A map from paired anchors, row i of `source` with row i of `target`.

    Rows of one group (one text under two conditions, say) are on one side of every split; by default each row is its
    own. A quarter of the groups is held out for R2. Raises DataError for anchors that cannot be paired, are not
    finite, or are fewer (of those fitted) than the donor's width.
    """
    if len(source) != len(target):
        raise DataError(f"anchors: {len(source)} at the donor and {len(target)} at the receiver; rows are pairs")
    own = np.arange(len(source)) if groups is None else np.asarray(groups)
    split = np.random.default_rng(seed).permutation
    names = split(np.unique(own))
    held_out = np.isin(own, names[: _held_out(len(names))])
    X, Y = check_anchors(source, own, "the donor"), _finite(target, "the receiver")
    X_fit, Y_fit = X[~held_out], Y[~held_out]
    folds = np.array_split(split(np.unique(own[~held_out])), FOLDS)
    best = int(np.argmin(sum(_errors(X_fit, Y_fit, np.isin(own[~held_out], fold), penalties) for fold in folds)))
    ridge = _ridge(X_fit, Y_fit)
    weights = ridge.vectors @ ridge.turned_weights(penalties[best])
    residual = Y[held_out] - ridge.y_mean - (X[held_out] - ridge.x_mean) @ weights
    sse, sst = (residual**2).sum(0), ((Y[held_out] - ridge.y_mean) ** 2).sum(0)
    if sst.sum() == 0:
        raise DataError("anchors: all alike at the receiver; there is nothing to map to")
    return RidgeMap(
        weights=weights,
        source_centre=ridge.x_mean,
        target_centre=ridge.y_mean,
        penalty=penalties[best],
        at_edge=best in (0, len(penalties) - 1),
        r2=1 - float(sse.sum() / sst.sum()),
        r2_median=float(np.median(1 - sse[sst > 0] / sst[sst > 0])),
        fitted=len(X_fit),
        held_out=int(held_out.sum()),
    )


def shuffled_map(
    source: NDArray[np.floating],
    target: NDArray[np.floating],
    *,
    seed: int,
    groups: NDArray[np.int_] | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> RidgeMap:
    """The same procedure on anchors whose pairs are shuffled (control): what a map knows without knowing the pairs."""
    order = np.random.default_rng(seed).permutation(len(target))
    return fit_map(source, target[order], groups=groups, seed=seed, penalties=penalties)


def mapped_direction(ridge: RidgeMap, donor: Direction, native: Direction) -> Direction:
    """`donor` in the receiver: at the native direction's site, with its norm and its centre.

    Raises DirectionError when the donor's direction has another width than the map, or nothing of it gets through.
    """
    if donor.vector.shape != ridge.source_centre.shape or native.vector.shape != ridge.target_centre.shape:
        raise DirectionError(
            f"map: takes {ridge.weights.shape[0]} dimensions to {ridge.weights.shape[1]}, the directions have "
            f"{donor.vector.shape[0]} and {native.vector.shape[0]}"
        )
    vector = donor.vector @ ridge.weights
    norm = float(np.linalg.norm(vector))
    if norm < 1e-12 * donor.norm:
        raise DirectionError(
            f"direction at {donor.site}: nothing of it gets through the map; do the anchors vary at the receiver?"
        )
    return native.with_vector(vector * (native.norm / norm))


def cosine_null(ridge: RidgeMap, donor: Direction, native: Direction, *, draws: int = 1000, seed: int = 0) -> Floats:
    """Cosines to the native direction of random donor directions sent through the same map, (draws,)."""
    noise = np.random.default_rng(seed).standard_normal((draws, len(donor.vector))) @ ridge.weights
    size: Floats = np.linalg.norm(noise, axis=1)
    return noise @ native.unit / np.where(size > 0, size, 1.0)


def random_source(ridge: RidgeMap, donor: Direction, native: Direction, seed: int) -> Direction:
    """A random donor direction sent through the same map (control)."""
    return mapped_direction(ridge, random_like(donor, seed), native)


def check_anchors(rows: NDArray[np.floating], groups: NDArray[np.int_], name: str) -> Floats:
    """A donor's anchors in float64; DataError when they are not finite or too few for its width."""
    texts, width = len(np.unique(groups)), rows.shape[1]
    fitted = len(rows) * (texts - _held_out(texts)) // max(1, texts)
    if fitted < width:
        needed = next(n for n in itertools.count(1) if len(rows) * (n - _held_out(n)) >= width * max(1, texts))
        raise DataError(
            f"anchors: {fitted} rows to fit a map from the {width} dimensions of {name} ({len(rows) - fitted} more are "
            f"held out); give at least {needed} texts, or the map is decided by its penalty"
        )
    return _finite(rows, name)


def _held_out(texts: int) -> int:
    return round(HELD_OUT * texts)


def _finite(rows: NDArray[np.floating], name: str) -> Floats:
    if not np.isfinite(rows).all():
        raise DataError(f"anchors: the activations of {name} are not finite (float16 overflow?); use float32")
    return rows.astype(np.float64)


@dataclass(frozen=True)
class _Ridge:
    """Centred ridge at every penalty from one eigendecomposition of X'X = V diag(values) V'."""

    values: Floats
    vectors: Floats
    turned: Floats  # V' X' Y
    x_mean: Floats
    y_mean: Floats

    def turned_weights(self, penalty: float) -> Floats:
        """V' W, to be multiplied by V or by turned inputs."""
        weights: Floats = self.turned / (self.values + penalty * self.values.mean())[:, None]
        return weights


def _ridge(X: Floats, Y: Floats) -> _Ridge:
    x_mean, y_mean = X.mean(0), Y.mean(0)
    centred = X - x_mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values = np.clip(values, 0, None)
    if values.sum() <= 1e-18 * float((X**2).sum()):
        raise DataError("anchors: all alike at the donor; there is nothing to map from")
    return _Ridge(values, vectors, vectors.T @ (centred.T @ (Y - y_mean)), x_mean, y_mean)


def _errors(X: Floats, Y: Floats, out: NDArray[np.bool_], penalties: Sequence[float]) -> Floats:
    """Summed squared error of each penalty on the rows that are `out`, fitted on the others."""
    ridge = _ridge(X[~out], Y[~out])
    wanted, turned = Y[out] - ridge.y_mean, (X[out] - ridge.x_mean) @ ridge.vectors
    return np.array([float(((wanted - turned @ ridge.turned_weights(p)) ** 2).sum()) for p in penalties])
