"""Fits a probe on labelled messages, evaluates it on held-out groups and calibrates its threshold.

Contract: rows are split by *group* (`probes.rows`) into fit, select and test. Directions come from `fit`; where a plan
has several candidates, `select` picks one, under attack families where they are given (`probes.candidates`); figures
are reported on `test` alone, through the same scoring path as production, beside their nulls: permuted labels, random
directions of the same norm, an orthogonal one, the same vector at another block, a control direction where one can be
had, and a text-only baseline. The threshold comes from benign traffic, or, where none is given, from the aligned rows
of `select`, and the card says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from probes.calibration import Calibration, Values, calibrate
from probes.candidates import Candidate, Directions, choose
from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded, nothing_of
from probes.capture.sites import Site
from probes.card import MitigationCard, Probe
from probes.directions import Direction, cosine, orthogonal_to, random_like
from probes.engines.transformers import label
from probes.errors import DataError
from probes.evaluation import Evaluation, auroc_value, evaluate, from_chance, rate
from probes.hashing import sha256_lines
from probes.identity import new_probe
from probes.logistic import MOST_STEPS
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.reading import read_values
from probes.rows import Benign, Row, counts_of, labels_of, split_rows, values_of
from probes.scoring import Reader
from probes.seen import RowSet, SeenRows, row_set

Control = Callable[[Site, Sequence[Encoded]], Direction]
# Misaligned select rows under attack families, by family.
Pushed = Callable[[Sequence[Row]], Mapping[str, Sequence[Row]]]
_PERMUTATIONS = 20
_RANDOM = 10


@dataclass(frozen=True)
class Plan:
    """What to fit: the candidates (every site with every aggregation and shrinkage) and the target false-positive rate.

    A shrinkage of None is the plain difference in means. With `penalties` the directions are logistic regressions, of
    each of them. `at_most`: the target bounds the interval, not the rate.
    """

    name: str
    description: str
    sites: tuple[Site, ...]
    aggregation: Aggregation
    target_fpr: float = 0.01
    seed: int = 0
    others: tuple[Aggregation, ...] = ()
    shrinkages: tuple[float | None, ...] = (None,)
    penalties: tuple[float | None, ...] = (None,)
    at_most: bool = False

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        aggregations = dict.fromkeys((self.aggregation, *self.others))
        return tuple(Candidate(*each) for each in product(self.sites, aggregations, self.shrinkages, self.penalties))


def fit(
    chat: ChatModel,
    rows: Sequence[Row],
    plan: Plan,
    *,
    benign: Benign | None = None,
    choosing: Benign | None = None,
    pushed: Pushed | None = None,
    control: Control | None = None,
    progress: Progress = silent,
) -> Probe:
    """Fit, choose, evaluate and calibrate.

    `benign` sets the threshold; `choosing` are other benign messages, which only choose, at the threshold that they
    give, between candidates under `pushed`. `control(site, messages)` gives a matched content control's direction.
    """
    rows = [row for row in rows if _has_spans(row.encoded, plan)]
    benign, choosing = _with_spans(benign, plan, progress), _with_spans(choosing, plan, progress)
    splits = split_rows(rows, plan.seed)
    progress(f"reading {len(splits['fit'])} fit rows at {len(plan.sites)} sites")
    directions = Directions(chat, splits["fit"], plan.candidates)
    found = directions.by_candidate
    for candidate in directions.unconverged:
        progress(f"{candidate}: not converged after {MOST_STEPS} steps")
    harmful = [row for row in splits["select"] if row.misaligned]
    families = pushed(harmful) if pushed is not None and len(found) > 1 else {}
    quiet = None
    if families and choosing is not None:
        progress(f"reading {len(choosing.texts)} benign messages for choosing")
        quiet = _benign_values(chat, choosing, [Reader((d,), c.aggregation) for c, d in found.items()])
    chosen, choice = choose(chat, found, splits["select"], families, quiet, plan.target_fpr, progress)
    direction = found[chosen]
    progress(f"chose {chosen}; evaluating on {len(splits['test'])} test rows")
    nulls = _null_directions(chosen, directions, plan)
    if control is not None:
        messages = [r.encoded for r in splits["fit"] if r.adapter == "active"]
        nulls["control.0"] = control(chosen.site, messages)
    names = list(nulls)
    readers = [Reader((d,), chosen.aggregation) for d in (direction, *nulls.values())]
    test = values_of(chat, splits["test"], readers)
    labels = labels_of(splits["test"])
    if benign is None:
        aligned = [r for r in splits["select"] if not r.misaligned]
        benign = Benign([r.encoded for r in aligned], [r.text for r in aligned], "aligned rows of the select split")
        traffic = values_of(chat, aligned, readers[:1])
    else:
        progress(f"calibrating on {len(benign.texts)} benign messages")
        traffic = _benign_values(chat, benign, readers[:1])
    calibration = calibrate(
        traffic.values[:, 0],
        benign.texts,
        plan.target_fpr,
        benign.name,
        tokens=traffic.tokens[:, 0].tolist(),
        at_most=plan.at_most,
    )
    scores = calibration.scores(test.values[:, 0], test.tokens[:, 0].tolist())
    report = {
        "split": {name: counts_of(members) for name, members in splits.items()},
        "test": evaluation_dict(evaluate(scores, labels, groups=[r.group for r in splits["test"]])),
        "at_threshold": at_threshold(scores, labels, calibration),
        "nulls": _null_report(names, test.values[:, 1:], labels, direction, nulls),
        "text_only": text_baseline(splits["fit"], splits["test"]),
        "site_choice": choice,
        "sites_without_direction": directions.without,
        "data_sha256": _data_hash(rows),
        "top_dimension_share": float((direction.unit**2).max()),
    }
    if chosen.penalty is not None:
        report["converged"] = chosen not in directions.unconverged
    probe = new_probe(
        chat,
        readers[0],
        name=plan.name,
        description=plan.description,
        calibration=calibration,
        evaluation=report,
        method=None if chosen.shrinkage is None and chosen.penalty is None else chosen.method,
        seen=SeenRows(
            fit=row_set(r.text for r in splits["fit"]),
            select=row_set([*(r.text for r in splits["select"]), *(choosing.texts if choosing is not None else ())]),
            calibration=row_set(benign.texts),
        ),
    )
    return probe if chosen.penalty is None else _steering_by(probe, directions.mean_difference(chosen))


def _steering_by(probe: Probe, direction: Direction) -> Probe:
    """The probe with a recipe that removes another direction than it reads. What it does to replies is for a sweep."""
    recipe = MitigationCard(
        site=str(direction.site),
        mode="ablate",
        strength=1.0,
        positions="all",
        sigma=direction.sigma,
        cosine_to_detector=cosine(probe.directions[0], direction),
        measured={"verdict": "not measured: awry sweep --attach measures a recipe and puts it here"},
    )
    return Probe(probe.card.model_copy(update={"mitigation": recipe}), probe.directions, (direction,))


def _has_spans(encoded: Encoded, plan: Plan) -> bool:
    """Whether a message has text of every span of turns that a candidate reads."""
    spans = {c.aggregation.span for c in plan.candidates} - {"prompt", "response"}
    return all(nothing_of(encoded, span) is None for span in spans)


def _with_spans(benign: Benign | None, plan: Plan, progress: Progress) -> Benign | None:
    """The benign messages that all candidates can read."""
    if benign is None:
        return None
    kept = [i for i, encoded in enumerate(benign.encoded) if _has_spans(encoded, plan)]
    if len(kept) == len(benign.encoded):
        return benign
    progress(f"{benign.name}: {len(benign.encoded) - len(kept)} messages have nothing to read, and are left out")
    talks = benign.conversations
    return Benign(
        [benign.encoded[i] for i in kept],
        [benign.texts[i] for i in kept],
        benign.name,
        None if talks is None else [talks[i] for i in kept],
    )


def _benign_values(chat: ChatModel, benign: Benign, readers: Sequence[Reader]) -> Values:
    if benign.conversations is not None:
        return read_values(chat, readers, benign.conversations)
    rows = [Row(encoded, "", False, "") for encoded in benign.encoded]
    return values_of(chat, rows, readers)


def recalibrated(probe: Probe, calibration: Calibration, rows: RowSet | None = None) -> Probe:
    """The same probe with a new threshold: a new version of the card. `rows` are those that it was set on, read by
    transformers; None where it was set on stored scores, whose texts are not at hand."""
    seen = (probe.card.seen or SeenRows()).model_copy(update={"calibration": rows})
    changed = {"calibration": calibration, "version": probe.card.version + 1, "seen": seen}
    if rows is not None:  # stored scores are those of whatever engine the workers had
        changed["engine"] = label()
    card = probe.card.model_copy(update=changed)
    return Probe(card, probe.directions, probe.mitigators)


def _null_directions(chosen: Candidate, directions: Directions, plan: Plan) -> dict[str, Direction]:
    direction, truth = directions.by_candidate[chosen], directions.truth
    rng = np.random.default_rng(plan.seed)
    nulls: dict[str, Direction] = {}
    for i in range(_PERMUTATIONS):
        nulls[f"permuted.{i}"] = directions.with_labels(chosen, rng.permutation(truth))
    for i in range(_RANDOM):
        nulls[f"random.{i}"] = random_like(direction, plan.seed + i)
    nulls["orthogonal.0"] = orthogonal_to(direction, plan.seed)
    wrong = _wrong_site(chosen, directions)
    if wrong is not None:
        there = directions.by_candidate[wrong]
        nulls["same_vector_elsewhere.0"] = replace(there, vector=direction.vector * (there.norm / direction.norm))
    return nulls


def _wrong_site(chosen: Candidate, directions: Directions) -> Candidate | None:
    """The candidate that reads the same way, at the site of the same width that is farthest from the one chosen."""
    site = chosen.site
    same = [
        c
        for c in directions.by_candidate
        if c == replace(chosen, site=c.site) and c.site.kind == "residual" and c.site != site
    ]
    if site.kind == "head" or not same:
        return None
    at = site.layer if site.layer >= 0 else 10**6
    return max(same, key=lambda c: abs(c.site.layer - at))


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
    """AUROC of `text_scores` on the same splits: what the text alone tells."""
    scores = text_scores(fit_rows, [r.text for r in test_rows])
    return evaluation_dict(evaluate(scores, labels_of(test_rows), groups=[r.group for r in test_rows]))


def text_scores(fit_rows: Sequence[Row], texts: Sequence[str]) -> NDArray[np.float64]:
    """Scores of texts by TF-IDF (words and pairs) with logistic regression, fitted on the rows' texts."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000, C=10)
    )
    try:
        model.fit([r.text for r in fit_rows], labels_of(fit_rows))
    except ValueError as error:
        raise DataError(f"text baseline: {str(error).splitlines()[0]}; are the messages empty?") from None
    scores: NDArray[np.float64] = model.decision_function(list(texts))
    return scores


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
