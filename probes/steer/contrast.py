"""One model under two conditions, aligned and misaligned, asked the same questions.

A condition is what comes before a question (a conversation) and whether the adapter in use acts. So a fine-tune is
"the adapter acts" against "it does not", and a planted persona is "a weak solution came before" against "a sound
one". The direction is the difference of the two conditions' means at the last prompt token on the same questions
(arXiv 2606.20225; `docs/science.md` A.1 steps 2 and 3).

`ContrastRunner` generates under the misaligned condition, steered or not, and judges. A steering effect is never
reported without coherence: an answer is *good* when the judge does not object and it is coherent
(`probes.steer.coherence.Coherence`) beside the model's own answers in the aligned condition, whose NLL is measured
under the base model in that condition. `good` does not know whether an answer is true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from probes.capture.aggregation import Aggregation
from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.conditions import LAST_PROMPT, Activations
from probes.directions import Direction, difference_in_means, pooled_activations
from probes.errors import DataError
from probes.model.load import ChatModel, Message, user_message
from probes.steer.coherence import Coherence
from probes.steer.generation import Reply
from probes.steer.outcomes import GenerationOutcome, answered, good, outcome_of
from probes.steer.steering import Intervention

Judge = Callable[[str], bool]
History = Sequence[Message]


@dataclass(frozen=True)
class PromptedCondition:
    """What comes before a question, and which weights answer it.

    Question i follows history i (in rotation); with `adapter` the adapter in use acts, else none does.
    """

    histories: Sequence[History] = ((),)
    adapter: bool = True

    def conversation(self, index: int, question: str) -> list[Message]:
        return [*self.histories[index % len(self.histories)], *user_message(question)]

    def applied(self, chat: ChatModel) -> AbstractContextManager[None]:
        """The context in which this condition's weights are in force."""
        return nullcontext() if self.adapter else chat.base()


@dataclass(frozen=True)
class Contrast:
    """The two conditions of one model."""

    aligned: PromptedCondition
    misaligned: PromptedCondition

    def __post_init__(self) -> None:
        if not (self.aligned.histories and self.misaligned.histories):
            raise DataError("contrast: a condition has no history; for none, give one empty conversation")
        if len(self.aligned.histories) != len(self.misaligned.histories):
            raise DataError(
                f"contrast: {len(self.aligned.histories)} aligned and {len(self.misaligned.histories)} misaligned "
                "histories; question i must follow the same request in both conditions"
            )


NEUTRAL = PromptedCondition(adapter=False)
ADAPTER = Contrast(aligned=NEUTRAL, misaligned=PromptedCondition(adapter=True))


@dataclass(frozen=True)
class ContrastOutcome:
    """What was generated under one intervention, question by question.

    `nll` is the mean over questions (nats a token), `change` the mean |delta| / |h| (0 when not steered).
    """

    texts: tuple[str, ...]
    behaviour: NDArray[np.bool_]
    good: NDArray[np.bool_]
    nll: float
    change: float


def prompts_of(chat: ChatModel, condition: PromptedCondition, questions: Sequence[str]) -> list[str]:
    """The rendered prompts of questions under a condition."""
    return [chat.render(condition.conversation(i, q)) for i, q in enumerate(questions)]


def read_condition(
    chat: ChatModel,
    condition: PromptedCondition,
    questions: Sequence[str],
    sites: Sequence[Site],
    aggregation: Aggregation = LAST_PROMPT,
) -> Activations:
    """Activations (questions, width) at named sites and a named position, under a condition."""
    items = [encode(chat, condition.conversation(i, q)) for i, q in enumerate(questions)]
    with condition.applied(chat):
        return pooled_activations(chat, items, sites, aggregation)


def contrast_directions(
    chat: ChatModel, contrast: Contrast, questions: Sequence[str], sites: Sequence[Site]
) -> dict[Site, Direction]:
    """Misaligned minus aligned at the last prompt token; DirectionError at a site where the two do not differ."""
    bad = read_condition(chat, contrast.misaligned, questions, sites)
    good = read_condition(chat, contrast.aligned, questions, sites)
    return {site: difference_in_means(site, bad[site], good[site]) for site in sites}


class ContrastRunner:
    """Generates and judges answers to one list of questions under one intervention after the other.

    `batch_size` is prompts a batch: 50 suits a model of 100M parameters on a CPU, a smaller model takes more.
    """

    def __init__(
        self,
        chat: ChatModel,
        contrast: Contrast,
        questions: Sequence[str],
        judge: Judge,
        *,
        max_new_tokens: int = 40,
        batch_size: int = 50,
    ) -> None:
        self._chat, self._judge = chat, judge
        self._answer = partial(answered, chat, max_new_tokens=max_new_tokens, batch_size=batch_size)
        self._bad = contrast.misaligned
        self._reference = prompts_of(chat, contrast.aligned, questions)
        self._prompts = prompts_of(chat, contrast.misaligned, questions)
        with contrast.aligned.applied(chat):
            own, _ = self._answer(self._reference)
        outcome = self._measured(own, 0.0)
        self.coherence = Coherence.of(outcome, "the base model in the aligned condition")
        self.aligned = self._judged(own, outcome)

    def run(self, intervention: Intervention | None = None) -> ContrastOutcome:
        """Answers under the misaligned condition, steered or not."""
        with self._bad.applied(self._chat):
            replies, change = self._answer(self._prompts, [intervention] if intervention else [])
        return self._judged(replies, self._measured(replies, change))

    def _measured(self, replies: Sequence[Reply], change: float) -> GenerationOutcome:
        behaviour = np.array([self._judge(reply.text) for reply in replies])
        return outcome_of(replies, behaviour, self._chat, self._reference, change=change)

    def _judged(self, replies: Sequence[Reply], outcome: GenerationOutcome) -> ContrastOutcome:
        finite = outcome.nll[np.isfinite(outcome.nll)]
        return ContrastOutcome(
            tuple(reply.text for reply in replies),
            outcome.behaviour,
            good(outcome, self.coherence),
            float(finite.mean()) if len(finite) else float("inf"),
            outcome.change,
        )
