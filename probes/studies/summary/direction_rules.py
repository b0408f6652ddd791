"""Claims of arXiv 2606.20225 against direction studies, a rule each; the margins are the studies' own.

Rules read held-out figures only. `good` is the share of answers that neither show the behaviour nor break: the paper
has no such figure, and a fall of the behaviour without a rise of good answers is never called reproduced here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probes.evaluation import Interval
from probes.studies.direction import dose
from probes.studies.framework.controls import ORTHOGONAL, RANDOM, WRONG_LAYER
from probes.studies.framework.verdict import (
    CONTROL_MARGIN,
    EFFECT,
    FEWEST_DRAWS,
    NEAR_CHANCE,
    SEPARATES,
    TIE,
    Support,
    Verdict,
)
from probes.studies.summary import power
from probes.studies.summary.results import Figures, Finding, Rule, each, interval, share

_OTHERS = (RANDOM, ORTHOGONAL, WRONG_LAYER)


def separation(result: Figures) -> Finding:
    if result["kind"] == "messages":
        return _labelled()
    row = _blocks(result)[-1]
    accuracy = interval(row["accuracy"])
    words = (
        f"{accuracy} at {row['site']}, held out; {_shuffled(row)}, random directions {row['random']['mean']:.2f} "
        "on average"
    )
    return Finding(Support.YES if accuracy.value >= SEPARATES else Support.NO, words)


def _shuffled(row: Figures) -> str:
    chance = row["chance"]
    return f"labels of both splits shuffled {chance['mean']:.2f} on average, p = {chance['p']:.3f}"


def last_layer(result: Figures) -> Finding:
    if result["kind"] == "messages":
        return _labelled()
    blocks = _blocks(result)
    if len(blocks) < 2:
        return Finding(Support.UNMEASURED, "one block was read")
    first, last = (interval(row["accuracy"]) for row in (blocks[0], blocks[-1]))
    best = max(blocks[:-1], key=lambda row: float(row["accuracy"]["value"]))
    words = f"{_with_size(blocks[0], first)}; {_with_size(blocks[-1], last)}"
    if last.value - best["accuracy"]["value"] < TIE:
        return Finding(Support.NO, f"{words}; {best['site']} does as well: {interval(best['accuracy'])}")
    return Finding(Support.YES if last.low > best["accuracy"]["value"] else Support.UNSURE, words)


def _with_size(row: Figures, accuracy: Interval) -> str:
    """With Cohen's d, which goes on where the accuracy is at its ceiling."""
    d = row["effect_size"]
    return f"{row['site']}: {accuracy}" + (f", d {d['value']:.1f}" if d else "")


def control_separation(result: Figures) -> Finding:
    if result["kind"] == "messages":
        return _labelled()
    row = _blocks(result)[-1]
    if row["control"] is None:
        return Finding(Support.UNMEASURED, "no control was given")
    accuracy, d = interval(row["control"]["accuracy"]), row["control"]["effect_size"]
    effect = f"d {d['value']:.1f}, " if d else ""
    words = (
        f"{accuracy}, {effect}norm {row['control']['norm']:.2g}, at {row['site']} (the direction under study: "
        f"{interval(row['accuracy'])})"
    )
    if accuracy.low > 0.5:
        return Finding(Support.NO, words)
    return Finding(Support.YES if accuracy.high < NEAR_CHANCE else Support.UNSURE, words)


def steering(result: Figures) -> Finding:
    rows = _tested(result)
    if dose.PAPER not in rows:
        return Finding(Support.UNMEASURED, "the last block has no direction")
    before, after = rows[dose.UNTOUCHED], rows[dose.PAPER]
    words = (
        f"behaviour from {share(before['behaviour'])} to {interval(after['behaviour'])}, good answers from "
        f"{interval(before['good'])} to {interval(after['good'])}"
    )
    if before["behaviour"]["value"] < EFFECT:
        return Finding(Support.UNTESTABLE, f"{words}: there is hardly anything to lower")
    if before["behaviour"]["value"] - after["behaviour"]["value"] < EFFECT:
        return Finding(Support.NO, words)
    if after["behaviour"]["high"] >= before["behaviour"]["low"]:
        return Finding(Support.UNSURE, f"{words}: the intervals meet")
    if after["good"]["value"] - before["good"]["value"] < EFFECT:
        return Finding(Support.UNSURE, f"{words}: the behaviour goes because the text breaks")
    return Finding(Support.YES, words)


