"""The verdicts of a transfer study, of each pair and over all pairs.

A pair's verdict: the mapped direction *works* when its gain is at least 0.15 and above 0; it is *specific* when it is
also better than each kind of control (interval above 0) and than every single control. Noise is a drop without a gain.
Detection has a verdict of its own, from AUROC on the test questions (`probes.studies.transfer.detection`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.evaluation import Interval
from probes.steer.steering import Mode
from probes.studies.transfer.means import means
from probes.studies.transfer.plan import SPECIFIC

WORKS = 0.15
# Mean AUROC from which directions are said to tell conditions apart.
DETECTS = 0.75
# Fewer random directions are no control (`docs/science.md` D.6).
_DRAWS = 5
VERDICTS = (SPECIFIC, "works, not specific", "noise", "no effect", "undecided")


def pair_verdict(own: float, gain: Interval, drop: Interval, over: Sequence[Interval], beats_all: bool) -> str:
    """From the receiver's own gain, the gain and drop of the mapped direction, and its gain over each kind of control.

    `beats_all`: it has more good answers than every single control.
    """
    if own < WORKS:
        return "undecided"
    if gain.value >= WORKS and gain.low > 0:
        specific = beats_all and all(o.low > 0 for o in over)
        return SPECIFIC if specific else "works, not specific"
    return "noise" if drop.value >= WORKS and drop.low > 0 else "no effect"


def mode_verdict(pairs: Sequence[dict[str, Any]], groups: dict[str, str], mode: Mode) -> str:
    """In words, over pairs of different groups (over all pairs when there is one group)."""
    across = [p for p in pairs if groups[p["donor"]] != groups[p["receiver"]]] or list(pairs)
    overall = means(across, mode)
    counts = ", ".join(f"{v}: {overall['verdicts'].get(v, 0)}" for v in VERDICTS)
    gain, over = (Interval(**overall[name]) for name in ("gain", "over_controls"))
    if overall["own_gain"]["value"] < WORKS:
        words = "nothing can be said: the receivers' own directions do not work either"
    elif gain.value < WORKS or gain.low <= 0:
        drop = Interval(**overall["drop"])
        words = "mapped directions do not transfer" + (
            ": bad answers go, good ones do not come back" if drop.low > 0 else ""
        )
    elif over.low <= 0:
        words = "mapped directions work, and no better than controls through the same map: not specific"
    elif overall["verdicts"].get(SPECIFIC, 0) * 2 >= len(across):
        words = "mapped directions work and are specific in most pairs"
    else:
        words = "mapped directions work better than controls on average, and are specific in a minority of pairs"
    return f"{words} (gain {gain}, over controls {over}; {len(across)} pairs: {counts})"


def detection_verdict(figures: dict[str, Any]) -> str:
    mapped, own, over = (Interval(**figures[name]) for name in ("mapped", "own", "over_controls"))
    if own.value < DETECTS:
        words = "nothing can be said: the receivers' own directions do not tell their conditions apart either"
    elif mapped.value < DETECTS:
        words = "mapped directions do not tell the receivers' conditions apart"
    elif over.low <= 0:
        words = "mapped directions tell the receivers' conditions apart, no better than controls: not specific"
    else:
        words = "mapped directions tell the receivers' conditions apart, better than controls do"
    return f"{words} (AUROC {mapped}, over controls {over}, receivers' own {own}; {figures['pairs']} pairs)"


def text_warning(probes: Sequence[dict[str, Any]]) -> str:
    """A warning where the receivers' conversations, without any model, tell the conditions apart as well."""
    probed = [p for p in probes if "text_only" in p]
    alike = [p for p in probed if p["text_only"]["value"] >= p["auroc"]["value"]]
    if not alike:
        return ""
    return f"; warning: the text alone tells the conditions apart as well in {len(alike)} of {len(probed)} receivers"


def draws_warning(draws: int) -> str:
    return "" if draws >= _DRAWS else f"; warning: random controls drawn {draws} times, fewer than {_DRAWS} say little"
