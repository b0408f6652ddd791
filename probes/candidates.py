"""What a probe may read: the candidates of a fit, their directions, and the choice among them on the select split.

A candidate is a site, an aggregation and a way of finding the direction: difference in means, the same whitened with a
shrinkage (`probes.whitening`), or logistic regression with a penalty (`probes.logistic`). Directions are fitted on the
span that they are read with: on the last token of it for `last`, on the mean of its tokens for all others.

Contract: `Directions` reads the fit rows once a pooling; `choose` picks one candidate by the select rows. Where those
rows were also transformed by attack families, it is the candidate whose true-positive rate, averaged over the plain
rows and the families, is highest, at the threshold of benign messages that are there for choosing alone; else the one
of the highest AUROC. Rows of the test split, and messages that calibrate, choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.calibration import Values, calibrate
from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site
from probes.conditions import Activations, activations_by_condition
from probes.directions import Direction, difference_in_means, directions_at
from probes.errors import DataError
from probes.evaluation import auroc_value
from probes.logistic import LogisticFit, logistic_directions
from probes.model.load import ChatModel
from probes.progress import Progress
from probes.rows import Row, by_adapter, condition, labels_of, values_of
from probes.scoring import Reader
from probes.whitening import Floats, token_covariance, whitened


@dataclass(frozen=True)
class Candidate:
    """Where to read, how to sum up, and how the direction is found: with a `penalty` by logistic regression, else by
    difference in means, whitened with `shrinkage` (None: not at all). DataError for both."""

    site: Site
    aggregation: Aggregation
    shrinkage: float | None = None
    penalty: float | None = None

    def __post_init__(self) -> None:
        if self.shrinkage is not None and self.penalty is not None:
            raise DataError("method: whitening goes with a difference in means, a penalty with logistic regression")

    def __str__(self) -> str:
        return f"{self.site}, {self.aggregation}, {self.method}"

    @property
    def method(self) -> str:
        """How the direction is found, for a card."""
        if self.penalty is not None:
            return f"logistic regression (L2 penalty {self.penalty:g})"
        if self.shrinkage is None:
            return "difference in means"
        return f"difference in means, whitened (shrinkage {self.shrinkage:g})"

    @property
    def pooling(self) -> Aggregation:
        """What of a message the direction is made of."""
        return Aggregation("last" if self.aggregation.kind == "last" else "mean", self.aggregation.span)


class Directions:
    """Directions of candidates between the classes of fit rows, and with other labels (a null)."""

    def __init__(self, chat: ChatModel, rows: Sequence[Row], candidates: Sequence[Candidate]) -> None:
        self._truth = labels_of(rows)
        sites = tuple(dict.fromkeys(c.site for c in candidates))
        self._activations: dict[Aggregation, Activations] = {
            pooling: activations_by_condition([(condition(chat, r.adapter), r.encoded) for r in rows], sites, pooling)
            for pooling in dict.fromkeys(c.pooling for c in candidates)
        }
        self._covariances: dict[tuple[str, Site], Floats] = {}
        spans = dict.fromkeys(c.aggregation.span for c in candidates if c.shrinkage is not None)
        aligned = [row for row in rows if not row.misaligned]
        for span in spans:
            # Of the condition that most aligned rows are read under.
            adapter, indices = max(by_adapter(aligned), key=lambda part: len(part[1]))
            with condition(chat, adapter).applied():
                found = token_covariance(chat, [aligned[i].encoded for i in indices], sites, span)
            self._covariances |= {(span, site): matrix for site, matrix in found.items()}
        self.by_candidate: dict[Candidate, Direction] = {}
        self.without: list[str] = []
        # Candidates whose regression stopped before it had converged.
        self.unconverged: list[Candidate] = []
        self._plain: dict[tuple[Aggregation, Site], Direction] = {}
        self._find(candidates)

    def _find(self, candidates: Sequence[Candidate]) -> None:
        for pooling, activations in self._activations.items():
            plain, without = directions_at(activations, self._truth)
            self.without += [name for name in without if name not in self.without]
            self._plain |= {(pooling, site): direction for site, direction in plain.items()}
            for candidate in candidates:
                if candidate.pooling != pooling or candidate.site not in plain:
                    continue
                if candidate.penalty is None:
                    self.by_candidate[candidate] = self._whitened(candidate, plain[candidate.site])
                    continue
                fitted = self._logistic(candidate, candidate.penalty, self._truth)
                self.by_candidate[candidate] = fitted.directions[0]
                if not fitted.converged:
                    self.unconverged.append(candidate)

    def mean_difference(self, candidate: Candidate) -> Direction:
        """The plain difference in means where the candidate reads: what steers, however it reads."""
        return self._plain[candidate.pooling, candidate.site]

    def _logistic(self, candidate: Candidate, penalty: float, misaligned: NDArray[np.bool_]) -> LogisticFit:
        rows = self._activations[candidate.pooling][candidate.site]
        return logistic_directions({candidate.site: rows}, misaligned, penalty)

    def _whitened(self, candidate: Candidate, direction: Direction) -> Direction:
        if candidate.shrinkage is None:
            return direction
        covariance = self._covariances[candidate.aggregation.span, candidate.site]
        return whitened(direction, covariance, candidate.shrinkage)

    def with_labels(self, candidate: Candidate, misaligned: NDArray[np.bool_]) -> Direction:
        """The candidate's direction as other labels would make it."""
        if candidate.penalty is not None:
            return self._logistic(candidate, candidate.penalty, misaligned).directions[0]
        rows = self._activations[candidate.pooling][candidate.site]
        direction = difference_in_means(candidate.site, rows[misaligned], rows[~misaligned])
        return self._whitened(candidate, direction)

    @property
    def truth(self) -> NDArray[np.bool_]:
        return self._truth


