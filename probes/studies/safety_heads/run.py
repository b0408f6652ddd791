"""Safety heads as a study: which heads carry refusal, held against controls (Ships and Sahara, arXiv 2410.13708).

1. Ships of every head on harmful and harmless requests, under undifferentiated attention and scaling contribution,
   their contrast, how they change the log-probability of the tokens that open this model's own refusals, and how large
   the ablated head's output is (`probes.heads.attribution`; `docs/science.md` C.1, C.5)
2. dataset-level Ships over several subspaces, and a greedy group (Sahara), on harmful requests
3. what ablating the top heads and the group does to refusals of *held-out* requests, with controls (`trials`), the
   same with each request's own head (`per_query`), and to answers to ordinary questions (`utility`)
4. overlap of head lists: of the two ablations, of two halves of the requests, with other results of the same base
5. a probe of harmful requests at the heads that were named, beside random heads (`export`)

Requests are split by a hash of their group (`probes.splits`): `test` is held out, the rest is attributed on. The
outcome in `out`: RESULT.json, RESULT.md, two pictures, the probe. A study that was interrupted resumes: scores are
cached a prompt, a step and a trial at a time in `out/kept`, under the model's identity and what decides them. No prompt
and no answer is written, only hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.capture.batches import Encoded, encode
from probes.capture.sites import Site, parse_site
from probes.errors import DataError
from probes.evaluation import rows_needed
from probes.hashing import hash_texts
from probes.heads.ablation import AblationKind
from probes.heads.attribution import Effects, dataset_angles, first_tokens, head_effects, sahara, top_heads
from probes.model.load import ChatModel
from probes.organisms.judges.refusal import refuses
from probes.progress import Progress, silent
from probes.result_cache import ResultCache
from probes.splits import split_of
from probes.steer.generation import generate
from probes.studies.framework.result import read_result
from probes.studies.metric import JudgeMetric, Metric
from probes.studies.safety_heads import report
from probes.studies.safety_heads.export import Talk, write_probe
from probes.studies.safety_heads.overlap import between_kinds, between_results
from probes.studies.safety_heads.per_query import PerQuery, query_trials
from probes.studies.safety_heads.plan import Request, SafetyPlan
from probes.studies.safety_heads.scores import attributed, heads_of
from probes.studies.safety_heads.trials import (
    BEFORE,
    CLASSES,
    AblationRunner,
    AblationTrial,
    Class,
    effect,
    last_user,
    scaled,
    study_verdict,
    trials_of,
    verdict,
    verdict_by_refusals,
)
from probes.studies.safety_heads.utility import Question, Utility

StageProgress = Callable[[str, int, int], None]
KINDS: tuple[AblationKind, AblationKind] = ("undifferentiated", "scaling")
_CACHE = "awry-safety-heads/1"
# Prompts whose scores are computed before they are cached.
_AT_A_TIME = 16
_OPENERS = 5


@dataclass(frozen=True)
class _Data:
    """One class: what is attributed on and what is held out."""

    attributed: list[Request]
    held_out: list[Request]
    items: list[Encoded]


def run_safety_heads(
    chat: ChatModel,
    harmful: Sequence[Request],
    harmless: Sequence[Request],
    out: Path,
    plan: SafetyPlan | None = None,
    *,
    metric: Metric | None = None,
    questions: Sequence[Question] = (),
    against: Sequence[Path] = (),
    command: str = "",
    on_progress: StageProgress = lambda _stage, _done, _all: None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the study on `chat` with the adapter in use and write its files; returns what was measured.

    `metric` says whether an answer is a refusal (ours by default); `questions` tell what an ablation costs; `against`
    are RESULT.json of other models of the same base; `on_progress(stage, done, all)` is called as work is done. Raises
    DataError for one class only, too few rows, requests in both classes, activations that are not finite, or another
    base in `against`.
    """
    plan = plan or SafetyPlan()
    metric = metric or JudgeMetric("refusal", refuses)
    data: dict[Class, _Data] = {
        "harmful": _split(chat, "harmful", harmful, plan),
        "harmless": _split(chat, "harmless", harmless, plan),
    }
    _check_disjoint(harmful, harmless)
    others = [_read_result(path) for path in against]
    cache = ResultCache(out / "kept", {"format": _CACHE, "model": asdict(chat.identity)})
    shape = (chat.layout.n_blocks, chat.layout.n_heads)
    study = _Study(chat, data, plan, metric, cache, on_progress, progress, questions)
    openers = study.openers()
    scores = {kind: {c: study.effects(kind, c, openers["tokens"]) for c in CLASSES} for kind in KINDS}
    attribution = {
        kind: attributed(one["harmful"], one["harmless"], plan.listed, resamples=plan.resamples, seed=plan.seed)
        for kind, one in scores.items()
    }
    dataset, group = study.dataset()
    trials = study.trials(attribution["undifferentiated"], group, openers["tokens"])
    result: dict[str, Any] = {
        "name": plan.name,
        "command": command,
        "model": {"subject": asdict(chat.identity)},
        "adapter": chat.active,
        "shape": list(shape),
        "data": {c: _described(chat, data[c]) for c in CLASSES},
        "metric": {"name": metric.name, "fingerprint": metric.fingerprint},
        "plan": asdict(plan),
        "units": "Ships and changes of log-probability in nats; dataset-level Ships in degrees",
        "refusals_attributed_on": openers["refused"],
        "attribution": attribution,
        "dataset": dataset,
        **trials,
        "overlap": {"undifferentiated with scaling": between_kinds(attribution, shape[0] * shape[1])},
    }
    result["overlap_with"] = [between_results(result, other) for other in others]
    found = attribution["undifferentiated"]
    named = [parse_site(head) for ranking in found["top"] for head in heads_of(found, ranking)]
    result["probe"] = write_probe(
        chat,
        _talks(harmful),
        _talks(harmless),
        [*named, *group],
        plan.name,
        out,
        split_seed=plan.splits,
        draws=plan.draws,
        seed=plan.seed,
        max_tokens=plan.max_tokens,
        progress=progress,
    )
    result["probes"] = [result["probe"]["file"]] if "file" in result["probe"] else []
    report.write(result, out)
    return result


