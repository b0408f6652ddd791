"""The verdict of a head-steering study: do the chosen heads move the choice, specifically, and open answers too?

Everything compared is held out. Against random heads and random directions the heads' rank among the draws is a p
value, (1 + draws that do as much) / (1 + draws), and at most 0.05 beats them: 20 draws can, 18 cannot. Against heads
ranked by a probe and against the layer-level vector it is paired by question: the control is as good when the 95 %
interval of the difference of the effects reaches zero. An effect that may be nothing is *no effect*; one that comes
with broken text, or that random directions of the same size in the same heads have as well, is *noise*; one that other
heads or a layer-level vector have as well is *works, not specific*. A control that was not tried, or with too few
draws, is not beaten: without random heads or random directions it is *works, specificity unknown*, a warning names what
is missing, and the paper's mark for it is not given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from probes.directions import Floats
from probes.evaluation import Interval, student_interval
from probes.statistics.nulls import Rank, rank_among
from probes.studies.framework.verdict import (
    CHOICES_RISE,
    FEW_HEADS,
    FEWEST_DRAWS,
    LESS_COHERENT,
    MORE_UNDEFINED,
    RANK_LEVEL,
    Judgement,
    Verdict,
)

CHOSEN, PLAIN_NAME, OPPOSITE = "chosen heads", "no intervention", "chosen heads, opposite sign"
RANDOM_DIRECTIONS, RANDOM_HEADS = "random directions", "random heads"
PROBE_HEADS, LAYER, FINE_TUNE = "heads ranked by a probe", "layer vector", "fine-tune"
WITHOUT_BEST = "chosen heads without the best"


def _named(names: Sequence[str], start: str) -> list[str]:
    return [n for n in names if n.startswith(start)]


def decide(
    effects: Mapping[str, Floats],
    undefined: Mapping[str, float],
    coherent: Mapping[str, float],
    unit: str,
    warnings: Sequence[str] = (),
) -> Judgement:
    """`effects` (questions,) a condition, in the wanted direction; `undefined` and `coherent` are shares of answers."""
    label, reason = _judged(effects, undefined, coherent, unit)
    return Judgement(label, reason, (reason,), (*warnings, *untried(effects)))


def untried(conditions: Collection[str]) -> list[str]:
    """What is missing among the names of conditions: kinds of control without one, and too few random draws."""
    missing = []
    for kind in (RANDOM_DIRECTIONS, RANDOM_HEADS):
        n = len(_named(list(conditions), kind))
        if n < FEWEST_DRAWS:
            missing.append(f"{n} {kind} were tried; at least {FEWEST_DRAWS} are a control")
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
) -> tuple[Verdict, str]:
    effect = student_interval(effects[CHOSEN])
    moved = f"On held-out questions they move the preference by {effect} {unit}."
    if undefined[CHOSEN] > undefined[PLAIN_NAME] + MORE_UNDEFINED:
        return Verdict.NOISE, f"{undefined[CHOSEN]:.0%} of the choices are undefined under the chosen heads."
    if effect.low <= 0:
        return Verdict.NO_EFFECT, f"{moved} That may be nothing."
    before, after = coherent[PLAIN_NAME], coherent[CHOSEN]
    if after < before - LESS_COHERENT:
        words = f"{moved} But the text breaks: {before:.0%} of open answers were coherent, now {after:.0%} are."
        return Verdict.NOISE, words
    equal = _as_good(effects, [RANDOM_DIRECTIONS])
    if equal:
        return Verdict.NOISE, f"{moved} But {_listed(equal)} of the same size in the same heads do as much."
    equal = _as_good(effects, [RANDOM_HEADS, PROBE_HEADS, LAYER])
    if equal:
        return Verdict.WORKS_NOT_SPECIFIC, f"{moved} But as much comes from: {_listed(equal)}."
    missing = [kind for kind in (RANDOM_DIRECTIONS, RANDOM_HEADS) if _few(effects, kind)]
    if missing:
        return Verdict.SPECIFICITY_UNKNOWN, f"{moved} Not tried often enough beside them: {_listed(missing)}."
    return Verdict.WORKS_SPECIFIC, f"{moved} No control does as much."


def rank(values: Mapping[str, float], kind: str) -> Rank:
    """`values`: what each condition does in the wanted direction."""
    return rank_among(values[CHOSEN], [values[n] for n in _named(list(values), kind)])


def ranks(effects: Mapping[str, Floats], opened: Mapping[str, Any], sign: float) -> dict[str, Any]:
    """The chosen heads' rank among the draws on held-out questions and on open answers, as plain data.

    `opened` is from `OpenAnswerRunner.figures`; a positive `sign` wants more of the behaviour.
    """
    answers = {n: sign * f["behaviour_change"]["value"] for n, f in opened.items()}
    on_choices = {kind: _rank(effects, kind) for kind in (RANDOM_DIRECTIONS, RANDOM_HEADS)}
    on_answers = {kind: rank(answers, kind) for kind in (RANDOM_DIRECTIONS, RANDOM_HEADS)}
    return {
        part: {kind: {"draws": r.draws, "as_much": r.as_good, "p": r.p} for kind, r in found.items()}
        for part, found in (("heldout", on_choices), ("open", on_answers))
    }


def _rank(effects: Mapping[str, Floats], kind: str) -> Rank:
    return rank({n: float(e.mean()) for n, e in effects.items()}, kind)


def _few(effects: Mapping[str, Floats], kind: str) -> bool:
    """Whether none of the draws does as much, but there are too few of them to say so."""
    found = _rank(effects, kind)
    return kind in (RANDOM_DIRECTIONS, RANDOM_HEADS) and found.as_good == 0 and found.p > RANK_LEVEL


def _as_good(effects: Mapping[str, Floats], kinds: Sequence[str]) -> list[str]:
    """The kinds that the chosen heads do not beat, see the module; too few draws that do less are none of them."""
    equal = []
    for kind in kinds:
        if kind in (RANDOM_DIRECTIONS, RANDOM_HEADS):
            found = _rank(effects, kind)
            not_beaten = found.as_good > 0 and found.p > RANK_LEVEL
        else:
            not_beaten = kind in effects and student_interval(effects[CHOSEN] - effects[kind]).low <= 0
        if not_beaten:
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
    curve: Sequence[Floats | None],
    effects: Mapping[str, Floats],
) -> dict[str, bool]:
    """Claims of the paper at our scale (`docs/science.md` B.4), each seen here or not; none for a control not run.

    `curve` is the effect by strength, question by question, weakest first; None where the choices break.
    """
    rise = float(wanted[CHOSEN].mean() - wanted[PLAIN_NAME].mean())
    shown = {
        "few heads survive the re-test (at most 3 %)": 0 < survivors <= max(1.0, FEW_HEADS * heads_tried),
        "wanted choices rise by 30 points": rise >= CHOICES_RISE,
        "inverted U over alpha": _inverted_u(curve),
    }
    for kind, name in (
        (RANDOM_HEADS, "random heads"),
        (RANDOM_DIRECTIONS, "random directions"),
        (PROBE_HEADS, "heads ranked by a probe"),
        (LAYER, "a layer-level vector"),
    ):
        if _named(list(effects), kind) and not _few(effects, kind):
            shown[f"beats {name}"] = not _as_good(effects, [kind])
    if WITHOUT_BEST in effects and student_interval(effects[CHOSEN]).low > 0:
        left = float(effects[WITHOUT_BEST].mean() / effects[CHOSEN].mean())
        shown["most is left without the best head"] = left > 0.5
    return shown


def _inverted_u(curve: Sequence[Floats | None]) -> bool:
    """Whether the effect surely is there at its top, rose to it, and surely falls, or breaks, beyond it."""
    means = [float("-inf") if at is None else float(at.mean()) for at in curve]
    top = int(np.argmax(means))
    best, last = curve[top], curve[-1]
    if best is None or not 0 < top < len(curve) - 1 or student_interval(best).low <= 0:
        return False
    return last is None or student_interval(best - last).low > 0
