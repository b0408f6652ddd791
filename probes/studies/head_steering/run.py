"""Head-specific intervention (HSI) as a study: heads are found, steered and compared with controls.

HSI (arXiv 2502.05945; `docs/science.md` B) on a given model and two-choice data. The search is `probes.heads.search`;
its alpha must also leave the answers to the `select` messages coherent. What is reported is held out: questions of the
`heldout` split and the `test` messages, which choose nothing, beside the controls of
`probes.studies.head_steering.conditions`.

The outcome, in `out`: RESULT.json, RESULT.md, heads.png, alpha.png, and a head-level probe file (a detector) that
carries the steering recipe where the verdict says that it works. The recipe always steers *away*: its alpha is
negative. A study that was interrupted resumes: what was measured is cached in `out/kept`, under the model's identity,
the data and the parameters that decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from probes.binary_choice import BinaryChoice, ChoiceSplits, Form, choices_hash, split_choices
from probes.capture.sites import Site, check_site, head_sites
from probes.card import Probe, save_probe
from probes.directions import Floats
from probes.errors import DataError
from probes.evaluation import rows_needed
from probes.hashing import hash_texts
from probes.heads.choice_scoring import PLAIN, ChoiceScorer, SteeringTrial
from probes.heads.search import (
    Search,
    probe_accuracy,
    read_activations,
    search,
    site_directions,
)
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.result_cache import ResultCache
from probes.steer.recipe import with_recipe
from probes.steer.steering import Intervention
from probes.studies.framework.verdict import MORE_UNDEFINED, Judgement
from probes.studies.head_steering import report
from probes.studies.head_steering.comparison import (
    Setting,
    add_arm,
    check_examples,
    described,
    examples_curve,
    train_arm,
)
from probes.studies.head_steering.conditions import (
    HeldOutFigures,
    Readings,
    curves,
    held_out,
    probe_ranked,
    settled_conditions,
)
from probes.studies.head_steering.export import detector
from probes.studies.head_steering.open_answers import BASE, CONTROL, OpenAnswerRunner
from probes.studies.head_steering.plan import HeadsPlan, Messages
from probes.studies.head_steering.verdict import (
    CHOSEN,
    FINE_TUNE,
    LAYER,
    OPPOSITE,
    PLAIN_NAME,
    PROBE_HEADS,
    RANDOM_DIRECTIONS,
    RANDOM_HEADS,
    WITHOUT_BEST,
    decide,
    marks,
    ranks,
    text_warnings,
    transfer_sentence,
)
from probes.studies.metric import Metric

_DEFINED, _CONSISTENT = 0.8, 0.6


@dataclass(frozen=True)
class HeadsResult:
    """`result` is what was measured, as its report shows it; `probe` was written to `probe_path`."""

    result: dict[str, Any]
    verdict: Judgement
    probe: Probe
    probe_path: Path


def run_heads(
    chat: ChatModel,
    choices: Sequence[BinaryChoice],
    messages: Messages,
    metric: Metric,
    out: Path,
    plan: HeadsPlan | None = None,
    *,
    heads: Sequence[Site] | None = None,
    control: str | None = None,
    command: str = "",
    progress: Progress = silent,
) -> HeadsResult:
    """Run the study on `chat` with the adapter in use; `heads` restricts the search, else all heads are tried.

    `control` names a loaded adapter whose answers are of the same style and harmless: a reference of coherence. Raises
    DataError for too few rows, SiteError for heads that the model lacks, DirectionError for activations that are not
    finite. Heads without a direction, a search without survivors, controls that were not tried, and a text that tells
    the answers apart as well as the detector are warnings in the verdict.
    """
    plan = plan or HeadsPlan()
    sites = _candidates(chat, heads)
    splits, pool = _splits(choices, plan)
    common = {"format": 1, "model": asdict(chat.identity), "data": choices_hash(choices), "seed": plan.seed}
    cache = ResultCache(out / "kept", common)
    form, why = _form(chat, splits, plan, cache, progress)
    # Directions, and so what a trial's name stands for, depend on the form.
    asked = {"style": control} | ({} if form == "likelihood" else {"form": form})
    answers = ResultCache(out / "kept", common | {"metric": metric.fingerprint, "tokens": plan.max_new_tokens} | asked)
    scorer = ChoiceScorer(chat, form, cache, plan.token_budget, on_question=_question_progress(progress))
    read = _read(chat, splits, form, sites, progress)
    found = search(scorer, read.heads, splits.search, splits.retest, plan.search, progress)
    runner, test = (
        OpenAnswerRunner(
            chat, texts, metric, answers, max_new_tokens=plan.max_new_tokens, control=control, progress=progress
        )
        for texts in (messages.select, messages.test)
    )
    trials = settled_conditions(scorer, runner, read, found, splits.retest, plan)
    alpha = trials[CHOSEN].shifts[0].alpha
    progress(f"reporting on {len(splits.heldout)} held-out questions and {len(messages.test)} messages")
    grids = curves(scorer, read, found, trials, splits.heldout, plan)
    everything = trials | {t.name: t for grid in grids.values() for t in grid}
    heldout = held_out(scorer, everything, splits.heldout, plan.search)
    grid = grids[CHOSEN]
    opened = _open(test, trials, grid, plan)
    setting = Setting(chat, form, plan, out / "kept", common, progress)
    other = _other_form(setting, trials, splits)
    tuned = None
    if plan.fine_tune is not None:
        arm = train_arm(setting, plan.fine_tune, [*splits.search, *splits.retest])
        add_arm(heldout, arm, scorer, splits.heldout, plan)
        answers_of = SteeringTrial(f"{FINE_TUNE} {arm.sha256[:16]}")
        opened[FINE_TUNE] = test.figures(test.run(answers_of, arm.chat), test.run(PLAIN))
        tuned = described(arm, plan.fine_tune, heldout)
        del arm  # a second copy of the model
    curve = examples_curve(setting, sites, pool, splits.heldout)
    ranked = probe_ranked(read.accuracy, read.heads, len(found.heads))
    sets = {"steered heads": found.heads, PROBE_HEADS: ranked}
    probe = detector(
        chat,
        splits,
        sets,
        messages.benign,
        messages.test,
        metric,
        name=plan.name,
        max_new_tokens=plan.max_new_tokens,
        target_fpr=plan.target_fpr,
        seed=plan.seed,
    )
    warnings = [
        *found.warnings,
        *scorer.warnings,
        *_at_the_edge(found, plan),
        *text_warnings(probe.card.evaluation),
        *_broken(cache, answers),
    ]
    verdict = decide(
        {n: heldout.effects[n] for n in trials},
        heldout.share("undefined"),
        {n: opened[n]["coherent"]["value"] for n in (PLAIN_NAME, CHOSEN)},
        _unit(form),
        warnings,
    )
    verdict = replace(verdict, reasons=(*verdict.reasons, transfer_sentence(opened, metric.name)))
    recipe = [read.heads.shift(s, -abs(alpha)) for s in found.heads]
    if verdict.label.works:
        away = CHOSEN if plan.search.aim == "away" else OPPOSITE
        measured = {"verdict": verdict.sentence} | {
            part: {n: figures[n] for n in (PLAIN_NAME, away)}
            for part, figures in (("heldout", heldout.figures), ("open", opened))
        }
        probe = with_recipe(probe, [Intervention(s.direction, "add", s.alpha, "last") for s in recipe], measured)
    names = [t.name for t in grid]
    result: dict[str, Any] = {
        "command": command,
        "name": plan.name,
        "verdict": verdict.as_dict(),
        "model": {"subject": asdict(chat.identity)},
        "adapter": chat.active,
        "control": control,
        "data": {"sha256": choices_hash(choices), **{name: len(part) for name, part in vars(splits).items()}},
        "messages": {name: {"n": len(t), "sha256": hash_texts(t)} for name, t in vars(messages).items()},
        "metric": {"name": metric.name, "fingerprint": metric.fingerprint},
        "form": {"used": form, "why": why, "unit": _unit(form)},
        "reading": "heads' outputs at the token that closes the assistant's turn; steering at positions last",
        "plan": asdict(plan),
        "heads": [_described(read, s, alpha) for s in found.heads],
        "alpha": alpha,
        "base_choices": _base_choices(chat, form, splits, plan),
        "search": _searched(found, read),
        "heldout": {n: heldout.figures[n] for n in heldout.figures if n in trials or n == FINE_TUNE},
        "open": {n: f for n, f in opened.items() if n not in names},
        "alpha_curve": {
            "alphas": [t.shifts[0].alpha for t in grid],
            "heldout": [heldout.figures[n] for n in names],
            "open": [opened[n] for n in names],
        },
        "layer_curve": {
            "sites": [str(s.site) for s in trials[LAYER].shifts] if LAYER in trials else [],
            "alphas": [t.shifts[0].alpha for t in grids.get(LAYER, ())],
            "heldout": [heldout.figures[t.name] for t in grids.get(LAYER, ())],
        },
        "ranks": ranks({n: heldout.effects[n] for n in trials}, opened, plan.search.sign),
        "good_means": f"no behaviour; {test.coherence}",
        "other_form": other,
        "fine_tune": tuned,
        "examples_curve": curve,
        "paper": marks(
            len(read.heads.by_site),
            len(found.survivors),
            heldout.wanted,
            [_whole_effect(heldout, n) for n in names],
            {n: heldout.effects[n] for n in trials},
        ),
        "detector": probe.card.evaluation | {"threshold": probe.card.threshold, "name": probe.name},
        "recipe": [{"site": str(s.site), "mode": "add", "alpha": s.alpha, "positions": "last"} for s in recipe],
        "recipe_in_card": bool(probe.interventions),
    }
    path = save_probe(probe, out)
    result["probes"] = [path.with_suffix(".json").name]
    report.write(result, (chat.layout.n_blocks, chat.layout.n_heads), out)
    return HeadsResult(result, verdict, probe, path)


def _candidates(chat: ChatModel, heads: Sequence[Site] | None) -> list[Site]:
    if heads is None:
        return head_sites(chat.layout)
    for site in heads:
        check_site(site, chat.layout)
        if site.kind != "head":
            raise DataError(f"heads: {site} is no head; write head[BLOCK,HEAD]")
    if not heads:
        raise DataError("heads: none given; leave it out to try all")
    return list(dict.fromkeys(heads))


def _splits(choices: Sequence[BinaryChoice], plan: HeadsPlan) -> tuple[ChoiceSplits, list[BinaryChoice]]:
    """What the study uses of each split, and all questions that are not held out."""
    whole = split_choices(choices)
    splits = ChoiceSplits(whole.search, whole.retest[: plan.retest_questions], whole.heldout[: plan.heldout_questions])
    needed = rows_needed(plan.interval)
    if len(splits.heldout) < needed:
        raise DataError(
            f"choices: {len(splits.heldout)} held-out questions, but a rate within +-{plan.interval:g} needs {needed}: "
            "give more questions (40 % are held out) or ask for a wider interval"
        )
    if len(splits.search) < plan.search.search_questions or len(splits.retest) < 5:
        raise DataError(
            f"choices: {len(splits.search)} questions to search on and {len(splits.retest)} to re-test; at least "
            f"{plan.search.search_questions} and 5 are needed: give more questions"
        )
    pool = [*whole.search, *whole.retest]
    check_examples(plan, pool)
    return splits, pool


def _form(
    chat: ChatModel, splits: ChoiceSplits, plan: HeadsPlan, cache: ResultCache, progress: Progress
) -> tuple[Form, str]:
    """Letters where the model can choose one, else likelihoods."""
    if plan.form != "auto":
        return plan.form, "as asked"
    progress("can the model choose a letter?")
    outcomes = ChoiceScorer(chat, "letters", cache)([PLAIN], splits.retest)
    defined = 1 - float(outcomes.undefined.mean())
    # The same choice in both orders, and not the same letter.
    consistent = float((np.abs(outcomes.margin) == 1).mean())
    why = f"{defined:.0%} of its answers name one letter, {consistent:.0%} of choices hold in both orders"
    if defined >= _DEFINED and consistent >= _CONSISTENT:
        return "letters", why
    return "likelihood", f"{why}; letters need {_DEFINED:.0%} and {_CONSISTENT:.0%}"


def _whole_effect(heldout: HeldOutFigures, name: str) -> Floats | None:
    """The effect on each held-out question; None where the choices break."""
    undefined = heldout.share("undefined")
    broken = undefined[name] > undefined[PLAIN_NAME] + MORE_UNDEFINED
    return None if broken else heldout.effects[name]


def _unit(form: Form) -> str:
    return "nats a token" if form == "likelihood" else "(share of answers)"


def _question_progress(progress: Progress) -> Callable[[int, int], None]:
    def on_question(done: int, of: int) -> None:
        if done == of or done % 5 == 0:
            progress(f"question {done} of {of}")

    return on_question


def _at_the_edge(found: Search, plan: HeadsPlan) -> list[str]:
    last = found.doses[-1]
    if not np.isfinite(last.objective) or last.objective < max(d.objective for d in found.doses):
        return []
    return [
        f"the effect still rises at alpha {abs(last.alpha):g}, near the strongest allowed ({plan.search.strongest:g})"
    ]


def _broken(*caches: ResultCache) -> list[str]:
    n = sum(cache.broken for cache in caches)
    return [f"{n} kept results were not whole and were measured again"] if n else []


def _read(chat: ChatModel, splits: ChoiceSplits, form: Form, sites: Sequence[Site], progress: Progress) -> Readings:
    layers = [Site("residual", b) for b in sorted({s.layer for s in sites})]
    progress(f"reading {len(sites)} heads on {len(splits.search)} questions")
    fit = read_activations(chat, splits.search, form, [*sites, *layers])
    test = read_activations(chat, splits.retest, form, sites)
    at_heads = fit.only(sites)
    return Readings(site_directions(at_heads), site_directions(fit.only(layers)), probe_accuracy(at_heads, test))


def _other_form(setting: Setting, trials: Mapping[str, SteeringTrial], splits: ChoiceSplits) -> dict[str, Any]:
    """The same trials on the held-out questions, asked in the form that found none of them."""
    form: Form = "letters" if setting.form == "likelihood" else "likelihood"
    # A trial's name stands for the directions of the form in use.
    scorer = ChoiceScorer(setting.chat, form, setting.cache(asked=form), setting.plan.token_budget)
    shown = {n: t for n, t in trials.items() if n in (PLAIN_NAME, CHOSEN, OPPOSITE, PROBE_HEADS, LAYER)}
    measured = held_out(scorer, shown, splits.heldout, setting.plan.search)
    return {"form": form, "unit": _unit(form), "heldout": measured.figures}


def _open(
    test: OpenAnswerRunner, trials: dict[str, SteeringTrial], grid: Sequence[SteeringTrial], plan: HeadsPlan
) -> dict[str, Any]:
    numbered = (RANDOM_DIRECTIONS, RANDOM_HEADS)
    left_out = {f"{kind} {i}" for kind in numbered for i in range(plan.open_draws, plan.draws)} | {WITHOUT_BEST}
    plain = test.run(PLAIN)
    shown = {n: t for n, t in trials.items() if n not in left_out} | {t.name: t for t in grid}
    arms = {BASE.name: test.base} | ({} if test.control is None else {CONTROL.name: test.control})
    figures = {name: test.figures(answers, plain) for name, answers in arms.items()}
    return figures | {name: test.figures(test.run(trial), plain) for name, trial in shown.items()}


def _base_choices(chat: ChatModel, form: Form, splits: ChoiceSplits, plan: HeadsPlan) -> dict[str, Any] | None:
    """How the model without its adapter chooses on the held-out questions."""
    if chat.active is None:
        return None
    with chat.base():
        measured = held_out(ChoiceScorer(chat, form), {PLAIN_NAME: PLAIN}, splits.heldout, plan.search)
    return {key: measured.figures[PLAIN_NAME][key] for key in ("wanted", "undefined", "margin")}


def _described(read: Readings, site: Site, alpha: float) -> dict[str, Any]:
    """Alpha in the units that can be compared: class gaps and the norm of the head's output (`docs/science.md` B.5)."""
    direction = read.heads.by_site[site]
    moved = abs(alpha) * direction.sigma
    return {
        "site": str(site),
        "sigma": direction.sigma,
        "class_gap": direction.norm,
        "shift_in_class_gaps": moved / direction.norm,
        "shift_over_norm": moved / read.heads.sizes[site],
        "probe_accuracy": read.accuracy[site],
    }


def _searched(found: Search, read: Readings) -> dict[str, Any]:
    return {
        "singles": {str(s): asdict(i) for s, i in found.singles.items()},
        "retest": {str(s): asdict(i) for s, i in found.retest.items()},
        "survivors": [str(s) for s in found.survivors],
        "steps": found.steps,
        "skipped": {str(s): why for s, why in read.heads.skipped.items()},
        "probe_accuracy": {str(s): a for s, a in read.accuracy.items()},
    }
