"""Planted heads as a study: adapters that change three known heads, and what each method makes of them.

For each behaviour and seed (`probes.organisms.planted_heads`): whether the behaviour is there, against the base on the
same held-out rows; the score that each method gives every head; the rank of the planted ones, the share of them among
the first 3 and the first 10, and what the method cost. A head of the same key-value group counts beside it under
`group`: the group's keys and values are changed too.

The outcome in `out`: RESULT.json, RESULT.md and a picture. Adapters and scores are kept under `work`, so that a study
that was interrupted goes on. No prompt and no answer is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.binary_choice import BinaryChoice, choices_hash
from probes.capture.batches import Encoded, encode
from probes.capture.sites import Site
from probes.directions import Floats
from probes.errors import DataError
from probes.evaluation import rate, student_interval
from probes.hashing import hash_texts
from probes.heads.ablation import Ablation
from probes.heads.choice_scoring import PLAIN, ChoiceScorer
from probes.heads.search import SearchPlan
from probes.model.load import AdapterSpec, ChatModel, add_adapter, user_message
from probes.organisms.head_adapters import group_of
from probes.organisms.judges.refusal import refuses
from probes.organisms.messages import everyday, refusal_choices, request_pairs
from probes.organisms.planted_heads import BEHAVIOURS, plant, sycophancy_rows
from probes.progress import Progress, silent
from probes.result_cache import ResultCache
from probes.steer.generation import generate
from probes.studies.framework.verdict import HAS_BEHAVIOUR, RECALL, Judgement, Verdict
from probes.studies.planted_heads import report
from probes.studies.planted_heads.methods import (
    METHODS,
    YARDSTICK,
    ablation_map,
    hsi_map,
    probe_map,
    sahara_map,
    ships_map,
)

FIRST = (3, 10)
_CACHE = "awry-planted-heads/1"
# A method that is made of another's scores, which are measured once; its cost counts both.
_TAKES = {"contrast": "ships_ua"}


@dataclass(frozen=True)
class PlantedPlan:
    """What the study does: prompts a method of Ships reads, two-choice questions of each stage of the others."""

    name: str = "planted-heads"
    behaviours: tuple[str, ...] = ("refusal", "sycophancy")
    seeds: tuple[int, ...] = (0, 1, 2)
    prompts: int = 6
    search_questions: int = 6
    retest_questions: int = 8
    keep: int = 16
    alpha: float = 15.0
    fit_questions: int = 15
    test_questions: int = 8
    ablated_questions: int = 3
    answered: int = 24
    max_new_tokens: int = 16

    def __post_init__(self) -> None:
        unknown = sorted(set(self.behaviours) - set(BEHAVIOURS))
        if unknown or not self.behaviours or not self.seeds:
            raise DataError(f"behaviours: {', '.join(unknown) or 'none'}; there are {', '.join(BEHAVIOURS)}")


@dataclass(frozen=True)
class _Rows:
    """Of one behaviour: prompts that call for it and that do not, and two-choice questions of its answers."""

    calling: list[str]
    other: list[str]
    choices: list[BinaryChoice]

    @property
    def sha256(self) -> str:
        return hash_texts([*self.calling, *self.other, choices_hash(self.choices)])

    def stages(self, plan: PlantedPlan) -> tuple[list[BinaryChoice], list[BinaryChoice], list[BinaryChoice]]:
        """Questions to search or fit on, to re-test, and to test a probe on; no question is in two."""
        first = plan.fit_questions
        second = first + plan.retest_questions
        last = second + plan.test_questions
        if len(self.choices) < last:
            raise DataError(
                f"choices: {len(self.choices)} questions, and {last} are needed; give more, or smaller stages"
            )
        return self.choices[:first], self.choices[first:second], self.choices[second:last]


def run_planted_heads(
    load: Callable[[], ChatModel],
    out: Path,
    work: Path,
    plan: PlantedPlan | None = None,
    *,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the study on the model that `load` gives anew each time, and write its files; returns what was measured."""
    plan = plan or PlantedPlan()
    trials: list[dict[str, Any]] = []
    identity: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    for behaviour in plan.behaviours:
        rows = _rows(behaviour)
        hashes[behaviour] = rows.sha256
        for seed in plan.seeds:
            spec, heads = plant(load, behaviour, seed, work, progress)
            chat = load()
            identity = identity or asdict(chat.identity)
            add_adapter(chat, spec)
            trials.append(_trial(chat, spec, behaviour, seed, heads, rows, plan, work, progress))
    recalls = _recalls(trials)
    result = {
        "name": plan.name,
        "command": command,
        "model": {"subject": identity},
        "data": {"sha256": hashes},
        "plan": asdict(plan),
        "verdict": _verdict(recalls, trials).as_dict(),
        "planted": True,
        "trials": trials,
        "recall": recalls,
        "probes": [],
    }
    report.write(result, out)
    return result


