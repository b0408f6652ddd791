"""Runs a direction study part by part; each finished part goes into the result cache.

Contract: `run_direction` writes RESULT.json, table.md, three PNGs and a probe with the recipe into `out`, and stores
each part below `out/parts` under a hash of everything that decides it: model identities, messages, metric, sites,
seeds. A study that was interrupted resumes, and one that has ended is read back. No message and no answer is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from probes.capture.sites import Site, check_site, parse_sites
from probes.conditions import Condition
from probes.errors import DataError
from probes.evaluation import rows_needed
from probes.fitting import text_baseline
from probes.hashing import sha256_json
from probes.model.load import user_message
from probes.progress import Progress, silent
from probes.result_cache import ResultCache
from probes.statistics.nulls import LEAST_DRAWS
from probes.steer.generation import generate
from probes.steer.steering import Intervention
from probes.studies.direction import dose, export, pictures, report, verdict
from probes.studies.direction.conditions import Comparison, ComparisonActivations, check_prompts, read_comparison
from probes.studies.direction.dose import CachedRunner, Doses
from probes.studies.direction.prediction import prediction
from probes.studies.direction.separation import Directions, fit_directions, separation
from probes.studies.metric import Metric
from probes.studies.mitigation import Prompts

_FORMAT = 2  # of the cached parts: raise it when their meaning changes
_BATCH = 64


@dataclass(frozen=True)
class Plan:
    """What is measured. None for sites: every block and `final` are read, five blocks are steered.

    `steered` of the test messages are steered (all are read); `interval` is the widest half width of a rate that is
    accepted there. `prediction_scale` is the adapter's strength for the within-model prediction, where at full
    strength nearly every answer shows the behaviour; None: as it is.
    """

    sites: tuple[Site, ...] | None = None
    steer: tuple[Site, ...] | None = None
    doses: Doses = field(default_factory=Doses)
    steered: int = 60
    interval: float = 0.15
    random_directions: int = LEAST_DRAWS
    permutations: int = 20
    prediction_scale: float | None = None
    max_new_tokens: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        if self.random_directions < 5:
            raise DataError(f"plan: {self.random_directions} random directions; at least 5 are a control")
        if self.permutations < 1 or self.max_new_tokens < 1:
            raise DataError("plan: permutations and max_new_tokens must be at least 1")
        if not [*self.doses.subtract, *self.doses.ablate]:
            raise DataError("plan: no dose; give at least one strength of subtract or ablate")


def run_direction(
    comparison: Comparison,
    prompts: Prompts,
    metric: Metric,
    out: Path,
    plan: Plan = Plan(),
    *,
    name: str = "direction",
    command: str = "probes.studies.direction.run_direction",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure, judge, write; returns what was measured. `prompts` are user messages, three disjoint lists.

    With a comparison of labelled messages the direction comes from these, and `prompts` are what is answered.
    Raises a ProbesError, before anything is generated, when the messages do not suffice for the interval asked for.
    """
    check_prompts(prompts)
    steered = list(prompts.test[: plan.steered])
    needed = rows_needed(plan.interval)
    if len(steered) < needed:
        raise DataError(
            f"prompts: a rate on {len(steered)} steered test messages has a wider interval than the one asked for "
            f"(+-{plan.interval:g}), which needs {needed}: give more messages, or ask for less"
        )
    study = _Study(comparison, prompts, metric, out / "parts", plan, progress)
    directions, separated, text_only = study.separate()
    swept = study.steer(directions, steered)
    predicted = study.predict(directions)
    judged = verdict.judge(swept, separated)
    judged = replace(
        judged,
        warnings=verdict.warnings(
            swept,
            separated,
            predicted,
            text_only,
            directions.without,
            has_control=comparison.has_control,
            blocks=comparison.misaligned.chat.layout.n_blocks,
        ),
    )
    chosen = swept.chosen
    result: dict[str, Any] = {
        "name": name,
        "command": command,
        "kind": comparison.kind,
        "arms": comparison.names(),
        "model": study.identities,
        "metric": metric.name,
        "metric_sha256": metric.fingerprint,
        "messages": {
            "fit": len(prompts.fit),
            "select": len(prompts.select),
            "test": len(prompts.test),
            "steered": len(steered),
        },
        "data": {"sha256": study.data},
        "labelled_rows": len(comparison.rows) or None,
        "plan": _plain_plan(plan, study.sites, study.steered_at),
        "chosen": {
            "name": str(chosen),
            "site": str(chosen.direction.site),
            "mode": chosen.mode,
            "strength": chosen.strength,
            "positions": chosen.positions,
        },
        "verdict": judged.as_dict(),
        "separation": separated,
        "sites_without_direction": directions.without,
        "text_only": text_only,
        "dose": {
            "select": swept.select,
            "test": swept.rows,
            "cosines": swept.cosines,
            "coherence": asdict(swept.test.coherence),
            "good_means": f"no behaviour; {swept.test.coherence}",
        },
        "prediction": predicted,
    }
    measured = {
        "adapter_scale": swept.test.comparison.misaligned.strength,
        "verdict": judged.sentence,
        "test": [row for row in swept.rows if row["name"] in (dose.UNTOUCHED, str(chosen), dose.CONTENT)],
    }
    result["probe"] = study.probe(chosen, measured, name, out)
    result["probes"] = [result["probe"]["file"]] if "file" in result["probe"] else []
    report.write(result, out)
    pictures.draw(result, out)
    progress(judged.sentence)
    return result


