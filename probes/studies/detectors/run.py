"""Compares detectors on the same rows: directions and regressions, at one site and several, and how they are read.

1. the activations of the fit rows are read once, and kept (`fits`, `kept`)
2. every reading of every method is scored on the select rows; one reading a method is chosen there (`methods`)
3. what was chosen, the reading that ships and words alone are scored on the test rows at the thresholds of benign
   messages; figures, and differences from the shipped reading on the same rows (`figures`)
4. nulls: fit labels permuted, and random directions, through the same readings; the same readings refitted with fewer
   everyday messages
5. harmful messages by other hands under the attack families, at the same thresholds (`attacked`)

The outcome in `out`: RESULT.json, RESULT.md, a picture. A study that was interrupted resumes from `out/kept`, under the
model's identity, the plan and the messages' hash. No text of a message is written, only hashes and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.calibration import Calibration, Values, calibrate
from probes.card import Probe
from probes.directions import cosine
from probes.errors import DataError
from probes.evaluation import auroc_value, from_chance
from probes.fitting import text_scores
from probes.hashing import sha256_lines
from probes.identity import check_identity, new_probe
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.reading import read_values
from probes.result_cache import ResultCache
from probes.rows import Row, labels_of
from probes.scoring import Reader
from probes.statistics.nulls import rank_among
from probes.studies.detectors import report
from probes.studies.detectors.attacked import attack_table, summary
from probes.studies.detectors.figures import HeldOut, PairScores, differences, figures_of
from probes.studies.detectors.fits import Fits, Spec, every_hundred, random_reader
from probes.studies.detectors.kept import KeptArrays
from probes.studies.detectors.methods import (
    LAST,
    MEAN_USER,
    WHITENED_WINDOWS,
    choose,
    first_specs,
    merit,
    several_specs,
)
from probes.studies.detectors.plan import DetectorData, DetectorPlan
from probes.studies.detectors.report import SHIPPED
from probes.studies.detectors.rows import StudyRows

WORDS = "words alone"
# Settings that decide nothing of what is read before.
_LATER = ("name", "attacked", "families", "permutations", "random_directions")
_PARTS = ("calibrate", "test", "everyday", "other_harmful", "other_benign")


def run_detectors(
    chat: ChatModel,
    data: DetectorData,
    out: Path,
    plan: DetectorPlan,
    *,
    shipped: Probe | None = None,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the study on `chat` and write its files; returns what RESULT.json holds.

    `shipped` is the probe that others are compared with; without one it is `whitened, top windows`. Raises DataError
    for too few messages, ProbeMismatchError where the probe is another model's.
    """
    if shipped is not None:
        check_identity(shipped.card, chat)
    rows = StudyRows.of(chat, data, plan)
    texts = _hash_of(rows)
    shared = {"model": asdict(chat.identity), "texts": texts, "probe": shipped.digest if shipped else None}
    before = shared | {"plan": {k: v for k, v in plan.plain().items() if k not in _LATER}}
    study = _Study(chat, rows, plan, KeptArrays(out / "kept", before), progress)
    chosen, merits = study.chosen()
    readings = {name: study.fits.reader(spec, rows.members(None)) for name, spec in chosen.items()}
    reference = SHIPPED if shipped is not None else WHITENED_WINDOWS
    compared = {SHIPPED: shipped.reader, **readings} if shipped is not None else readings
    refitted = study.with_fewer_everyday(chosen)
    progress(f"scoring {len(compared) + len(refitted)} readings on the test rows")
    scored, calibrations = study.tested([*compared.values(), *refitted.values()])
    found = dict(zip(compared, scored[: len(compared)], strict=True))
    fewer = dict(zip(refitted, map(figures_of, scored[len(compared) :]), strict=True))
    nulls = study.nulls(chosen)
    methods: dict[str, Any] = {}
    for name, scores in found.items():
        methods[name] = {"figures": figures_of(scores)}
        if name != reference:
            methods[name]["difference"] = differences(scores, found[reference])
        if name in chosen:
            methods[name] |= {
                "reading": str(chosen[name]),
                "select": merits[chosen[name]],
                "converged": chosen[name] not in study.fits.unconverged,
                "everyday_rows": {str(count): fewer[name, count] for count in plan.everyday_rows},
                "nulls": nulls[name],
            }
    if shipped is not None:
        methods[SHIPPED] |= {"reading": _reading(shipped), "probe": shipped.name, "version": shipped.card.version}
    words = study.words()
    methods[WORDS] = {"figures": figures_of(words), "difference": differences(words, found[reference])}
    attacks = study.attacked(data, dict(zip(compared, calibrations, strict=False)), compared, out, before)
    result: dict[str, Any] = {
        "reference": reference,
        "rows": rows.counts(),
        "methods": methods,
        "attacks": attacks,
        "attacks_summary": summary(attacks),
        "cosines": _cosines(shipped, readings),
    }
    stored: dict[str, Any] = report.write(result, chat, plan, out, command, texts)
    return stored


