"""Fits a probe on labelled messages, evaluates it on held-out groups and calibrates its threshold.

Contract: rows are split by *group* (a pair never straddles splits) into fit, select and test. Directions come from
`fit`; where several sites are given, `select` picks one; figures are reported on `test` alone, through the same
scoring path as production, beside their nulls: permuted labels, random directions of the same norm, an orthogonal
one, the wrong layer, a control direction where one can be had, and a text-only baseline. The threshold comes from
benign traffic, or, where none is given, from the aligned rows of `select`, and the card says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from probes.calibration import Calibration, calibrate
from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded
from probes.capture.sites import Site
from probes.card import Probe
from probes.conditions import Activations, Condition, activations_by_condition
from probes.directions import (
    Direction,
    cosine,
    difference_in_means,
    directions_at,
    orthogonal_to,
    random_like,
)
from probes.errors import DataError
from probes.evaluation import Evaluation, auroc_value, evaluate, from_chance, rate
from probes.hashing import sha256_lines
from probes.identity import new_probe
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.scoring import Reader, score_all
from probes.splits import SPLITS, split_of

AdapterState = Literal["active", "base"]
Control = Callable[[Site, Sequence[Encoded]], Direction]
_PERMUTATIONS = 20
_RANDOM = 10


@dataclass(frozen=True)
class Row:
    """One labelled message. `adapter`: read with the adapter in use, or under the plain base weights."""

    encoded: Encoded
    text: str
    misaligned: bool
    group: str
    adapter: AdapterState = "active"


@dataclass(frozen=True)
class Plan:
    """What to fit: the candidate sites, the aggregation and the target false-positive rate."""

    name: str
    description: str
    sites: tuple[Site, ...]
    aggregation: Aggregation
    target_fpr: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Benign:
    """Benign traffic for the threshold."""

    encoded: Sequence[Encoded]
    texts: Sequence[str]
    name: str


def split_rows(rows: Sequence[Row], seed: int = 0) -> dict[str, list[Row]]:
    """fit 50 %, select 20 %, test 30 %, by a hash of each row's group."""
    splits: dict[str, list[Row]] = {name: [] for name, _ in SPLITS}
    for row in rows:
        splits[split_of(row.group, seed)].append(row)
    for name, members in splits.items():
        bad = sum(r.misaligned for r in members)
        if bad < 5 or len(members) - bad < 5:
            raise DataError(
                f"labels: the {name} split has {bad} misaligned and {len(members) - bad} aligned rows; at least 5 of "
                "each are needed in every split (fit 50 %, select 20 %, test 30 %): give more rows"
            )
    return splits


def fit(
    chat: ChatModel,
    rows: Sequence[Row],
    plan: Plan,
    *,
    benign: Benign | None = None,
    control: Control | None = None,
    progress: Progress = silent,
) -> Probe:
    """Fit, choose, evaluate and calibrate; `control(site, messages)` gives a matched content control's direction."""
    splits = split_rows(rows, plan.seed)
    progress(f"reading {len(splits['fit'])} fit rows at {len(plan.sites)} sites")
    activations = _activations(chat, splits["fit"], plan)
    truth = _labels(splits["fit"])
    candidates, skipped = directions_at(activations, truth)
    chosen, selection = _choose(chat, candidates, splits["select"], plan, progress)
    direction = candidates[chosen]
    progress(f"chose {chosen}; evaluating on {len(splits['test'])} test rows")
    nulls = _null_directions(direction, activations[chosen], truth, candidates, plan)
    if control is not None:
        messages = [r.encoded for r in splits["fit"] if r.adapter == "active"]
        nulls["control.0"] = control(chosen, messages)
    names = list(nulls)
    readers = [Reader((d,), plan.aggregation) for d in (direction, *nulls.values())]
    scores = _scores(chat, splits["test"], readers)
    labels = _labels(splits["test"])
    calibration_scores: NDArray[np.floating]
    if benign is None:
        aligned = [r for r in splits["select"] if not r.misaligned]
        benign = Benign([r.encoded for r in aligned], [r.text for r in aligned], "aligned rows of the select split")
        calibration_scores = _scores(chat, aligned, readers[:1])[:, 0]
    else:
        calibration_scores = score_all(chat, benign.encoded, readers[:1])[:, 0]
    progress(f"calibrating on {len(benign.texts)} benign messages")
    calibration = calibrate(calibration_scores, benign.texts, plan.target_fpr, benign.name)
    report = {
        "split": {name: _counts(members) for name, members in splits.items()},
        "test": evaluation_dict(evaluate(scores[:, 0], labels)),
        "at_threshold": at_threshold(scores[:, 0], labels, calibration),
        "nulls": _null_report(names, scores[:, 1:], labels, direction, nulls),
        "text_only": text_baseline(splits["fit"], splits["test"]),
        "site_choice": selection,
        "sites_without_direction": skipped,
        "data_sha256": _data_hash(rows),
        "top_dimension_share": float((direction.unit**2).max()),
    }
    return new_probe(
        chat, readers[0], name=plan.name, description=plan.description, calibration=calibration, evaluation=report
    )


