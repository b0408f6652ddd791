"""Exports a transfer study's probes: in each receiver, a probe of one donor's mapped direction.

The donor is the one whose mapped direction works best (specific before not, then gain in good answers), or, where none
works, the one that tells the receiver's conditions apart best on its fit questions. Figures are of the test questions,
scored as in production; the threshold is set on the fit questions in the aligned condition. The card carries a steering
recipe only where the study's verdict on the pair is that it works, with the figures of that verdict; its donor and mode
were chosen on the same questions, and the card says among how many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.calibration import calibrate
from probes.capture.batches import encode
from probes.card import Probe
from probes.conditions import LAST_PROMPT
from probes.errors import DataError, DirectionError
from probes.evaluation import evaluate
from probes.fitting import at_threshold, evaluation_dict, null_figures, text_baseline
from probes.hashing import hash_texts
from probes.identity import new_probe
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.rows import Row
from probes.scoring import Reader, score_all
from probes.seen import SeenRows, row_set
from probes.steer.contrast import Contrast
from probes.steer.recipe import with_recipe
from probes.steer.steering import Intervention, Mode
from probes.studies.framework.export import TARGET_FPR, written
from probes.studies.framework.verdict import Verdict
from probes.studies.transfer.detection import Detection
from probes.studies.transfer.plan import Measured, ModelReading, Pair, Receiver

_BENIGN_NAME = "fit questions in the aligned condition: calibrate on your own traffic"


def write_probes(
    measured: Measured, summaries: Sequence[dict[str, Any]], folder: Path, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One probe a receiver; `summaries` are the result's pairs. A receiver that allows none says why (`not_made`)."""
    named: dict[str, str] = {}
    reports = []
    for reading, receiver in zip(measured.readings, measured.receivers, strict=True):
        subject = reading.subject.name
        offered = [(p, s) for p, s in zip(measured.pairs, summaries, strict=True) if p.receiver == subject]
        pair, mode, summary = _choose(offered)
        report: dict[str, Any] = {"receiver": subject, "donor": pair.donor}
        try:
            probe = _probe(reading, receiver, pair, _name(subject, named))
        except (DataError, DirectionError) as error:
            reports.append(report | {"not_made": str(error)})
            continue
        if mode is not None:
            settings, effect = measured.settings, summary["modes"][mode]
            recipe = Intervention(pair.direction, mode, settings.strength, settings.steered)
            figures = {key: effect[key] for key in ("verdict", "gain", "drop", "own_gain", "over_controls")}
            among = f"{len(offered)} donors and {len(settings.modes)} modes"
            chosen = f"by verdict and gain on the same questions, among {among}"
            probe = with_recipe(probe, [recipe], {"donor": pair.donor, "chosen": chosen} | figures)
        made = written(probe, folder)
        how = "with a recipe" if mode else "without a recipe"
        progress(f"{subject}: probe {made['file']} from {pair.donor}, {how}")
        reports.append(report | made | {"recipe": mode})
    return reports


def _choose(offered: Sequence[tuple[Pair, dict[str, Any]]]) -> tuple[Pair, Mode | None, dict[str, Any]]:
    working = [
        (effect["verdict"] == Verdict.WORKS_SPECIFIC, effect["gain"]["value"], i, mode)
        for i, (_, summary) in enumerate(offered)
        for mode, effect in summary["modes"].items()
        if Verdict(effect["verdict"]).works
    ]
    if working:
        *_, best, mode = max(working, key=lambda found: found[:2])
        return offered[best][0], mode, offered[best][1]
    pair, summary = max(offered, key=lambda one: (round(one[0].detection.fit, 3), one[0].cosine))
    return pair, None, summary


def _probe(reading: ModelReading, receiver: Receiver, pair: Pair, name: str) -> Probe:
    subject, chat = reading.subject, reading.subject.load()
    reader = Reader((pair.direction,), LAST_PROMPT)
    fit, fit_scores = _scored(chat, subject.contrast, subject.fit, reader)
    test, test_scores = _scored(chat, subject.tested, subject.test, reader)
    aligned = np.array([not r.misaligned for r in fit])
    labels = np.array([r.misaligned for r in test])
    texts = [r.text for r in fit if not r.misaligned]
    calibration = calibrate(fit_scores[aligned], texts, TARGET_FPR, _BENIGN_NAME)
    report = {
        "split": {
            part: {"misaligned": len(rows) // 2, "aligned": len(rows) // 2}
            for part, rows in (("fit", fit), ("test", test))
        },
        "test": evaluation_dict(evaluate(test_scores, labels, groups=[r.group for r in test])),
        "at_threshold": at_threshold(test_scores, labels, calibration),
        "nulls": {
            **_nulls("mapped", pair.detection),
            **_nulls("receiver", receiver.detection),
            "own_direction": {"n": 1, "auroc_mean": round(receiver.detection.test.value, 4)},
        },
        "text_only": text_baseline(fit, test),
        "map": {
            "donor": pair.donor,
            "r2": pair.map.r2,
            "penalty": pair.map.penalty,
            "cosine_to_own": pair.cosine,
        },
        "data_sha256": hash_texts(r.text for r in (*fit, *test)),
    }
    description = f"Another model's direction ({pair.donor}), brought here by a ridge map; made by a transfer study."
    if subject.note:
        description += f" {subject.note}"
    seen = SeenRows(fit=row_set(r.text for r in fit), calibration=row_set(texts))
    return new_probe(
        chat, reader, name=name, description=description, calibration=calibration, evaluation=report, seen=seen
    )


def _scored(
    chat: ChatModel, contrast: Contrast, questions: Sequence[str], reader: Reader
) -> tuple[list[Row], NDArray[np.float64]]:
    """Both conditions of every question, misaligned first."""
    rows: list[Row] = []
    scores = []
    for condition in (contrast.misaligned, contrast.aligned):
        talks = [condition.conversation(i, question) for i, question in enumerate(questions)]
        items = [encode(chat, talk) for talk in talks]
        with condition.applied(chat):
            scores.append(score_all(chat, items, [reader])[:, 0].astype(np.float64))
        bad = condition is contrast.misaligned
        rows += [Row(x, chat.render(t), bad, q) for x, t, q in zip(items, talks, questions, strict=True)]
    return rows, np.concatenate(scores)


def _nulls(prefix: str, detection: Detection) -> dict[str, dict[str, Any]]:
    return {f"{prefix}_{kind}": null_figures(values) for kind, values in detection.controls.items()}


def _name(subject: str, named: dict[str, str]) -> str:
    """A probe's name for a subject, unlike the others'."""
    name = "transfer-" + re.sub(r"[^a-z0-9_-]+", "-", subject.lower()).strip("-")[:40]
    if name in named.values():
        name = f"{name}-{len(named)}"
    named[subject] = name
    return name
