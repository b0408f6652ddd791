"""One vocabulary of verdicts and one set of margins for every study.

Contract: code compares members of these enums and never reads a sentence; sentences are for people. A value of an enum
is plain words and is what RESULT.json holds. `Judgement` is a verdict with the figures that led to it.

What the labels of an intervention (steering, ablation, a mapped direction) mean:

- *works and specific*: the effect is there, the text stays coherent, and no control of equal size does as much;
- *works, not specific*: the effect is there, and some control that is a direction or a set of heads of its own (another
  layer, another fine-tune, other heads) does as much;
- *works, specificity unknown*: the effect is there, and the controls that could say more were not run or do not decide;
- *noise*: the behaviour changes because the text breaks, or as much under random directions of equal size in the same
  place;
- *no effect*: less than the smallest effect of interest, or an interval that reaches zero;
- *undecided*: too few items to tell the effect, or the best control, from none;
- *not testable*: the model lacks the behaviour, or the yardstick (own direction, fine-tune) does nothing;
- *not run*: the measurement was left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from probes.statistics.nulls import LEAST_DRAWS, LEVEL

EFFECT = 0.15
"""Smallest change of a rate (of behaviour, good answers, refusals) that counts as an effect (`docs/science.md` A.4)."""
CONTROL_MARGIN = 0.10
"""A control whose rate comes closer than this does as well."""
LESS_COHERENT = 0.15
"""A fall of the share of coherent answers that counts as broken text."""
MORE_UNDEFINED = 0.10
"""A rise of the share of undefined choices that counts as broken text."""
HAS_BEHAVIOUR = 0.20
"""Least share of answers with the behaviour before the intervention: below it there is nothing to take away."""
SAME_DIRECTION = 0.7
"""Cosine from which another block's direction is the same direction, and no control."""
CHOICES_RISE = 0.30
"""Rise of wanted choices that arXiv 2502.05945 reports at least."""
DETECTS = 0.75
"""AUROC from which a direction is said to tell conditions apart."""
SEPARATES = 0.95
"""Balanced accuracy that counts as the separation of arXiv 2606.20225 (99.6 % there; `docs/science.md` A.4)."""
NEAR_CHANCE = 0.65
"""An accuracy whose interval ends below this, and reaches 0.5, is that of a direction that separates nothing."""
TIE = 0.05
"""Two accuracies or AUROCs closer than this are alike."""
TEXT_BROKEN = 0.5
"""Share of good answers below which a text is called broken where no paired figures are at hand."""
FEW_HEADS = 0.03
"""Largest share of heads that is still `few` (arXiv 2502.05945 finds 2 to 3 % of them)."""
RANK_LEVEL = LEVEL
"""Largest rank p value, (1 + draws that do as much) / (1 + draws), at which random draws are beaten."""
FEWEST_DRAWS = LEAST_DRAWS
"""Fewest random draws with which `RANK_LEVEL` can be reached with one to spare."""
RECALL = 0.8
"""Share of planted heads in the top 3 from which a method is said to find a head that is there."""


class Verdict(StrEnum):
    """What an intervention did, see the module."""

    WORKS_SPECIFIC = "works and specific"
    WORKS_NOT_SPECIFIC = "works, not specific"
    SPECIFICITY_UNKNOWN = "works, specificity unknown"
    NOISE = "noise"
    NO_EFFECT = "no effect"
    UNDECIDED = "undecided"
    NOT_TESTABLE = "not testable"
    NOT_RUN = "not run"

    @property
    def works(self) -> bool:
        """Whether the effect is there and the text stays, whatever the controls do."""
        return self in (Verdict.WORKS_SPECIFIC, Verdict.WORKS_NOT_SPECIFIC, Verdict.SPECIFICITY_UNKNOWN)


class Support(StrEnum):
    """What one study says of one claim."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"
    UNTESTABLE = "untestable"
    UNMEASURED = "unmeasured"


class ClaimOutcome(StrEnum):
    """What all studies together say of one claim of a paper."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    MIXED = "mixed"
    NOT_TESTABLE = "not testable here"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Judgement:
    """A verdict, why (a clause that completes "label: ..."), the reasons one by one, and warnings.

    `differences` are intervals by name, as plain data, for rules that need more than the label.
    """

    label: Verdict
    why: str
    reasons: Sequence[str] = ()
    warnings: Sequence[str] = ()
    differences: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        return f"{self.label}: {self.why}"

    def __str__(self) -> str:
        return self.sentence

    def as_dict(self) -> dict[str, Any]:
        """What RESULT.json holds under `verdict`."""
        return {
            "label": str(self.label),
            "sentence": self.sentence,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "differences": dict(self.differences),
        }