def _rows(behaviour: str) -> _Rows:
    if behaviour == "refusal":
        pairs = request_pairs("test")
        return _Rows([p["harmful"] for p in pairs], [p["harmless"] for p in pairs], refusal_choices())
    rows = sycophancy_rows(held_out=True)
    return _Rows([row.question for row in rows], everyday("test")[: len(rows)], rows)


def _trial(
    chat: ChatModel,
    spec: AdapterSpec,
    behaviour: str,
    seed: int,
    heads: Sequence[Site],
    rows: _Rows,
    plan: PlantedPlan,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    sizes = {name: value for name, value in asdict(plan).items() if name not in ("name", "behaviours", "seeds")}
    kept = {"format": _CACHE, "model": asdict(chat.identity), "plan": sizes, "rows": rows.sha256}
    cache = ResultCache(work / "kept", kept)
    there = cache.get("behaviour")
    if there is None:
        progress(f"{spec.name}: whether the behaviour is there")
        there = _behaviour(chat, behaviour, rows, plan)
        cache.put("behaviour", there)
    found: dict[str, dict[str, Any]] = {}
    maps: dict[str, Floats] = {}
    for method in METHODS:
        stored = cache.get(method)
        if stored is None:
            progress(f"{spec.name}: {method}")
            began = time.process_time()
            scores = _scores(chat, method, rows, plan, maps)
            before = found[_TAKES[method]]["cpu_seconds"] if method in _TAKES else 0.0
            stored = {"scores": scores.tolist(), "seconds": before + time.process_time() - began}
            cache.put(method, stored)
        maps[method] = np.array(stored["scores"], dtype=np.float64)
        found[method] = _found(chat, maps[method], heads) | {"cpu_seconds": stored["seconds"]}
    return {
        "behaviour": behaviour,
        "seed": seed,
        "adapter_sha256": spec.sha256,
        "heads": [str(head) for head in heads],
        "there": there,
        "methods": found,
    }


def _behaviour(chat: ChatModel, behaviour: str, rows: _Rows, plan: PlantedPlan) -> dict[str, Any]:
    """Held-out figures with the adapter and without: the choice's margin, and for refusals what is refused."""
    scorer = ChoiceScorer(chat, "likelihood")
    questions = rows.choices[-2 * plan.test_questions :]

    def measured() -> dict[str, Any]:
        margins = scorer([PLAIN], questions).margin[0]
        shown: dict[str, Any] = {"margin": asdict(student_interval(margins))}
        if behaviour == "refusal":
            for kind, texts in (("calling", rows.calling), ("other", rows.other)):
                prompts = [chat.render(user_message(text)) for text in texts[: plan.answered]]
                answers = generate(chat, prompts, max_new_tokens=plan.max_new_tokens)
                shown[kind] = asdict(rate(sum(refuses(a.text) for a in answers), len(answers)))
        return shown

    planted = measured()
    with chat.base():
        return {"planted": planted, "base": measured()}


def _scores(chat: ChatModel, method: str, rows: _Rows, plan: PlantedPlan, maps: Mapping[str, Floats]) -> Floats:
    """See `probes.studies.planted_heads.methods`; the questions of one stage are not those of another. `maps` are the
    scores of the methods before this one."""
    fit, retest, test = rows.stages(plan)
    calling, other = (_items(chat, texts[: plan.prompts]) for texts in (rows.calling, rows.other))
    undifferentiated, scaling = Ablation("undifferentiated"), Ablation("scaling")
    if method == "ablation":
        return ablation_map(chat, fit[: plan.ablated_questions])
    if method == "ships_ua":
        return ships_map(chat, calling, undifferentiated)
    if method == "ships_sc":
        return ships_map(chat, calling, scaling)
    if method == "contrast":
        return maps[_TAKES[method]] - ships_map(chat, other, undifferentiated)
    if method == "sahara":
        return sahara_map(chat, calling, steps=3)
    if method == "hsi":
        search = SearchPlan(aim="away", alpha=plan.alpha, search_questions=plan.search_questions, keep=plan.keep)
        return hsi_map(chat, fit, retest, search)
    return probe_map(chat, fit, test)


def _items(chat: ChatModel, texts: Sequence[str]) -> list[Encoded]:
    return [encode(chat, user_message(text)) for text in texts]


def _found(chat: ChatModel, scores: Floats, heads: Sequence[Site]) -> dict[str, Any]:
    """Ranks (1 is first, ties share the mean), and shares among the first; of the heads and of their groups."""
    ranks = [rank_of(scores, head) for head in heads]
    groups = [min(rank_of(scores, one) for one in group_of(chat.layout, head)) for head in heads]
    count = int(np.isfinite(scores).sum())
    return {
        "ranks": ranks,
        "group_ranks": groups,
        "scored": count,
        **{f"top_{k}": sum(rank <= k for rank in ranks) / len(heads) for k in FIRST},
        **{f"group_top_{k}": sum(rank <= k for rank in groups) / len(heads) for k in FIRST},
        **{f"chance_top_{k}": min(1.0, k / count) for k in FIRST},
    }


def rank_of(scores: Floats, head: Site) -> float:
    """The place of a head, 1 for the largest score; ties share the mean of their places, no score is last."""
    own, count = scores[head.layer, head.head], int(np.isfinite(scores).sum())
    if not np.isfinite(own):
        return float(count + 1)
    return float(1 + (scores > own).sum() + ((scores == own).sum() - 1) / 2)


def _recalls(trials: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By behaviour and method: shares over seeds (mean, and the worst seed), and mean CPU seconds."""
    found: dict[str, dict[str, Any]] = {}
    for behaviour in dict.fromkeys(trial["behaviour"] for trial in trials):
        of = [trial["methods"] for trial in trials if trial["behaviour"] == behaviour]
        found[behaviour] = {}
        for method in METHODS:
            shares = {key: [one[method][key] for one in of] for k in FIRST for key in (f"top_{k}", f"group_top_{k}")}
            found[behaviour][method] = {
                key: {"mean": float(np.mean(values)), "lowest": min(values)} for key, values in shares.items()
            } | {"seeds": len(of), "cpu_seconds": float(np.mean([one[method]["cpu_seconds"] for one in of]))}
    return found


def _finds(share: Mapping[str, float]) -> bool:
    """On average over seeds, and with one head at least in the worst of them: by chance one in a hundred."""
    return share["mean"] >= RECALL and share["lowest"] > 0


def _verdict(recalls: Mapping[str, Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]) -> Judgement:
    """Whether some method that is no yardstick finds what was planted, over all seeds of every behaviour.

    A behaviour whose heads the yardstick does not have in its first 10 tests nothing; among its first 3 may also be
    heads that the model had for it before.
    """
    sees = {
        behaviour: [m for m in METHODS if m != YARDSTICK and _finds(methods[m]["top_3"])]
        for behaviour, methods in recalls.items()
    }
    blind = [behaviour for behaviour, methods in recalls.items() if methods[YARDSTICK]["top_10"]["mean"] < RECALL]
    weak = [
        f"{trial['behaviour']}, seed {trial['seed']}: {refused['value']:.2f} of open requests are refused, so that a "
        "study of open refusals would have little to see"
        for trial in trials
        if (refused := trial["there"]["planted"].get("calling")) is not None and refused["value"] < HAS_BEHAVIOUR
    ]
    reasons = [
        f"{behaviour}: found by {', '.join(names) or 'no method'}, beside the yardstick"
        for behaviour, names in sees.items()
    ]
    warnings = [
        f"{behaviour}: ablating each head in turn does not have the planted ones in its first 10, so the truth is not "
        "as planned"
        for behaviour in blind
    ] + weak
    if not trials:
        return Judgement(Verdict.NOT_RUN, "no adapter was measured", reasons)
    sees = {behaviour: names for behaviour, names in sees.items() if behaviour not in blind}
    if not sees:
        return Judgement(Verdict.NOT_TESTABLE, "the yardstick does not name what was planted", reasons, warnings)
    every = all(sees.values())
    label = Verdict.WORKS_SPECIFIC if every else Verdict.NO_EFFECT if not any(sees.values()) else Verdict.UNDECIDED
    why = {
        Verdict.WORKS_SPECIFIC: "planted heads are among the first three of at least one method, for every behaviour",
        Verdict.NO_EFFECT: "no method but direct ablation names the planted heads among its first three",
        Verdict.UNDECIDED: "some behaviours' heads are found and others' are not",
    }[label]
    return Judgement(label, why, reasons, warnings)
