"""The verdicts of a transfer study, of each pair and over all pairs.

A pair's verdict: it is *not testable* where the receiver's own direction gains less than 0.15; the mapped direction
*works* when its gain is at least 0.15 and above 0; it is *specific* when it is also better than each kind of control
(interval above 0) and than every single control. *Noise* is a drop of bad answers without a gain of good ones.
Over all pairs a gain of 0.15 whose interval over models reaches 0 is *undecided*: two or three models say little of
others. Detection has a verdict of its own, from AUROC on the test questions (`probes.studies.transfer.detection`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.evaluation import Interval
from probes.steer.steering import Mode
from probes.studies.framework.verdict import DETECTS, EFFECT, FEWEST_DRAWS, Judgement, Verdict
from probes.studies.transfer.means import means

_PAIRS = (
    Verdict.WORKS_SPECIFIC,
    Verdict.WORKS_NOT_SPECIFIC,
    Verdict.NOISE,
    Verdict.NO_EFFECT,
    Verdict.NOT_TESTABLE,
)


def pair_verdict(own: float, gain: Interval, drop: Interval, over: Sequence[Interval], beats_all: bool) -> Verdict:
    """From the receiver's own gain, the gain and drop of the mapped direction, and its gain over each kind of control.

    `beats_all`: it has more good answers than every single control.
    """
    if own < EFFECT:
        return Verdict.NOT_TESTABLE
    if gain.value >= EFFECT and gain.low > 0:
        specific = beats_all and all(o.low > 0 for o in over)
        return Verdict.WORKS_SPECIFIC if specific else Verdict.WORKS_NOT_SPECIFIC
    return Verdict.NOISE if drop.value >= EFFECT and drop.low > 0 else Verdict.NO_EFFECT


def mode_verdict(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> Judgement:
    """Over pairs of different groups (over all pairs when there is one group)."""
    across = [p for p in pairs if groups[p["donor"]] != groups[p["receiver"]]] or list(pairs)
    overall = means(across, mode)
    counts = ", ".join(f"{v}: {overall['verdicts'].get(str(v), 0)}" for v in _PAIRS)
    gain, over = (Interval(**overall[name]) for name in ("gain", "over_controls"))
    drop = Interval(**overall["drop"])
    if overall["own_gain"]["value"] < EFFECT:
        label, words = Verdict.NOT_TESTABLE, "the receivers' own directions do not work either"
    elif gain.value >= EFFECT and gain.low <= 0:
        label, words = Verdict.UNDECIDED, "so few models do not say whether mapped directions transfer to others"
    elif gain.value < EFFECT:
        noise = drop.value >= EFFECT and drop.low > 0
        label = Verdict.NOISE if noise else Verdict.NO_EFFECT
        words = "mapped directions do not transfer" + (
            ": bad answers go, good ones do not come back" if drop.low > 0 else ""
        )
    elif over.low <= 0:
        label = Verdict.WORKS_NOT_SPECIFIC
        words = "mapped directions do no better than controls through the same map"
    elif overall["verdicts"].get(str(Verdict.WORKS_SPECIFIC), 0) * 2 >= len(across):
        label, words = Verdict.WORKS_SPECIFIC, "mapped directions are specific in most pairs"
    else:
        label = Verdict.WORKS_NOT_SPECIFIC
        words = "mapped directions do better than controls on average, and are specific in a minority of pairs"
    return Judgement(label, f"{words} (gain {gain}, over controls {over}; {len(across)} pairs: {counts})")


def detection_verdict(figures: dict[str, Any]) -> Judgement:
    mapped, own, over = (Interval(**figures[name]) for name in ("mapped", "own", "over_controls"))
    if own.value < DETECTS:
        label, words = Verdict.NOT_TESTABLE, "the receivers' own directions do not tell their conditions apart either"
    elif mapped.value < DETECTS:
        label, words = Verdict.NO_EFFECT, "mapped directions do not tell the receivers' conditions apart"
    elif over.low <= 0:
        label, words = Verdict.WORKS_NOT_SPECIFIC, "controls tell the receivers' conditions apart as well"
    else:
        label = Verdict.WORKS_SPECIFIC
        words = "mapped directions tell the receivers' conditions apart, controls do less"
    return Judgement(
        label, f"{words} (AUROC {mapped}, over controls {over}, receivers' own {own}; {figures['pairs']} pairs)"
    )


def text_warning(probes: Sequence[dict[str, Any]]) -> list[str]:
    """A warning where the receivers' conversations, without any model, tell the conditions apart as well."""
    probed = [p for p in probes if "text_only" in p]
    alike = [p for p in probed if p["text_only"]["value"] >= p["auroc"]["value"]]
    if not alike:
        return []
    return [f"the text alone tells the conditions apart as well in {len(alike)} of {len(probed)} receivers"]


def draws_warning(draws: int) -> list[str]:
    """Fewer random directions are no test at 5 %."""
    if draws >= FEWEST_DRAWS:
        return []
    return [f"random controls drawn {draws} times, fewer than {FEWEST_DRAWS} say little"]
