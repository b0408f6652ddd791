"""The verdict of a head-steering study: do the chosen heads move the choice, specifically, and open answers too?

Everything compared is held out and paired by question: a control is as good as the chosen heads when the 95 %
interval of the difference of their effects reaches zero. Equal to a random direction of the same size in the same
heads is `noise`; equal to other heads or to a layer-level vector is `works, not specific`. A control that was not
tried is not beaten: without random heads or random directions it is `works, specificity unknown`, a warning names what
is missing, and the paper's mark for it is not given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.directions import Floats
from probes.evaluation import Interval, student_interval

_MORE_UNDEFINED = 0.1
_LESS_COHERENT = 0.15
_PAPER_RISE = 0.30
# Fewer random directions or heads are no control (`docs/science.md` D.6).
_DRAWS = 5

CHOSEN, PLAIN_NAME, OPPOSITE = "chosen heads", "no intervention", "chosen heads, opposite sign"
RANDOM_DIRECTIONS, RANDOM_HEADS = "random directions", "random heads"
PROBE_HEADS, LAYER = "heads ranked by a probe", "layer vector"
WITHOUT_BEST = "chosen heads without the best"


@dataclass(frozen=True)
class Verdict:
    """`label`: `works and specific`, `works, not specific`, `works, specificity unknown` or `noise`; see the module.

    `reasons` are sentences.
    """

    label: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.label}: {' '.join(self.reasons)}"


def _named(names: Sequence[str], start: str) -> list[str]:
    return [n for n in names if n.startswith(start)]


def decide(
    effects: Mapping[str, Floats],
    undefined: Mapping[str, float],
    coherent: Mapping[str, float],
    unit: str,
    warnings: Sequence[str] = (),
) -> Verdict:
    """`effects` (questions,) a condition, in the wanted direction; `undefined` and `coherent` are shares of answers."""
    label, reason = _judged(effects, undefined, coherent, unit)
    return Verdict(label, (reason, *(f"Warning: {w}." for w in (*warnings, *untried(effects)))))


def untried(conditions: Collection[str]) -> list[str]:
    """What is missing among the names of conditions: kinds of control without one, and fewer than five random draws."""
    missing = []
    for kind in (RANDOM_DIRECTIONS, RANDOM_HEADS):
        n = len(_named(list(conditions), kind))
        if n < _DRAWS:
            missing.append(f"{n} {kind} were tried; at least {_DRAWS} are a control")
    return missing + [f"{kind}: not tried" for kind in (PROBE_HEADS, LAYER) if kind not in conditions]


def text_warnings(detector: Mapping[str, Any]) -> list[str]:
    """A warning when the text alone tells the held-out answers apart as well; `detector` is its card's evaluation."""
    text, own = detector["text_only"]["auroc"], detector["test"]["auroc"]
    if text["low"] <= 0.5 or text["high"] < own["value"]:
        return []
    return [
        f"the text alone tells the two answers apart as well (AUROC {Interval(**text)}, the detector "
        f"{Interval(**own)}): the labels may be a copy of the text"
    ]


def _judged(
    effects: Mapping[str, Floats], undefined: Mapping[str, float], coherent: Mapping[str, float], unit: str
) -> tuple[str, str]:
    effect = student_interval(effects[CHOSEN])
    moved = f"On held-out questions they move the preference by {effect} {unit}."
    if undefined[CHOSEN] > undefined[PLAIN_NAME] + _MORE_UNDEFINED:
        return "noise", f"{undefined[CHOSEN]:.0%} of the choices are undefined under the chosen heads."
    if effect.low <= 0:
        return "noise", f"{moved} That may be nothing."
    before, after = coherent[PLAIN_NAME], coherent[CHOSEN]
    if after < before - _LESS_COHERENT:
        return "noise", f"{moved} But the text breaks: {before:.0%} of open answers were coherent, now {after:.0%} are."
    equal = _as_good(effects, [RANDOM_DIRECTIONS])
    if equal:
        return "noise", f"{moved} But {_listed(equal)} of the same size in the same heads do as much."
    equal = _as_good(effects, [RANDOM_HEADS, PROBE_HEADS, LAYER])
    if equal:
        return "works, not specific", f"{moved} But as much comes from: {_listed(equal)}."
    missing = [kind for kind in (RANDOM_DIRECTIONS, RANDOM_HEADS) if not _named(list(effects), kind)]
    if missing:
        return "works, specificity unknown", f"{moved} Not tried beside them: {_listed(missing)}."
    return "works and specific", f"{moved} No control does as much."


def _as_good(effects: Mapping[str, Floats], kinds: Sequence[str]) -> list[str]:
    """The kinds of which one condition is not surely worse than the chosen heads."""
    equal = []
    for kind in kinds:
        differences = [student_interval(effects[CHOSEN] - effects[n]) for n in _named(list(effects), kind)]
        if any(d.low <= 0 for d in differences):
            equal.append(kind)
    return equal


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def transfer_sentence(figures: Mapping[str, Any], behaviour: str) -> str:
    """Does the effect carry over to open answers? From `OpenAnswerRunner.figures` of plain and chosen."""
    before, after = figures[PLAIN_NAME]["behaviour"], figures[CHOSEN]["behaviour"]
    change = figures[CHOSEN]["behaviour_change"]
    moved = f"{behaviour} in {before['value']:.2f} of the open answers before, {after['value']:.2f} after"
    spread = f"change {change['value']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]"
    sure = change["high"] < 0 or change["low"] > 0
    return f"{'It carries over' if sure else 'It does not surely carry over'}: {moved} ({spread}, n={before['n']})."


def marks(
    heads_tried: int,
    survivors: int,
    wanted: Mapping[str, Floats],
    curve: Sequence[float],
    effects: Mapping[str, Floats],
) -> dict[str, bool]:
    """Claims of the paper at our scale (`docs/science.md` B.4), each seen here or not; none for a control not run."""
    rise = float(wanted[CHOSEN].mean() - wanted[PLAIN_NAME].mean())
    top = int(np.argmax(curve))
    shown = {
        "few heads survive the re-test (at most 3 %)": 0 < survivors <= max(1.0, 0.03 * heads_tried),
        "wanted choices rise by 30 points": rise >= _PAPER_RISE,
        "inverted U over alpha": 0 < top < len(curve) - 1,
    }
    for kind, name in (
        (RANDOM_HEADS, "random heads"),
        (RANDOM_DIRECTIONS, "random directions"),
        (PROBE_HEADS, "heads ranked by a probe"),
        (LAYER, "a layer-level vector"),
    ):
        if _named(list(effects), kind):
            shown[f"beats {name}"] = not _as_good(effects, [kind])
    if WITHOUT_BEST in effects:
        left = float(effects[WITHOUT_BEST].mean() / max(float(effects[CHOSEN].mean()), 1e-9))
        shown["most is left without the best head"] = left > 0.5
    return shown