def recalibrated(probe: Probe, calibration: Calibration) -> Probe:
    """The same probe with a new threshold: a new version of the card."""
    card = probe.card.model_copy(update={"calibration": calibration, "version": probe.card.version + 1})
    return Probe(card, probe.directions, probe.mitigators)


def own_benign(rows: Sequence[Row], seed: int, name: str) -> Benign:
    """The aligned rows of the fit and select splits, where no other benign messages are at hand."""
    splits = split_rows(rows, seed)
    aligned = [r for part in ("fit", "select") for r in splits[part] if not r.misaligned]
    return Benign([r.encoded for r in aligned], [r.text for r in aligned], name)


def _condition(chat: ChatModel, adapter: AdapterState) -> Condition:
    return Condition(chat, None if adapter == "base" else chat.active)


def _by_adapter(rows: Sequence[Row]) -> list[tuple[AdapterState, list[int]]]:
    both: tuple[AdapterState, ...] = ("active", "base")
    groups = [(adapter, [i for i, r in enumerate(rows) if r.adapter == adapter]) for adapter in both]
    return [(adapter, indices) for adapter, indices in groups if indices]


def _activations(chat: ChatModel, rows: Sequence[Row], plan: Plan) -> Activations:
    return activations_by_condition(
        [(_condition(chat, r.adapter), r.encoded) for r in rows], plan.sites, plan.aggregation
    )


def _scores(chat: ChatModel, rows: Sequence[Row], readers: Sequence[Reader]) -> NDArray[np.float64]:
    out = np.empty((len(rows), len(readers)))
    for adapter, indices in _by_adapter(rows):
        with _condition(chat, adapter).applied():
            out[indices] = score_all(chat, [rows[i].encoded for i in indices], readers)
    return out


def _labels(rows: Sequence[Row]) -> NDArray[np.bool_]:
    return np.array([r.misaligned for r in rows])


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    bad = sum(r.misaligned for r in rows)
    return {"misaligned": bad, "aligned": len(rows) - bad}


def _choose(
    chat: ChatModel, candidates: dict[Site, Direction], rows: Sequence[Row], plan: Plan, progress: Progress
) -> tuple[Site, dict[str, Any]]:
    if len(candidates) == 1:
        return next(iter(candidates)), {"by": "given"}
    progress(f"choosing among {len(candidates)} sites on {len(rows)} select rows")
    sites = list(candidates)
    scores = _scores(chat, rows, [Reader((candidates[s],), plan.aggregation) for s in sites])
    labels = _labels(rows)
    aurocs = {s: auroc_value(scores[:, i], labels) for i, s in enumerate(sites)}
    # Of equal sites the shallower one: its forward pass ends earlier.
    best = max(sites, key=lambda s: (round(aurocs[s], 3), -s.layer if s.layer >= 0 else -(10**6)))
    return best, {"by": "AUROC on the select split", "auroc": {str(s): round(v, 4) for s, v in aurocs.items()}}


