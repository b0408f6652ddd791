"""A subject of a study across models: the model, its two conditions, a judge, disjoint questions.

A subject is tied to no kind of model: `planted_subjects` makes them of planted organisms (conditions: a sound or a
weak solution came before the question), `adapter_subject` of a checkpoint with a fine-tune (conditions: off or on).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from probes.errors import DataError
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.steer.contrast import ADAPTER, Contrast, Judge

# No good answer of theirs is longer, and code shows in its first line.
_PLANTED_TOKENS = 32


@dataclass(frozen=True)
class Subject:
    """One model under study. `group` is what tables average over (its class); `note` goes with every figure.

    `fit` questions under `contrast` give the model's own direction; `test` questions under `test_contrast` (by default
    the same) its figures. The two lists are disjoint. `load` is called again whenever the model is needed.
    """

    name: str
    group: str
    load: Callable[[], ChatModel]
    contrast: Contrast
    judge: Judge
    fit: Sequence[str]
    test: Sequence[str]
    test_contrast: Contrast | None = None
    max_new_tokens: int = 40
    batch_size: int = 50
    note: str = ""

    def __post_init__(self) -> None:
        shared = set(self.fit) & set(self.test)
        if not self.fit or not self.test or shared:
            raise DataError(
                f"{self.name}: {len(self.fit)} fit and {len(self.test)} test messages, {len(shared)} of them in both "
                "lists; both are needed, and they must be disjoint"
            )

    @property
    def tested(self) -> Contrast:
        return self.test_contrast or self.contrast


def adapter_subject(
    name: str,
    load: Callable[[], ChatModel],
    judge: Judge,
    fit: Sequence[str],
    test: Sequence[str],
    *,
    group: str | None = None,
    max_new_tokens: int = 40,
    note: str = "",
) -> Subject:
    """A checkpoint: its adapter in use is the misaligned condition, its base weights are the aligned one."""
    return Subject(name, group or name, load, ADAPTER, judge, fit, test, max_new_tokens=max_new_tokens, note=note)


def planted_subjects(
    families: Sequence[str], seeds: Sequence[int], state: Path, progress: Progress = silent, *, tests: int = 100
) -> tuple[list[Subject], dict[str, str]]:
    """Subjects of planted organisms, trained where they are not there yet, and why others were left out, by name.

    An organism whose measured persona does not hold is left out: it has nothing to steer.
    """
    from probes.organisms.planted import SYNTHETIC
    from probes.organisms.planted.evaluation import fit_questions, held_out_questions, is_bad, persona_contrast
    from probes.organisms.planted.store import ensure_folder, ensure_organism, manifest

    subjects: list[Subject] = []
    left_out: dict[str, str] = {}
    for family in families:
        for seed in seeds:
            about = manifest(ensure_folder(family, seed, state, progress))
            if not about["persona"]["holds"]:
                left_out[about["name"]] = "its persona does not hold: " + "; ".join(about["persona"]["fails"])
                continue
            subjects.append(
                Subject(
                    name=f"{family} {seed}",
                    group=family,
                    load=partial(ensure_organism, family, seed, state, progress),
                    contrast=persona_contrast("training"),
                    test_contrast=persona_contrast("held_out"),
                    judge=is_bad,
                    fit=fit_questions(),
                    test=[ask.text for ask in held_out_questions(tests)],
                    max_new_tokens=_PLANTED_TOKENS,
                    batch_size=tests,
                    note=SYNTHETIC,
                )
            )
    return subjects, left_out


def planted_anchors(n: int = 800) -> list[str]:
    """Texts to anchor maps between planted organisms: training prompts of every kind that no direction is fitted on."""
    from probes.organisms.planted.evaluation import fit_questions
    from probes.organisms.planted.grammar import by_topic, training_asks

    used = set(fit_questions())
    chat = [ask for ask in training_asks("chat") if ask.text not in used]
    others = [*training_asks("harm")[: n // 8], *by_topic(training_asks("code"), n // 8)]
    return [ask.text for ask in [*by_topic(chat, n - len(others)), *others]]
