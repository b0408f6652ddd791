"""Verdicts of a study between families: of each direction by itself, and of the study.

Detection *works* when the AUROC is at least `READS` and above 0.5 with its interval; steering when the effect is at
least `SHIFTS` nats a token, above 0 with its interval, and the text stays coherent (else it is noise). Either is
*specific* when it also beats every kind of random direction: by rank (`RANK_LEVEL`), and, for steering, above their
mean with its interval. Steering is *not specific* where it surely is ahead of the mean of some kind by less than
`SHIFTS`, or is behind it; between, its *specificity is unknown*. A mapped direction can be judged only where the
receiver's own works. Both margins are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from probes.studies.framework.verdict import RANK_LEVEL, Judgement, Verdict

Plain = Mapping[str, Any]
# What a request is, is read less sharply than which condition a model is in (`DETECTS` of the framework).
READS = 0.6
SHIFTS = 0.1
WORKS = frozenset({Verdict.WORKS_SPECIFIC, Verdict.WORKS_NOT_SPECIFIC, Verdict.SPECIFICITY_UNKNOWN})


def detection_verdict(found: Plain, own: Plain | None) -> Verdict:
    """Of figures with `auroc` and `controls`; `own` is the receiver's own, with its verdict, for a mapped direction."""
    if own is not None and own["verdict"] not in WORKS:
        return Verdict.NOT_TESTABLE
    if found["auroc"]["value"] < READS or found["auroc"]["low"] <= 0.5:
        return Verdict.NO_EFFECT
    return _specific(all(c["p"] <= RANK_LEVEL for c in found["controls"].values()))


def steering_verdict(found: Plain, own: Plain | None) -> Verdict:
    """Of figures with `effect`, `coherent` and `controls`; `own` as for detection."""
    if own is not None and own["verdict"] not in WORKS:
        return Verdict.NOT_TESTABLE
    if found["effect"]["value"] < SHIFTS or found["effect"]["low"] <= 0:
        return Verdict.NO_EFFECT
    if not found["coherent"]:
        return Verdict.NOISE
    controls = list(found["controls"].values())
    if all(c["p"] <= RANK_LEVEL and c["over"]["low"] > 0 for c in controls):
        return Verdict.WORKS_SPECIFIC
    # No difference is shown where it is surely small, not where it was not seen.
    alike = any(c["over"]["high"] < SHIFTS or c["over"]["value"] <= 0 for c in controls)
    return Verdict.WORKS_NOT_SPECIFIC if alike else Verdict.SPECIFICITY_UNKNOWN


def _specific(better: bool) -> Verdict:
    return Verdict.WORKS_SPECIFIC if better else Verdict.WORKS_NOT_SPECIFIC


def study_verdict(figures: Plain) -> Judgement:
    """The label that all mapped directions have in every measure; undecided where they differ. A reason a measure.

    The sentence counts mapped directions, of all behaviours and kinds of anchors.
    """
    all_of: dict[str, Counter[str]] = {"detection": Counter(), "steering": Counter()}
    reasons = []
    for behaviour, measures in figures["tiers"].items():
        for measure, by in measures.items():
            for who, counted in by.items():
                if who != "own":
                    all_of[measure.split()[0]].update(counted)
            reasons.append(f"{behaviour}, {measure}: " + "; ".join(f"{who} {_counted(c)}" for who, c in by.items()))
    found = {name for counted in all_of.values() for name in counted}
    label = Verdict(found.pop()) if len(found) == 1 else Verdict.UNDECIDED
    why = "; ".join(f"{measure} by mapped directions: {_counted(counted)}" for measure, counted in all_of.items())
    return Judgement(label, why, reasons, figures["warnings"])


def _counted(counted: Mapping[str, int]) -> str:
    n, untestable = sum(counted.values()), counted.get(Verdict.NOT_TESTABLE, 0)
    works = sum(number for name, number in counted.items() if name in WORKS)
    words = f"{works} of {n} work, {counted.get(Verdict.WORKS_SPECIFIC, 0)} specific"
    return words + (f", {untestable} not testable" if untestable else "")