def _null_directions(
    direction: Direction,
    activations: NDArray[np.float32],
    truth: NDArray[np.bool_],
    candidates: dict[Site, Direction],
    plan: Plan,
) -> dict[str, Direction]:
    rng = np.random.default_rng(plan.seed)
    nulls: dict[str, Direction] = {}
    for i in range(_PERMUTATIONS):
        mixed = rng.permutation(truth)
        nulls[f"permuted.{i}"] = difference_in_means(direction.site, activations[mixed], activations[~mixed])
    for i in range(_RANDOM):
        nulls[f"random.{i}"] = random_like(direction, plan.seed + i)
    nulls["orthogonal.0"] = orthogonal_to(direction, plan.seed)
    wrong = _wrong_site(direction.site, candidates)
    if wrong is not None:
        there = candidates[wrong]
        nulls["wrong_layer.0"] = replace(there, vector=direction.vector * (there.norm / direction.norm))
    return nulls


def _wrong_site(site: Site, candidates: dict[Site, Direction]) -> Site | None:
    """The site of the same width that is farthest from the one chosen."""
    same = [s for s in candidates if s.kind == "residual" and s != site]
    if site.kind == "head" or not same:
        return None
    at = site.layer if site.layer >= 0 else 10**6
    return max(same, key=lambda s: abs(s.layer - at))


def _null_report(
    names: Sequence[str],
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    direction: Direction,
    nulls: dict[str, Direction],
) -> dict[str, Any]:
    report: dict[str, Any] = nulls_by_kind(names, scores, labels)
    if "control.0" in nulls:
        report["control"]["cosine"] = round(cosine(direction, nulls["control.0"]), 4)
    else:
        report["control"] = "none given"
    return report


def nulls_by_kind(
    names: Sequence[str], scores: NDArray[np.float64], labels: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    """Figures of nulls for a card; each is named KIND.NUMBER, and its scores are a column (rows, nulls)."""
    groups: dict[str, list[float]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name.partition(".")[0], []).append(auroc_value(scores[:, i], labels))
    return {kind: null_figures(values) for kind, values in groups.items()}


def null_figures(values: Sequence[float]) -> dict[str, Any]:
    """AUROCs of one kind of null: how many, their mean, and the farthest from chance, either way."""
    return {
        "n": len(values),
        "auroc_mean": round(float(np.mean(values)), 4),
        "auroc_most": round(max(map(from_chance, values)), 4),
    }


def text_baseline(fit_rows: Sequence[Row], test_rows: Sequence[Row]) -> dict[str, Any]:
    """AUROC of TF-IDF (words and pairs) with logistic regression on the same splits: what the text alone tells."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000, C=10)
    )
    try:
        model.fit([r.text for r in fit_rows], _labels(fit_rows))
    except ValueError as error:
        raise DataError(f"text baseline: {str(error).splitlines()[0]}; are the messages empty?") from None
    scores = model.decision_function([r.text for r in test_rows])
    return evaluation_dict(evaluate(scores, _labels(test_rows)))


def evaluation_dict(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as plain data for a card."""
    return asdict(evaluation)


def at_threshold(scores: NDArray[np.float64], labels: NDArray[np.bool_], calibration: Calibration) -> dict[str, Any]:
    """What the calibrated threshold does on held-out rows."""
    flagged = scores > calibration.threshold
    return {
        "threshold": calibration.threshold,
        "tpr": asdict(rate(int((flagged & labels).sum()), int(labels.sum()))),
        "fpr": asdict(rate(int((flagged & ~labels).sum()), int((~labels).sum()))),
    }


def _data_hash(rows: Sequence[Row]) -> str:
    return sha256_lines(f"{r.misaligned}|{r.adapter}|{r.text}" for r in rows)