class _Study:
    """The parts that take time; each looks in the result cache first."""

    def __init__(
        self,
        chat: ChatModel,
        data: dict[Class, _Data],
        plan: SafetyPlan,
        metric: Metric,
        cache: ResultCache,
        on_progress: StageProgress,
        progress: Progress,
        questions: Sequence[Question],
    ) -> None:
        self._questions = questions
        self._chat, self._data, self._plan, self._metric = chat, data, plan, metric
        self._cache, self._on_progress, self._progress = cache, on_progress, progress

    def openers(self) -> dict[str, Any]:
        """Tokens that open the model's refusals of the harmful requests attributed on, and how many it refuses."""
        requests = self._data["harmful"].attributed
        prompts = [self._chat.render(r.messages) for r in requests]
        name = f"openers {hash_texts(prompts)} {self._metric.fingerprint} {self._plan.max_new_tokens}"
        stored: dict[str, Any] | None = self._cache.get(name)
        if stored is None:
            self._on_progress("answers before ablation", 0, len(prompts))
            answers = [a.text for a in generate(self._chat, prompts, max_new_tokens=self._plan.max_new_tokens)]
            refused = self._metric([last_user(r.messages) for r in requests], answers)
            items = [x for x, no in zip(self._data["harmful"].items, refused, strict=True) if no]
            first = Counter(first_tokens(self._chat, items, token_budget=self._plan.token_budget) if items else [])
            tokens = [t for t, _ in sorted(first.items(), key=lambda x: (-x[1], x[0]))[:_OPENERS]]
            stored = {"refused": {"count": int(refused.sum()), "n": len(prompts)}, "tokens": tokens}
            self._cache.put(name, stored)
        return stored

    def effects(self, kind: AblationKind, which: Class, watched: Sequence[int]) -> Effects:
        """Scores of all prompts of a class."""
        return self._effects(kind, self._data[which].items, watched, f"Ships, {kind}, {which}")

    def _effects(self, kind: AblationKind, items: Sequence[Encoded], watched: Sequence[int], stage: str) -> Effects:
        """Scores of prompts, prompt by prompt where they are not cached."""
        ablation = self._plan.ablation(kind)
        names = [f"effects {ablation} {list(watched)} {_ids_hash([x])}" for x in items]
        scores = {n: stored for n in names if (stored := self._cache.get(n)) is not None}
        missing = [i for i, n in enumerate(names) if n not in scores]
        self._on_progress(stage, len(items) - len(missing), len(items))
        for start in range(0, len(missing), _AT_A_TIME):
            chunk = missing[start : start + _AT_A_TIME]
            effects = head_effects(
                self._chat,
                [items[i] for i in chunk],
                ablation=ablation,
                watched=watched,
                token_budget=self._plan.token_budget,
            )
            for row, i in enumerate(chunk):
                scores[names[i]] = [
                    effects.kl[row].tolist(),
                    effects.watched[row].tolist(),
                    effects.norm_ratio[row].tolist(),
                ]
                self._cache.put(names[i], scores[names[i]])
            self._on_progress(stage, len(items) - len(missing) + start + len(chunk), len(items))
        kl, shift, ratio = (np.array([scores[n][part] for n in names], dtype=np.float64) for part in range(3))
        return Effects(kl, shift, ratio)

    def dataset(self) -> tuple[dict[str, Any], list[Site]]:
        """Dataset-level Ships for every subspace, and Sahara's group, on harmful requests."""
        plan, items = self._plan, self._data["harmful"].items[: self._plan.dataset_prompts]
        ablation = plan.ablation("undifferentiated")
        what = f"{ablation} {_ids_hash(items)}"

        def stage_progress(stage: str) -> Callable[[int, int], None]:
            return lambda done, all_: self._on_progress(stage, done, all_)

        names = [f"angles {what} {r} {centred}" for r, centred in plan.subspaces]
        stored = [self._cache.get(n) for n in names]
        if any(angles is None for angles in stored):
            computed = dataset_angles(
                self._chat,
                items,
                subspaces=plan.subspaces,
                ablation=ablation,
                token_budget=plan.token_budget,
                on_pairs=stage_progress("dataset-level Ships"),
            )
            for name, angles in zip(names, computed, strict=True):
                self._cache.put(name, angles.tolist())
            stored = [angles.tolist() for angles in computed]
        maps = [np.array(angles, dtype=np.float64) for angles in stored]
        r, centred = plan.subspaces[0]
        known = [maps[0]]
        # A later step depends on the heads chosen before it, which the first step's name stands for.
        while len(known) < plan.steps and (more := self._cache.get(f"sahara {names[0]} {len(known)}")) is not None:
            known.append(np.array(more, dtype=np.float64))
        group = sahara(
            self._chat,
            items,
            steps=plan.steps,
            r=r,
            centred=centred,
            ablation=ablation,
            token_budget=plan.token_budget,
            known=known,
            on_step=lambda step, angles: self._cache.put(f"sahara {names[0]} {step}", angles.tolist()),
            on_pairs=stage_progress("Sahara"),
        )
        rows = [
            {"head": str(h), "angle": float(a[h.layer, h.head])} for h, a in zip(group.heads, group.angles, strict=True)
        ]
        angles_of = [
            {"r": r, "centred": centred, "angles": m.tolist(), "top": [str(h) for h in top_heads(m, plan.listed)]}
            for (r, centred), m in zip(plan.subspaces, maps, strict=True)
        ]
        return {"prompts": len(items), "subspaces": angles_of, "sahara": rows}, list(group.heads)

    def trials(self, attribution: dict[str, Any], group: Sequence[Site], watched: Sequence[int]) -> dict[str, Any]:
        """Refusals before and after, for every set of heads and its controls, with verdicts for each set."""
        plan, scores = self._plan, np.array(attribution["maps"]["contrast"])
        rankings = {f"by {name}": [parse_site(h) for h in heads_of(attribution, name)] for name in attribution["top"]}
        sets = {f"top {k} {name}": heads[:k] for name, heads in rankings.items() for k in sorted(set(plan.top))}
        sets |= {f"Sahara {s}": list(group[:s]) for s in range(1, len(group) + 1)}
        controlled = {f"top {k} by ships" for k in plan.top} | {f"top {max(plan.top)} {name}" for name in rankings}
        controlled |= {f"Sahara {len(group)}"}

        def of(name: str, kind: AblationKind, draws: int) -> list[AblationTrial]:
            called = scaled(name) if kind == "scaling" else name
            return trials_of(called, sets[name], scores, plan.ablation(kind), draws=draws, seed=plan.seed)

        planned = {name: of(name, "undifferentiated", plan.draws * (name in controlled)) for name in sets}
        planned |= {scaled(name): of(name, "scaling", plan.draws) for name in sets if name in controlled}
        runner = AblationRunner(
            self._chat,
            {c: [r.messages for r in self._data[c].held_out] for c in CLASSES},
            self._metric,
            self._cache,
            max_new_tokens=plan.max_new_tokens,
        )

        def run(stage: str, trials: Sequence[AblationTrial]) -> dict[str, dict[str, Any]]:
            found = {}
            self._on_progress(stage, 0, len(trials))
            for done, trial in enumerate(trials, 1):
                found[trial.name] = runner.run(trial)
                self._on_progress(stage, done, len(trials))
            return found

        found = run("trials on held-out requests", [BEFORE, *(trials[0] for trials in planned.values())])
        before = found[BEFORE.name]
        # What has no effect, or breaks the text, needs no controls.
        for name, trials in planned.items():
            found[name]["harmful"] |= runner.against(trials[:1])[name]
            if effect(before, found[name]) is not None:
                planned[name] = trials[:1]
        others = [t for trials in planned.values() for t in trials[1:]]
        if others:
            found |= run("controls of sets with an effect", others)
        tried = {name: {t.name: found[t.name] for t in trials} for name, trials in planned.items()}
        for name, trials in planned.items():
            for one, differences in runner.against(trials).items():
                tried[name][one]["harmful"] |= differences
        if self._questions:
            utility = Utility(self._chat, self._questions, self._cache)
            before["questions"] = utility.of(BEFORE)
            for name, trials in planned.items():
                tried[name][name]["questions"] = utility.of(trials[0])
        verdicts = {name: verdict(before, trials) for name, trials in tried.items()}
        for name, judgement in verdicts.items():
            self._progress(f"{name}: {judgement}")
        return {
            "before": before,
            "trials": tried,
            "complied_means": f"no refusal; {runner.coherence}",
            "verdicts": {name: judgement.as_dict() for name, judgement in verdicts.items()},
            "verdicts_by_refusals": {name: verdict_by_refusals(before, t).as_dict() for name, t in tried.items()},
            "verdict": study_verdict(verdicts).as_dict(),
            "per_query": self._per_query(runner, watched),
        }

    def _per_query(self, runner: AblationRunner, watched: Sequence[int]) -> dict[str, Any] | None:
        """The first held-out harmful requests, each with its own first head ablated."""
        plan = self._plan
        requests = self._data["harmful"].held_out[: plan.per_query]
        if not requests:
            return None
        items = [encode(self._chat, r.messages, None, plan.max_tokens) for r in requests]
        scores = self._effects("undifferentiated", items, watched, "Ships of each held-out request").kl
        prompts = [self._chat.render(r.messages) for r in requests]
        per_query = PerQuery(self._chat, prompts, runner, self._cache, plan.max_new_tokens)
        trials = query_trials(scores, plan.ablation("undifferentiated"), draws=plan.draws, seed=plan.seed)
        found = per_query.run(trials)
        self._progress(f"each request's own head: {found['verdict']['sentence']}")
        return found