class _Study:
    """The parts that take time; what they read is kept."""

    def __init__(
        self, chat: ChatModel, rows: StudyRows, plan: DetectorPlan, kept: KeptArrays, progress: Progress
    ) -> None:
        self._chat, self._rows, self._plan, self._kept, self._progress = chat, rows, plan, kept, progress
        self.fits = Fits(chat, rows.fit, kept, progress)

    def chosen(self) -> tuple[dict[str, Spec], dict[Spec, float]]:
        """One reading a method, and the merit on the select rows of every reading."""
        plan = self._plan
        specs = first_specs(plan)
        pooling = next(spec.pooling for spec in specs if spec.aggregation == plan.windows)
        self.fits.read({LAST: (*plan.blocks, *plan.heads), MEAN_USER: plan.blocks, pooling: plan.window_sites})
        self.fits.read_tokens(plan.windows, plan.window_sites, self._rows.members(None))
        merits = self._merits("one site", specs)
        merits |= self._merits("several sites", several_specs(plan, merits))
        return choose(merits), merits

    def _merits(self, name: str, specs: Sequence[Spec]) -> dict[Spec, float]:
        every = self._rows.members(None)
        self._progress(f"fitting {len(specs)} readings, {name}")

        def score() -> dict[str, NDArray[Any]]:
            readers = [self.fits.reader(spec, every) for spec in specs]
            self._progress(f"scoring {len(readers)} readings on the select rows")
            requests, quiet = self._values(readers, self._rows.select), self._values(readers, self._rows.choosing)
            labels = labels_of(self._rows.select)
            columns = range(len(readers))
            found = [merit(requests, labels, quiet, column, self._plan.target_fpr) for column in columns]
            return {"merits": np.array(found)}

        stored = self._kept.get_or(f"merits {name}", score)
        return dict(zip(specs, stored["merits"].tolist(), strict=True))

    def tested(self, readers: Sequence[Reader]) -> tuple[list[HeldOut], list[Calibration]]:
        """Scores of the readings on all test rows, and their calibrations."""

        def score(part: str) -> dict[str, NDArray[Any]]:
            self._progress(f"test rows, {part}")
            values = self._values(readers, getattr(self._rows, part))
            return {f"{part}.values": values.values, f"{part}.tokens": values.tokens}

        stored: dict[str, NDArray[Any]] = {}
        for part in _PARTS:
            stored |= self._kept.get_or(f"test {part}", partial(score, part))
        texts = [row.text for row in self._rows.calibrate]
        tested: list[HeldOut] = []
        calibrations: list[Calibration] = []
        for i in range(len(readers)):
            quiet, lengths = stored["calibrate.values"][:, i], stored["calibrate.tokens"][:, i].tolist()
            at = calibrate(quiet, texts, self._plan.target_fpr, "everyday and longer messages", tokens=lengths)
            parts = {
                part: at.scores(stored[f"{part}.values"][:, i], stored[f"{part}.tokens"][:, i].tolist())
                for part in _PARTS[1:]
            }
            tested.append(_held_out(parts, at.threshold))
            calibrations.append(at)
        return tested, calibrations

    def with_fewer_everyday(self, chosen: Mapping[str, Spec]) -> dict[tuple[str, int], Reader]:
        """The chosen readings fitted on the pairs and so many everyday messages alone, by method and number."""
        readers: dict[tuple[str, int], Reader] = {}
        for count in self._plan.everyday_rows:
            members = self._rows.members(count)
            for name, spec in chosen.items():
                if spec.finding == "tokens":
                    self.fits.read_tokens(spec.aggregation, spec.sites, members)
                readers[name, count] = self.fits.reader(spec, members)
        return readers

    def nulls(self, chosen: Mapping[str, Spec]) -> dict[str, dict[str, Any]]:
        """AUROC against twins of readings fitted on shuffled labels, and of random directions.

        They are those of `probes.statistics.nulls`. Both splits shuffled is the chance null; there the two requests of
        a held-out pair swap by a coin.
        """
        plan, rng = self._plan, np.random.default_rng(self._plan.seed)
        permuted = [rng.permutation(self.fits.truth) for _ in range(plan.permutations)]
        every = self._rows.members(None)

        def score() -> dict[str, NDArray[Any]]:
            self._progress(f"nulls of {len(chosen)} readings")
            readers: list[Reader] = []
            for spec in chosen.values():
                true = self.fits.reader(spec, every)
                readers += [true, *(self.fits.reader(spec, every, labels) for labels in permuted)]
                readers += [random_reader(true, plan.seed + i) for i in range(plan.random_directions)]
            return {"values": self._values(readers, self._rows.test).values}

        stored = self._kept.get_or(f"nulls {plan.permutations} {plan.random_directions}", score)
        truth = labels_of(self._rows.test)
        each = 1 + plan.permutations + plan.random_directions
        found: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(chosen):
            own, *others = stored["values"][:, i * each : (i + 1) * each].T
            shuffled, drawn = others[: plan.permutations], others[plan.permutations :]
            swapped = [_swapped(truth, rng) for _ in shuffled]
            found[name] = {
                "both splits shuffled": _null([auroc_value(x, y) for x, y in zip(shuffled, swapped, strict=True)]),
                "fit labels shuffled": _null([auroc_value(x, truth) for x in shuffled]),
                "random directions": _null([auroc_value(x, truth) for x in drawn], auroc_value(own, truth)),
            }
        return found

    def words(self) -> HeldOut:
        """TF-IDF with logistic regression on the same rows, at the threshold of the same benign messages."""
        parts = {part: [row.text for row in getattr(self._rows, part)] for part in _PARTS}
        flat = text_scores(self._rows.fit, [text for part in _PARTS for text in parts[part]])
        ends = np.cumsum([len(parts[part]) for part in _PARTS])[:-1]
        scores = dict(zip(_PARTS, np.split(flat, ends), strict=True))
        at = calibrate(scores["calibrate"], parts["calibrate"], self._plan.target_fpr, "the same")
        return _held_out(scores, at.threshold)

    def attacked(
        self,
        data: DetectorData,
        calibrations: Mapping[str, Calibration],
        readers: Mapping[str, Reader],
        out: Path,
        identity: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """The attack table of all readings; no row where no families are given. Without messages by other hands it is
        of the test rows."""
        if not (self._plan.families and self._plan.attacked):
            return []
        probes = {
            name: new_probe(
                self._chat,
                reader,
                name=f"reading-{i}",
                description=name,
                calibration=calibrations[name],
                evaluation={},
            )
            for i, (name, reader) in enumerate(readers.items())
        }
        harmful, benign = (
            [row.conversation for row in rows if row.conversation is not None]
            for rows in (
                self._rows.other_harmful or [row for row in self._rows.test if row.misaligned],
                self._rows.other_benign or self._rows.everyday,
            )
        )
        cache = ResultCache(out / "kept", {**identity, "attacked": self._plan.attacked})
        pool = data.pool or data.everyday["fit"]
        return attack_table(self._chat, probes, harmful, benign, pool, self._plan, cache, self._progress)

    def _values(self, readers: Sequence[Reader], rows: Sequence[Row]) -> Values:
        if not rows:
            return Values(np.empty((0, len(readers))), np.empty((0, len(readers)), dtype=np.int64))
        talks = [row.conversation for row in rows if row.conversation is not None]
        report = every_hundred(self._progress, f"messages scored under {len(readers)} readings", len(talks))
        values = read_values(self._chat, readers, talks, max_tokens=self._plan.max_tokens, on_done=report)
        if not np.isfinite(values.values).all():
            raise DataError("scores: a message gave none, or one that is not finite; does every message have text?")
        return values


def _held_out(parts: Mapping[str, NDArray[np.float64]], threshold: float) -> HeldOut:
    return HeldOut(_pairs(parts["test"]), parts["everyday"], parts["other_harmful"], parts["other_benign"], threshold)


def _pairs(scores: NDArray[np.float64]) -> PairScores:
    """Of the test rows, which are the harmful requests first and then their twins."""
    n = len(scores) // 2
    return PairScores(scores[:n], scores[n:])


def _swapped(truth: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Labels of the test rows, with those of each pair swapped by a coin."""
    swap = rng.random(len(truth) // 2) < 0.5
    found: NDArray[np.bool_] = truth ^ np.concatenate([swap, swap])
    return found


def _null(aurocs: Sequence[float], own: float | None = None) -> dict[str, Any] | None:
    """How many, their mean, and the farthest from chance; with the AUROC of the true reading, its rank among them."""
    if not aurocs:
        return None
    far = [from_chance(value) for value in aurocs]
    rank = {} if own is None else {"p": rank_among(own, far).p}
    return {"n": len(aurocs), "mean": float(np.mean(aurocs)), "most": max(far), **rank}


def _cosines(shipped: Probe | None, readings: Mapping[str, Reader]) -> dict[str, float]:
    """Of the shipped direction with those at its site, by method."""
    if shipped is None or len(shipped.directions) != 1:
        return {}
    own = shipped.directions[0]
    there = {name: [d for d in reader.directions if d.site == own.site] for name, reader in readings.items()}
    return {name: cosine(own, found[0]) for name, found in there.items() if found}


def _reading(probe: Probe) -> str:
    sites = ", ".join(str(d.site) for d in probe.directions)
    return f"{sites}, {probe.card.aggregation}, {probe.card.method or 'difference in means'}"


def _hash_of(rows: StudyRows) -> str:
    parts = (rows.fit, rows.select, rows.choosing, *(getattr(rows, part) for part in _PARTS))
    return sha256_lines(f"{row.misaligned}|{row.group}|{row.encoded.ids}" for part in parts for row in part)