def choose(
    chat: ChatModel,
    directions: Mapping[Candidate, Direction],
    rows: Sequence[Row],
    pushed: Mapping[str, Sequence[Row]],
    benign: Values | None,
    target_fpr: float,
    progress: Progress,
) -> tuple[Candidate, dict[str, Any]]:
    """The candidate to keep, and what the card says of the choice.

    `pushed` are misaligned select rows by attack family; `benign` the values of the benign messages that may choose,
    with a column a candidate. DataError where families are given without them.
    """
    if len(directions) == 1:
        return next(iter(directions)), {"by": "given"}
    candidates = list(directions)
    readers = [Reader((directions[c],), c.aggregation) for c in candidates]
    progress(f"choosing among {len(candidates)} candidates on {len(rows)} select rows")
    plain, labels = values_of(chat, rows, readers), labels_of(rows)
    aurocs = [auroc_value(plain.values[:, i], labels) for i in range(len(candidates))]
    if not pushed:
        # Of equal ones the shallower: its forward pass ends earlier.
        best = max(range(len(candidates)), key=lambda i: (round(aurocs[i], 3), -_depth(candidates[i])))
        of_sites = {
            str(c.site) if _by_site(candidates) else str(c): round(a, 4)
            for c, a in zip(candidates, aurocs, strict=True)
        }
        return candidates[best], {"by": "AUROC on the select split", "auroc": of_sites}
    if benign is None:
        raise DataError("choosing: attack families choose at a threshold; give benign messages for choosing as well")
    groups = {"plain": Values(plain.values[labels], plain.tokens[labels])}
    for family, members in pushed.items():
        progress(f"choosing under {family}")
        groups[family] = values_of(chat, members, readers)
    held = np.empty((len(candidates), len(groups)))
    for i in range(len(candidates)):
        texts = [""] * len(benign.values)
        at = calibrate(benign.values[:, i], texts, target_fpr, "choosing", tokens=benign.tokens[:, i].tolist())
        for g, group in enumerate(groups.values()):
            held[i, g] = (at.scores(group.values[:, i], group.tokens[:, i].tolist()) > at.threshold).mean()
    means = held.mean(1)
    best = max(range(len(candidates)), key=lambda i: (round(float(means[i]), 3), -_depth(candidates[i])))
    order = np.argsort(-means)[:10]
    return candidates[best], {
        "by": f"TPR at {target_fpr:g} FPR on the select split, the mean of plain and {len(pushed)} attack families",
        "families": {name: round(float(held[best, g]), 4) for g, name in enumerate(groups)},
        "best": {str(candidates[i]): round(float(means[i]), 4) for i in order},
        "benign": len(benign.values),
    }


def _by_site(candidates: Sequence[Candidate]) -> bool:
    return len({c.site for c in candidates}) == len(candidates)


def _depth(candidate: Candidate) -> int:
    return candidate.site.layer if candidate.site.layer >= 0 else 10**6
