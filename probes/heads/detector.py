"""A head-level probe: one difference-in-means direction a head, averaged, with a threshold and a card.

It reads the answer: each head's direction is refitted on the mean over the response's tokens (a closing token, where
the steering directions are read, is not in production's messages). Of the sets of heads offered, the `retest`
questions choose one; figures are of the `heldout` questions, beside permuted labels, random directions, random heads
and a text-only baseline. The threshold comes from benign messages and answers. Scores are in class gaps.

What it does not know: teacher-forced choices are not what the model itself writes; the card's `own_answers` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.binary_choice import BinaryChoice, ChoiceSplits, choices_hash
from probes.calibration import calibrate
from probes.capture.aggregation import Aggregation
from probes.capture.batches import encode
from probes.capture.sites import Site, head_sites
from probes.card import Probe
from probes.directions import difference_in_means, pooled_activations, random_like
from probes.errors import DataError, DirectionError
from probes.evaluation import auroc_value, evaluate
from probes.fitting import at_threshold, evaluation_dict, nulls_by_kind, text_baseline
from probes.identity import new_probe
from probes.model.load import ChatModel, user_message
from probes.rows import Benign, Row
from probes.scoring import Reader, score_all
from probes.seen import SeenRows, row_set

RESPONSE_MEAN = Aggregation("mean", "response")
_PERMUTATIONS = 20
_RANDOM = 10
_RANDOM_HEADS = 5


def choice_rows(chat: ChatModel, rows: Sequence[BinaryChoice]) -> list[Row]:
    """Both choices of every row as answered messages."""
    answered = []
    for row in rows:
        for bad in (False, True):
            text = row.text(misaligned=bad)
            encoded = encode(chat, user_message(row.question), text)
            answered.append(Row(encoded, f"{row.question}\n{text}", bad, row.question))
    return answered


def head_probe(
    chat: ChatModel,
    splits: ChoiceSplits,
    candidates: Mapping[str, Sequence[Site]],
    benign: Benign,
    *,
    name: str,
    description: str,
    target_fpr: float = 0.05,
    seed: int = 0,
    own: Sequence[Row] = (),
) -> Probe:
    """Fit on `search`, choose among `candidates` (name -> heads) on `retest`, report on `heldout`.

    `own` are the model's own answers with labels; with fewer than five of a class they are not reported on.
    """
    fit, choose, test = (choice_rows(chat, part) for part in (splits.search, splits.retest, splits.heldout))
    if min(len(fit), len(choose), len(test)) == 0:
        raise DataError("choices: a split has no questions; give more rows")
    everything = head_sites(chat.layout)
    activations = pooled_activations(chat, [r.encoded for r in fit], everything, RESPONSE_MEAN)
    labels = {part: np.array([r.misaligned for r in rows]) for part, rows in (("fit", fit), ("test", test))}
    readers = {key: _reader(activations, labels["fit"], sites) for key, sites in candidates.items() if sites}
    if not readers:
        raise DataError("candidates: no heads were given")
    scores = score_all(chat, [r.encoded for r in choose], list(readers.values()))
    truth = np.array([r.misaligned for r in choose])
    chosen_on = {key: auroc_value(scores[:, i].astype(float), truth) for i, key in enumerate(readers)}
    chosen = max(chosen_on, key=chosen_on.__getitem__)
    reader = readers[chosen]
    nulls = _nulls(activations, labels["fit"], reader, everything, seed)
    others = [key for key in readers if key != chosen]
    everyone = [reader, *nulls.values(), *(readers[key] for key in others)]
    test_scores = score_all(chat, [r.encoded for r in test], everyone).astype(np.float64)
    calibration = calibrate(score_all(chat, benign.encoded, [reader])[:, 0], benign.texts, target_fpr, benign.name)
    at = 1 + len(nulls)
    report = {
        "split": {
            part: {"misaligned": len(rows) // 2, "aligned": len(rows) // 2}
            for part, rows in (("fit", fit), ("select", choose), ("test", test))
        },
        "heads": {
            "chosen": chosen,
            "by": "AUROC on the retest questions",
            "auroc": {k: round(v, 4) for k, v in chosen_on.items()},
            "sites": [str(d.site) for d in reader.directions],
        },
        "test": evaluation_dict(evaluate(test_scores[:, 0], labels["test"], groups=[r.group for r in test])),
        "others_on_test": {
            key: round(auroc_value(test_scores[:, at + i], labels["test"]), 4) for i, key in enumerate(others)
        },
        "at_threshold": at_threshold(test_scores[:, 0], labels["test"], calibration),
        "nulls": nulls_by_kind(list(nulls), test_scores[:, 1:at], labels["test"]),
        "text_only": text_baseline(fit, test),
        "own_answers": _own(chat, reader, own),
        "data_sha256": choices_hash((*splits.search, *splits.retest, *splits.heldout)),
    }
    seen = SeenRows(
        fit=row_set(r.text for r in fit), select=row_set(r.text for r in choose), calibration=row_set(benign.texts)
    )
    return new_probe(
        chat, reader, name=name, description=description, calibration=calibration, evaluation=report, seen=seen
    )


def _reader(activations: dict[Site, NDArray[np.float32]], labels: NDArray[np.bool_], sites: Sequence[Site]) -> Reader:
    directions = [difference_in_means(s, activations[s][labels], activations[s][~labels]) for s in sorted(sites)]
    return Reader(tuple(directions), RESPONSE_MEAN)


def _nulls(
    activations: dict[Site, NDArray[np.float32]],
    labels: NDArray[np.bool_],
    reader: Reader,
    everything: Sequence[Site],
    seed: int,
) -> dict[str, Reader]:
    rng = np.random.default_rng(seed)
    sites = [d.site for d in reader.directions]
    nulls: dict[str, Reader] = {}
    for i in range(_PERMUTATIONS):
        nulls[f"permuted.{i}"] = _reader(activations, rng.permutation(labels), sites)
    for i in range(_RANDOM):
        drawn = tuple(random_like(d, seed + 1000 * i + k) for k, d in enumerate(reader.directions))
        nulls[f"random.{i}"] = Reader(drawn, RESPONSE_MEAN)
    rest = [s for s in everything if s not in sites and _usable(activations[s], labels, s)]
    for i in range(_RANDOM_HEADS if len(rest) >= len(sites) else 0):
        picked = [rest[k] for k in rng.choice(len(rest), len(sites), replace=False)]
        nulls[f"random_heads.{i}"] = _reader(activations, labels, picked)
    return nulls


def _usable(values: NDArray[np.float32], labels: NDArray[np.bool_], site: Site) -> bool:
    try:
        return bool(difference_in_means(site, values[labels], values[~labels]).norm > 0)
    except DirectionError:
        return False


def _own(chat: ChatModel, reader: Reader, rows: Sequence[Row]) -> Any:
    bad = sum(r.misaligned for r in rows)
    if min(bad, len(rows) - bad) < 5:
        return f"too few: {bad} bad and {len(rows) - bad} other answers"
    scores = score_all(chat, [r.encoded for r in rows], [reader])[:, 0].astype(np.float64)
    return evaluation_dict(evaluate(scores, np.array([r.misaligned for r in rows]), groups=[r.group for r in rows]))
