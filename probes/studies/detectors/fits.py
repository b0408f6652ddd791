"""Readings from the activations of the fit rows, which are read once: one a site, or one over several sites.

Contract: a `Spec` says where is read, how a message is summed up and how the directions are found:
- `mean`: difference in means (arXiv 2606.20225); over several sites the mean of their values
- `rows`: the same whitened with the covariance of the fit rows about their class means (Fisher's discriminant)
- `tokens`: the same whitened with the covariance of single tokens of aligned messages, as the shipped probe is
- `logistic`: logistic regression (`probes.logistic`), over several sites in one regression
`Fits.reader` makes it of a part of the rows, and of other labels (a null). Values are in class gaps of that part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site
from probes.directions import Direction, Floats, difference_in_means, pooled_by_aggregation, random_like
from probes.hashing import sha256_lines
from probes.logistic import logistic_directions
from probes.model.load import ChatModel
from probes.progress import Progress
from probes.rows import Row, labels_of
from probes.scoring import Reader
from probes.studies.detectors.kept import KeptArrays
from probes.whitening import token_covariance, whitened

Finding = Literal["mean", "rows", "tokens", "logistic"]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Spec:
    """One reading of a method. `parameter` is the shrinkage of `rows` and `tokens`, the penalty of `logistic`."""

    method: str
    finding: Finding
    sites: tuple[Site, ...]
    aggregation: Aggregation
    parameter: float = 0.0

    def __str__(self) -> str:
        sites = ", ".join(map(str, self.sites)) if len(self.sites) <= 5 else f"{len(self.sites)} sites"
        name = {"mean": "", "logistic": f", penalty {self.parameter:g}"}
        return f"{sites}, {self.aggregation}{name.get(self.finding, f', shrinkage {self.parameter:g}')}"

    @property
    def pooling(self) -> Aggregation:
        """What of a message the directions are made of."""
        return Aggregation("last" if self.aggregation.kind == "last" else "mean", self.aggregation.span)


class Fits:
    """The fit rows: labels, pooled activations, covariances of tokens."""

    def __init__(self, chat: ChatModel, rows: Sequence[Row], kept: KeptArrays, progress: Progress) -> None:
        self.rows, self.truth = list(rows), labels_of(rows)
        self.unconverged: set[Spec] = set()
        self._chat, self._kept, self._progress = chat, kept, progress
        self._activations: dict[Aggregation, dict[Site, NDArray[np.float32]]] = {}
        self._covariances: dict[tuple[str, bytes], dict[Site, Floats]] = {}

    def read(self, wanted: Mapping[Aggregation, Sequence[Site]]) -> None:
        """Read the rows at the sites of each pooling, in one pass, or take what is kept."""

        def read() -> dict[str, NDArray[np.float32]]:
            report = every_hundred(self._progress, "fit rows read", len(self.rows))
            encoded = [row.encoded for row in self.rows]
            found = pooled_by_aggregation(self._chat, encoded, wanted, report)
            return {f"{pooling} {site}": x for pooling, sites in found.items() for site, x in sites.items()}

        sites = [f"{pooling} {list(map(str, sites))}" for pooling, sites in wanted.items()]
        stored = self._kept.get_or(f"activations {sites} {_hash_of(self.rows)}", read)
        for pooling, own in wanted.items():
            self._activations[pooling] = {site: stored[f"{pooling} {site}"] for site in own}

    def read_tokens(self, aggregation: Aggregation, sites: Sequence[Site], members: Mask) -> None:
        """Covariance of the single tokens of the aligned rows among `members`, at the sites."""
        aligned = [row for row, inside in zip(self.rows, members, strict=True) if inside and not row.misaligned]

        def read() -> dict[str, Floats]:
            self._progress(f"reading the tokens of {len(aligned)} aligned rows at {len(sites)} sites")
            found = token_covariance(self._chat, [row.encoded for row in aligned], sites, aggregation.span)
            return {str(site): matrix for site, matrix in found.items()}

        stored = self._kept.get_or(f"covariance {aggregation.span} {list(map(str, sites))} {_hash_of(aligned)}", read)
        known = self._covariances.setdefault((aggregation.span, members.tobytes()), {})
        known.update({site: stored[str(site)] for site in sites})

    def activations(self, pooling: Aggregation, site: Site) -> NDArray[np.float32]:
        """What was read of all rows at a site, (rows, width)."""
        return self._activations[pooling][site]

    def reader(self, spec: Spec, members: Mask, labels: Mask | None = None) -> Reader:
        """The reading of `spec` fitted on the rows of `members`; `labels` (of all rows) stand for the truth."""
        wrong = (self.truth if labels is None else labels)[members]
        values = {site: self._activations[spec.pooling][site][members] for site in spec.sites}
        if spec.finding == "logistic":
            found = logistic_directions(values, wrong, spec.parameter)
            if labels is None and not found.converged:
                self.unconverged.add(spec)
            return Reader(found.directions, spec.aggregation)
        directions = [difference_in_means(site, x[wrong], x[~wrong]) for site, x in values.items()]
        if spec.finding == "rows":
            directions = [
                whitened(direction, _about_means(values[direction.site], wrong), spec.parameter)
                for direction in directions
            ]
        elif spec.finding == "tokens":
            known = self._covariances[spec.aggregation.span, members.tobytes()]
            directions = [whitened(direction, known[direction.site], spec.parameter) for direction in directions]
        return Reader(tuple(directions), spec.aggregation)


def random_reader(reader: Reader, seed: int) -> Reader:
    """The same reading along random directions of the same norms (a control)."""
    directions: list[Direction] = [random_like(d, seed + 1000 * i) for i, d in enumerate(reader.directions)]
    return Reader(tuple(directions), reader.aggregation)


def every_hundred(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    """Counts what is done, and says so every hundred."""
    done = 0

    def report(more: int) -> None:
        nonlocal done
        before, done = done, done + more
        if done // 100 > before // 100 or done == total:
            progress(f"{what}: {done} of {total}")

    return report


def _about_means(rows: NDArray[np.float32], wrong: Mask) -> Floats:
    """Covariance (width, width) of rows about the means of their classes."""
    x = rows.astype(np.float64)
    x[wrong] -= x[wrong].mean(0)
    x[~wrong] -= x[~wrong].mean(0)
    covariance: Floats = x.T @ x / len(x)
    return covariance


def _hash_of(rows: Sequence[Row]) -> str:
    return sha256_lines(str(row.encoded.ids) for row in rows)
