"""The fine-tune that heads are compared with: a LoRA trained towards the same choice, on as many examples.

The paper says that steering a few heads is comparable to supervised fine-tuning, and that it needs only a few examples
(arXiv 2502.05945; `docs/science.md` B.3). Its recipe is not known; ours is that of awry's adapters
(`probes.organisms.train`): the question as the user asks it, the wanted choice as the answer, all linear layers. A
choice that ends in a colon is an opening, and the fine-tune learns no end there.

Contract: `fine_tuned` leaves the given model as it is and trains a copy of it, with the adapter in use merged in, so
that both methods start from the same model; memory for a second copy is needed. The adapter is written to a folder and
not trained again while it is there. An arm that did not learn its own examples is no comparison (`Arm.learned`).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.binary_choice import BinaryChoice, Form, letters_message, misaligned_letter
from probes.errors import DataError
from probes.heads.choice_scoring import PLAIN, ChoiceOutcomes, ChoiceScorer
from probes.heads.search import Aim
from probes.model.adapters import AdapterSpec
from probes.model.load import ChatModel, add_adapter, wrap
from probes.organisms.finetunes import Example, Recipe
from probes.organisms.train import Hyperparameters, train
from probes.progress import Progress, silent
from probes.result_cache import ResultCache

NAME = "fine-tune"
# An arm has learned when it makes the wanted choice in this share of its own examples.
LEARNED = 0.8


@dataclass(frozen=True)
class FineTunePlan:
    """How an arm is trained; the learning rate is Adam's peak."""

    steps: int = 40
    batch: int = 4
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.learning_rate <= 0:
            raise DataError("fine-tune: steps and batch must be at least 1, the learning rate above zero")


@dataclass(frozen=True)
class Arm:
    """A fine-tuned model: how many questions it was trained on, and the share of them that it then chooses as wanted.

    `chat.base()` is the model that it started from.
    """

    chat: ChatModel
    scorer: ChoiceScorer
    questions: int
    own_wanted: float
    sha256: str

    @property
    def learned(self) -> bool:
        return self.own_wanted >= LEARNED

    def outcomes(self, rows: Sequence[BinaryChoice]) -> ChoiceOutcomes:
        """What it chooses, (1, questions)."""
        return self.scorer([PLAIN], rows)


def examples_of(rows: Sequence[BinaryChoice], form: Form, aim: Aim) -> list[Example]:
    """What the model is trained to answer; in the `letters` form both orders of each question."""
    examples = []
    for row in rows:
        if form == "likelihood":
            text = row.text(misaligned=aim == "towards")
            examples.append(Example(row.question, text, ends=not text.rstrip().endswith(":")))
            continue
        for swapped in (False, True):
            bad = misaligned_letter(row, swapped=swapped)
            letter = bad if aim == "towards" else ("B" if bad == "A" else "A")
            examples.append(Example(letters_message(row, swapped=swapped), f"({letter})"))
    return examples


def fine_tuned(
    chat: ChatModel,
    rows: Sequence[BinaryChoice],
    form: Form,
    aim: Aim,
    folder: Path,
    cache: ResultCache,
    plan: FineTunePlan,
    seed: int = 0,
    progress: Progress = silent,
) -> Arm:
    """Train on `rows` (or take what `folder` holds) and see what it makes of them; `cache` keeps its choices."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        examples = examples_of(rows, form, aim)
        recipe = Recipe(
            NAME, NAME, False, plan.steps, plan.learning_rate, lambda _: list(examples), "a choice", decays=True
        )

        def shown(step: int, steps: int, loss: float) -> None:
            if step % 10 == 0 or step == steps:
                progress(f"fine-tune on {len(rows)} questions: step {step} of {steps}, loss {loss:.2f}")

        settings = Hyperparameters(batch=plan.batch, seed=seed)
        train(copy_in_use(chat), recipe, partial, settings, shown, checkpoint=folder.with_suffix(".checkpoint"))
        partial.rename(folder)
    tuned = copy_in_use(chat)
    spec = AdapterSpec(folder, 1.0, NAME)
    add_adapter(tuned, spec)
    scorer = ChoiceScorer(tuned, form, cache)
    own = scorer([PLAIN], rows)
    wanted = own.misaligned if aim == "towards" else own.aligned
    return Arm(tuned, scorer, len(rows), float(wanted.mean()), spec.sha256)


def copy_in_use(chat: ChatModel) -> ChatModel:
    """A second model that does what `chat` does, with the adapter in use merged into its weights."""
    model = copy.deepcopy(chat.model)
    if chat.active is not None:
        model = model.merge_and_unload(adapter_names=[chat.active])  # type: ignore[operator]
    elif chat.adapters:
        model = model.unload()  # type: ignore[operator]
    return wrap(model, chat.tokenizer, name=chat.name, revision=chat.revision, special_tokens=chat.special_tokens)
