"""The plan of a head-steering study and the messages that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from probes.errors import DataError
from probes.heads.search import SearchPlan
from probes.studies.head_steering.fine_tune import FineTunePlan


@dataclass(frozen=True)
class Messages:
    """Disjoint lists of user messages: `select` checks alphas, `test` is reported on, `benign` sets the threshold."""

    select: Sequence[str]
    test: Sequence[str]
    benign: Sequence[str]

    def __post_init__(self) -> None:
        lists = [set(self.select), set(self.test), set(self.benign)]
        if sum(map(len, lists)) != len(set().union(*lists)):
            raise DataError("messages: select, test and benign share some; a choice must not see what it is judged on")
        if min(map(len, lists[:2])) < 2 or len(lists[2]) < 20:
            raise DataError("messages: at least 2 in select and in test and 20 in benign are needed")


@dataclass(frozen=True)
class HeadsPlan:
    """What the study does. `interval` is the widest half-width that a rate on the held-out questions may have.

    `draws` random heads and directions are tried on held-out questions, `open_draws` of them on open answers.
    `layer_alphas` are in sigmas of the residual stream: where their grid starts. None takes all questions of a split.
    `fine_tune` None leaves that comparison out; `examples` are the numbers of questions of the examples curve, which
    needs it.
    """

    name: str = "heads"
    search: SearchPlan = field(default_factory=SearchPlan)
    form: Literal["auto", "letters", "likelihood"] = "auto"
    layer_alphas: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    retest_questions: int | None = None
    heldout_questions: int | None = None
    interval: float = 0.2
    draws: int = 20
    open_draws: int = 5
    max_new_tokens: int = 40
    target_fpr: float = 0.05
    seed: int = 0
    token_budget: int = 1024
    fine_tune: FineTunePlan | None = field(default_factory=FineTunePlan)
    examples: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.examples and self.fine_tune is None:
            raise DataError("examples: the curve compares heads with a fine-tune; leave it out, or allow the fine-tune")
        if any(n < 2 for n in self.examples):
            raise DataError("examples: at least 2 questions are needed to find heads")