class _Study:
    """The parts, each with the key of what decides it."""

    def __init__(
        self, comparison: Comparison, prompts: Prompts, metric: Metric, folder: Path, plan: Plan, progress: Progress
    ) -> None:
        self.comparison, self.prompts, self.metric, self.folder = comparison, prompts, metric, folder
        self.plan, self.progress = plan, progress
        layout = comparison.misaligned.chat.layout
        self.sites = list(plan.sites) if plan.sites is not None else parse_sites("all", layout)
        self.steered_at = (
            list(plan.steer) if plan.steer is not None else dose.steering_sites(comparison.misaligned.chat)
        )
        for site in (*self.sites, *self.steered_at):
            check_site(site, layout)
        self.sites = list(dict.fromkeys([*self.sites, *self.steered_at]))
        self.identities = comparison.identities()
        self.data = {name: sha256_json(list(getattr(prompts, name))) for name in ("fit", "select", "test")} | {
            "rows": sha256_json(
                [
                    [r.text, r.misaligned, r.group, r.adapter, list(r.encoded.ids)]
                    for r in (*comparison.rows, *comparison.control_rows)
                ]
            )
        }

    def cache(self, part: str, **more: Any) -> ResultCache:
        return ResultCache(
            self.folder,
            {
                "part": part,
                "format": _FORMAT,
                "kind": self.comparison.kind,
                "identities": self.identities,
                "aggregation": str(self.comparison.aggregation),
                "seed": self.plan.seed,
            }
            | more,
        )

    def separate(self) -> tuple[Directions, list[dict[str, Any]], dict[str, Any] | None]:
        """Directions of the fit split, their figures on test, and the text-only baseline of labelled messages."""
        plan = self.plan
        data = {k: self.data[k] for k in ("fit", "test", "rows")}
        counts = {"permutations": plan.permutations, "random": plan.random_directions}
        cache = self.cache("separation", data=data, sites=list(map(str, self.sites)), **counts)
        stored = cache.get("separation")
        if stored is None:
            self.progress(
                f"reading {len(self.prompts.fit)} fit and {len(self.prompts.test)} test messages "
                f"at {len(self.sites)} sites"
            )
            reading = read_comparison(self.comparison, self.prompts, self.sites, plan.seed)
            directions = fit_directions(reading.fit)
            rows = separation(
                reading,
                directions,
                permutations=plan.permutations,
                random_directions=plan.random_directions,
                seed=plan.seed,
            )
            stored = {"directions": directions.plain(), "separation": rows, "text_only": _text_only(reading)}
            cache.put("separation", stored)
        best = max(stored["separation"], key=lambda r: r["accuracy"]["value"])
        self.progress(f"separation: best {best['accuracy']['value']:.2f} at {best['site']}")
        return Directions.of(stored["directions"]), stored["separation"], stored["text_only"]

    def steer(self, directions: Directions, steered: Sequence[str]) -> dose.SweepResult:
        """The dose sweep on select, and its report on the steered test messages."""
        plan = self.plan
        made_of = self.data["rows"] if self.comparison.kind == "messages" else self.data["fit"]

        def cached_runner(split: str, messages: Sequence[str]) -> CachedRunner:
            cache = self.cache(
                split,
                directions=made_of,
                messages=sha256_json(list(messages)),
                metric=self.metric.fingerprint,
                max_new_tokens=plan.max_new_tokens,
                draws=plan.random_directions,
                style=self.comparison.control.name if self.comparison.control else None,
            )
            return CachedRunner(
                split, messages, self.comparison, self.metric, plan.max_new_tokens, cache, self.progress
            )

        return dose.sweep(
            cached_runner("select", self.prompts.select),
            cached_runner("test", steered),
            directions,
            self.steered_at,
            plan.doses,
            plan.random_directions,
            plan.seed,
        )

    def predict(self, directions: Directions) -> dict[str, Any]:
        """Within-model prediction; the answers of all fit and test messages give the labels."""
        plan = self.plan
        condition, cache = self._predicting()
        predicted: dict[str, Any] | None = cache.get("prediction")
        if predicted is None:
            labels = np.array(self._labelled(), dtype=np.bool_)
            predicted = prediction(
                condition,
                self._messages,
                labels,
                len(self.prompts.fit),
                directions,
                permutations=plan.permutations,
                random_directions=plan.random_directions,
                seed=plan.seed,
            )
            cache.put("prediction", predicted)
        if "not_possible" not in predicted:
            best = predicted["direction"]
            self.progress(f"prediction: AUROC {best['auroc']['value']:.2f} at {best['site']}")
        return predicted

    def probe(self, recipe: Intervention, measured: dict[str, Any], name: str, out: Path) -> dict[str, Any]:
        """A probe of the same answers with the recipe in its card."""
        condition, _ = self._predicting()
        return export.write_probe(
            condition,
            self._messages,
            self._labelled(),
            self.sites,
            recipe,
            measured,
            name,
            out,
            self.plan.seed,
            self.progress,
        )

    @property
    def _messages(self) -> list[str]:
        return [*self.prompts.fit, *self.prompts.test]

    def _predicting(self) -> tuple[Condition, ResultCache]:
        """The misaligned condition at the strength of the prediction, and the cache of its results."""
        plan = self.plan
        condition = self.comparison.misaligned
        if plan.prediction_scale is not None:
            condition = replace(condition, scale=plan.prediction_scale)
        cache = self.cache(
            "prediction",
            data=self.data,
            metric=self.metric.fingerprint,
            scale=plan.prediction_scale,
            max_new_tokens=plan.max_new_tokens,
            sites=list(map(str, self.sites)),
            counts=[plan.permutations, plan.random_directions],
        )
        return condition, cache

    def _labelled(self) -> list[bool]:
        """Whether each message's answer shows the behaviour."""
        condition, cache = self._predicting()
        labels: list[bool] | None = cache.get("labels")
        if labels is None:
            self.progress(f"answering {len(self._messages)} messages under {condition.name} for the prediction")
            labels = self._labels(condition, self._messages)
            cache.put("labels", labels)
        return labels

    def _labels(self, condition: Condition, messages: Sequence[str]) -> list[bool]:
        with condition.applied() as chat:
            rendered = [chat.render(user_message(text)) for text in messages]
            replies = generate(chat, rendered, max_new_tokens=self.plan.max_new_tokens, batch_size=_BATCH)
        labels: list[bool] = self.metric(messages, [a.text for a in replies]).tolist()
        return labels


def _text_only(reading: ComparisonActivations) -> dict[str, Any] | None:
    if not reading.fit_rows:
        return None
    baseline: dict[str, Any] = text_baseline(reading.fit_rows, reading.test_rows)["auroc"]
    return baseline


def _plain_plan(plan: Plan, sites: Sequence[Site], steered_at: Sequence[Site]) -> dict[str, Any]:
    return asdict(replace(plan, sites=None, steer=None)) | {
        "sites": list(map(str, sites)),
        "steer": list(map(str, steered_at)),
    }
