"""Heads against a fine-tune: trained on the questions that heads were found with, and on fewer of both.

Figures are those of the held-out questions, as `conditions.held_out` gives them; differences are paired by question.
With few examples (`examples_curve`) everything that heads need comes from the same few questions: the directions, the
search, the re-test, which is no independent one then, and alpha. The fine-tune trains on the same questions.

Contract: an arm that did not learn its own examples, or gained nothing on held-out questions, is compared with nothing:
`comparable` is then `untestable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.binary_choice import BinaryChoice, Form, choices_hash
from probes.capture.sites import Site
from probes.errors import DataError
from probes.evaluation import Interval, paired_difference
from probes.heads.choice_scoring import PLAIN, ChoiceScorer
from probes.heads.search import joint, read_activations, search, site_directions
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.result_cache import ResultCache
from probes.studies.framework.verdict import EFFECT, Support
from probes.studies.head_steering.conditions import HeldOutFigures, add_condition, held_out
from probes.studies.head_steering.fine_tune import Arm, FineTunePlan, fine_tuned
from probes.studies.head_steering.plan import HeadsPlan
from probes.studies.head_steering.verdict import CHOSEN, FINE_TUNE, PLAIN_NAME


@dataclass(frozen=True)
class Setting:
    """What all arms of a study have in common; `identity` keeps the results of one study apart from another's."""

    chat: ChatModel
    form: Form
    plan: HeadsPlan
    folder: Path
    identity: dict[str, Any]
    progress: Progress = silent

    def cache(self, **what: Any) -> ResultCache:
        return ResultCache(self.folder, self.identity | {"form": self.form} | what)


def train_arm(setting: Setting, training: FineTunePlan, rows: Sequence[BinaryChoice]) -> Arm:
    """The fine-tune on these questions, towards what the plan's aim wants."""
    plan, aim = setting.plan, setting.plan.search.aim
    cache = setting.cache(fine_tune=asdict(training), aim=aim, on=choices_hash(rows))
    folder = setting.folder / f"fine-tune-{cache.key}"
    return fine_tuned(setting.chat, rows, setting.form, aim, folder, cache, training, plan.seed, setting.progress)


def add_arm(
    measured: HeldOutFigures, arm: Arm, scorer: ChoiceScorer, rows: Sequence[BinaryChoice], plan: HeadsPlan
) -> None:
    """The arm as one more condition of the held-out questions."""
    add_condition(measured, FINE_TUNE, FINE_TUNE, arm.outcomes(rows), scorer([PLAIN], rows), plan.search)


def described(arm: Arm, training: FineTunePlan, measured: HeldOutFigures) -> dict[str, Any]:
    """The arm as plain data, and what the heads' held-out choices are less than its own."""
    difference = paired_difference(measured.wanted[CHOSEN], measured.wanted[FINE_TUNE])
    gained = paired_difference(measured.wanted[FINE_TUNE], measured.wanted[PLAIN_NAME])
    return {
        "questions": arm.questions,
        "training": asdict(training),
        "adapter_sha256": arm.sha256,
        "own_wanted": arm.own_wanted,
        "learned": arm.learned,
        "wanted_difference": asdict(difference),
        "wanted_gained": asdict(gained),
        "comparable": str(comparable(difference, gained, learned=arm.learned)),
    }


def comparable(difference: Interval, gained: Interval, *, learned: bool) -> Support:
    """Are heads comparable to the fine-tune? From the difference of the wanted share, heads less fine-tune.

    They are when they surely fall short of it by less than the smallest effect of interest. A fine-tune that did not
    learn its own examples, or surely `gained` nothing on held-out questions, is nothing to be compared with.
    """
    if not learned or gained.low <= 0:
        return Support.UNTESTABLE
    if difference.low > -EFFECT:
        return Support.YES
    return Support.NO if difference.high < 0 else Support.UNSURE


def check_examples(plan: HeadsPlan, pool: Sequence[BinaryChoice]) -> None:
    """DataError when the curve asks for more questions than are not held out."""
    most = max(plan.examples, default=0)
    if most > len(pool):
        raise DataError(
            f"examples: {most} questions asked for, but {len(pool)} are not held out: give more questions "
            "(60 % are not held out) or smaller numbers"
        )


def examples_curve(
    setting: Setting,
    sites: Sequence[Site],
    pool: Sequence[BinaryChoice],
    heldout: Sequence[BinaryChoice],
) -> list[dict[str, Any]]:
    """Heads and a fine-tune with the first n questions of `pool`, for every n of the plan; plain data, one row an n."""
    plan = setting.plan
    if plan.fine_tune is None:
        return []
    check_examples(plan, pool)
    points = []
    for n in sorted(plan.examples):
        rows = pool[:n]
        setting.progress(f"heads and a fine-tune from {n} questions")
        cache = setting.cache(examples=n, on=choices_hash(rows))
        scorer = ChoiceScorer(setting.chat, setting.form, cache, plan.token_budget)
        directions = site_directions(read_activations(setting.chat, rows, setting.form, sites))
        found = search(scorer, directions, rows, rows, plan.search, setting.progress)
        trials = {PLAIN_NAME: PLAIN, CHOSEN: joint(directions, found.heads, found.alpha)}
        measured = held_out(scorer, trials, heldout, plan.search)
        arm = train_arm(setting, plan.fine_tune, rows)
        add_arm(measured, arm, scorer, heldout, plan)
        points.append(
            {
                "questions": n,
                "heads": [str(s) for s in found.heads],
                "alpha": found.alpha,
                "heldout": dict(measured.figures),
                "fine_tune": described(arm, plan.fine_tune, measured),
            }
        )
    return points