def specific(result: Figures) -> Finding:
    verdict = result["verdict"]
    if Verdict(verdict["label"]) is Verdict.NOT_TESTABLE:
        return Finding(Support.UNTESTABLE, verdict["sentence"])
    if Verdict(verdict["label"]) is Verdict.NO_EFFECT:
        return Finding(Support.UNTESTABLE, f"{verdict['sentence']}: nothing to compare the controls with")
    if Verdict(verdict["label"]) is Verdict.NOISE:
        return Finding(Support.NO, verdict["sentence"])
    differences = verdict["differences"]
    differences_by_name = {n: interval(differences[n]) for n in _OTHERS if n in differences or n == RANDOM}
    words = "good answers beyond those under " + "; ".join(f"{name}: {d}" for name, d in differences_by_name.items())
    if WRONG_LAYER not in differences:
        words += "; the wrong layer's direction is nearly the same, or there is none"
    if any(d.value < CONTROL_MARGIN for d in differences_by_name.values()):
        return Finding(Support.NO, words)
    draws = int(result["plan"]["random_directions"])
    if draws < FEWEST_DRAWS:
        return Finding(Support.UNSURE, f"{words}; {draws} random directions are too few for a test")
    return Finding(Support.UNSURE if any(d.low <= 0 for d in differences_by_name.values()) else Support.YES, words)


def content(result: Figures) -> Finding:
    verdict = result["verdict"]
    if dose.CONTENT not in verdict["differences"]:
        return Finding(Support.UNMEASURED, "no control was given")
    if Verdict(verdict["label"]) in (Verdict.NOISE, Verdict.NO_EFFECT, Verdict.NOT_TESTABLE):
        return Finding(Support.UNTESTABLE, f"{verdict['sentence']}: nothing to compare the control with")
    difference, rows = interval(verdict["differences"][dose.CONTENT]), _tested(result)
    words = f"good answers beyond those under the control's direction: {difference}"
    if dose.CONTROL_CONDITION in rows:
        control = rows[dose.CONTROL_CONDITION]["behaviour"]
        words += (
            f"; the control fine-tune itself shows the behaviour in {interval(control)}"
            f" (the one under study: {interval(rows[dose.UNTOUCHED]['behaviour'])})"
        )
    if difference.value < CONTROL_MARGIN:
        return Finding(Support.NO, words)
    return Finding(Support.UNSURE if difference.low <= 0 else Support.YES, words)


def _labelled() -> Finding:
    return Finding(Support.UNMEASURED, "a study of labelled messages, not of a fine-tune against its base")


def _blocks(result: Figures) -> list[dict[str, Any]]:
    """Rows of the residual stream in the order of depth; `final` is another site."""
    return [row for row in result["separation"] if row["site"].startswith("residual")]


def _tested(result: Figures) -> dict[str, Figures]:
    return {row["name"]: row for row in result["dose"]["test"]}


def _accuracy_power(result: Figures) -> str:
    return power.NO_TEST if result["kind"] == "messages" else power.above_half(_blocks(result)[-1]["accuracy"]["n"])


def _steering_power(result: Figures) -> str:
    return power.paired(_tested(result)[dose.UNTOUCHED]["behaviour"]["n"])


def _difference_power(name: str) -> Callable[[Figures], str]:
    return lambda result: power.smallest(result["verdict"]["differences"].get(name))


RULES = {
    "separation": Rule(
        f"held-out balanced accuracy at the last block is at least {SEPARATES:.2f}",
        each(separation),
        _accuracy_power,
    ),
    "last_layer": Rule(
        f"the last block is better than every other by at least {TIE:.2f}, its interval above the best of them; not "
        "reproduced when another comes closer, which the best of many blocks may do by chance",
        each(last_layer),
        _accuracy_power,
    ),
    "control_separation": Rule(
        f"the interval of the control's own separation at the last block reaches 0.5 and ends below {NEAR_CHANCE:.2f}; "
        "not reproduced when it lies above 0.5",
        each(control_separation),
        _accuracy_power,
    ),
    "steering": Rule(
        "in the paper's setting (subtract x1, last block, last position) the behaviour falls by at least "
        f"{EFFECT:.2f}, the intervals before and after do not meet, and good answers rise by as much; a fall without "
        "that rise is mixed",
        each(steering),
        _steering_power,
    ),
    "specific": Rule(
        f"the setting chosen on other messages gives at least {CONTROL_MARGIN:.2f} more good answers than every "
        "random, orthogonal and wrong-layer vector of equal norm, with intervals above 0; mixed with fewer than "
        f"{FEWEST_DRAWS} random ones, not testable without an effect",
        each(specific),
        _difference_power("random"),
    ),
    "content": Rule(
        f"the same, against the direction of the control fine-tune: at least {CONTROL_MARGIN:.2f} more, interval above "
        "0",
        each(content),
        _difference_power(dose.CONTENT),
    ),
}