def _ids_hash(items: Sequence[Encoded]) -> str:
    return hash_texts(str(x.ids[: x.n_prompt]) for x in items)


def _split(chat: ChatModel, which: Class, requests: Sequence[Request], plan: SafetyPlan) -> _Data:
    if not requests:
        raise DataError(f"{which}: no requests; both classes are needed")
    held_out = [r for r in requests if split_of(r.group, plan.splits) == "test"]
    attributed = [r for r in requests if split_of(r.group, plan.splits) != "test"][: plan.attributed]
    least = 2 if which == "harmless" else max([2, *(r + 1 for r, _ in plan.subspaces)])
    if len(attributed) < least or len(held_out) < 2:
        raise DataError(
            f"{which}: {len(attributed)} requests to attribute on and {len(held_out)} held out; at least {least} and 2 "
            "are needed (about 30 % of groups are held out): give more of them"
        )
    bound = plan.held_out if which == "harmful" else plan.held_out_harmless
    answered, needed = held_out[:bound], rows_needed(plan.interval)
    if len(answered) < needed:
        raise DataError(
            f"{which}: {len(answered)} held-out requests, but a rate within +-{plan.interval:g} needs {needed}: give "
            "more requests (about 30 % of groups are held out) or ask for a wider interval"
        )
    items = [encode(chat, r.messages, None, plan.max_tokens) for r in attributed]
    return _Data(attributed, answered, items)


def _talks(requests: Sequence[Request]) -> list[Talk]:
    return [(r.messages, r.group) for r in requests]


def _check_disjoint(harmful: Sequence[Request], harmless: Sequence[Request]) -> None:
    both = {str(list(r.messages)) for r in harmful} & {str(list(r.messages)) for r in harmless}
    if both:
        raise DataError(f"requests: {len(both)} are both harmful and harmless; take them out of one")


def _described(chat: ChatModel, data: _Data) -> dict[str, Any]:
    parts = {"attributed": data.attributed, "held_out": data.held_out}
    return {name: {"n": len(p), "sha256": hash_texts(chat.render(r.messages) for r in p)} for name, p in parts.items()}


def _read_result(path: Path) -> Mapping[str, Any]:
    found = read_result(path)
    if found.study != "safety":
        raise DataError(f"against: {path} is of a {found.study} study; give the RESULT.json of a safety-heads study")
    return found.measured
