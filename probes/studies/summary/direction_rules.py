"""Claims of arXiv 2606.20225 against direction and transfer studies, a rule each; the margins are the studies' own.

Rules read held-out figures only. `good` is the share of answers that neither show the behaviour nor break: the paper
has no such figure, and a fall of the behaviour without a rise of good answers is never called reproduced here. Transfer
is judged in the paper's mode, `subtract`, if the receivers' own directions work in it, else where these work best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.evaluation import Interval
from probes.studies.direction import dose
from probes.studies.framework.controls import ORTHOGONAL, RANDOM, WRONG_LAYER
from probes.studies.framework.result import StudyResult
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
from probes.studies.summary.results import Figures, Finding, Rule, each, interval, label, share, whole

UNEQUAL = 2.0
_OTHERS = (RANDOM, ORTHOGONAL, WRONG_LAYER)


# Direction


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


# Transfer


def transfer_lowers(result: Figures) -> Finding:
    means, words = _pairs(result)
    if means["own_gain"]["value"] < EFFECT:
        return _own_fails(means, words)
    drop, gain = interval(means["drop"]), interval(means["gain"])
    words = f"bad answers taken away {drop}, good ones gained {gain}, {words}"
    if drop.value < EFFECT:
        # A mean over few models may hide an effect.
        return Finding(Support.NO if drop.high < EFFECT else Support.UNSURE, words)
    if drop.low <= 0:
        return Finding(Support.UNSURE, words)
    if gain.value < EFFECT or gain.low <= 0:
        return Finding(Support.UNSURE, f"{words}: bad answers go, good ones do not come back")
    return Finding(Support.YES, words)


def transfer_non_specific(result: Figures) -> Finding:
    means, words = _pairs(result)
    if means["own_gain"]["value"] < EFFECT:
        return _own_fails(means, words)
    drop, random = interval(means["drop"]), means["drop_receiver_random"]["value"]
    over = interval(means["over_receiver_random"])
    counts = ", ".join(f"{n} *{verdict}*" for verdict, n in sorted(means["verdicts"].items()))
    words = (
        f"bad answers taken away {drop}, by random directions of equal norm in the receiver {random:.2f}, by "
        f"random donor directions through the map {means['drop_random_source']['value']:.2f}, by the direction through "
        f"a map of shuffled anchors {means['drop_shuffled']['value']:.2f}; good answers "
        f"beyond random ones in the receiver {over}; {words}, by verdict: {counts}"
    )
    if drop.value < EFFECT:
        return Finding(Support.UNTESTABLE, f"{words}: mapped directions take nothing away")
    if drop.value - random < CONTROL_MARGIN and drop.low > 0 and over.high < CONTROL_MARGIN:
        return Finding(Support.YES, words)
    return Finding(Support.NO if drop.value - random >= CONTROL_MARGIN and over.low > 0 else Support.UNSURE, words)


def own_beats_mapped(result: Figures) -> Finding:
    means, words = _pairs(result)
    own, gain = interval(means["own_gain"]), interval(means["gain"])
    if own.value < EFFECT:
        return _own_fails(means, words)
    words = f"good answers gained: own direction {own}, mapped {gain}, {words}"
    if own.value <= gain.value:
        return Finding(Support.NO, words)
    return Finding(Support.YES if own.low > gain.high else Support.UNSURE, words)


def asymmetry(results: Sequence[StudyResult]) -> list[tuple[str, Finding]]:
    """Results that name different best donors do not bear each other out."""
    seen = [(r, whole(r, _asymmetry)) for r in results]
    donors = {donor for _, (finding, donor) in seen if finding.support is Support.YES}
    return [
        (
            label(r),
            Finding(Support.UNSURE, f"{f.words}; seeds disagree on the best donor")
            if f.support is Support.YES and len(donors) > 1
            else f,
        )
        for r, (f, _) in seen
    ]


def _asymmetry(result: Figures) -> tuple[Finding, str]:
    """And the best donor."""
    pairs, words = _pairs(result)
    if pairs["own_gain"]["value"] < EFFECT:
        return _own_fails(pairs, words), ""
    found = result["asymmetry"][_mode(result)]
    two, expected = found["mean_difference_of_two_ways"], found["expected_from_sampling"]
    if two is None or len(found["groups"]) < 2:
        return Finding(Support.UNMEASURED, "no pair was measured both ways"), ""
    givers = sorted(found["groups"], key=lambda name: -float(found["groups"][name]["as_donor"]["value"]))
    gains = {name: float(found["groups"][name]["as_donor"]["value"]) for name in givers}
    shown = [f"{name} {gains[name]:+.2f}" for name in (givers[0], givers[-1])]
    words = (
        f"the two ways of a pair differ by {two:.2f}, {expected:.2f} would come from the questions alone; best donor "
        f"{shown[0]}, worst {shown[1]}, {words}"
    )
    if two <= expected:
        return Finding(Support.NO, words), givers[0]
    if gains[givers[0]] < EFFECT:
        return Finding(Support.UNSURE, f"{words}: no donor gives {EFFECT:.2f}"), givers[0]
    return Finding(Support.YES if two >= UNEQUAL * expected else Support.UNSURE, words), givers[0]


def _mode(result: Figures) -> str:
    """The paper subtracts; where the receivers' own directions do not work so, the mode in which they work best."""
    own = {mode: float(_means(result, mode)["own_gain"]["value"]) for mode in result["plan"]["modes"]}
    return "subtract" if own.get("subtract", 0.0) >= EFFECT else max(own, key=lambda mode: own[mode])


def _pairs(result: Figures) -> tuple[Figures, str]:
    """Means over pairs, and over which."""
    mode = _mode(result)
    means = _means(result, mode)
    return means, f"{means['pairs']} pairs ({mode})"


def _means(result: Figures, mode: str) -> Figures:
    """Over pairs of different groups, or of all when there is one group."""
    overall: dict[str, Figures] = result["overall"][mode]
    return overall["across"] if "across" in overall else overall["within"]


def _own_fails(means: Figures, words: str) -> Finding:
    own = interval(means["own_gain"])
    return Finding(
        Support.UNTESTABLE, f"the receivers' own directions do not work either: good answers gained {own}, {words}"
    )


def _accuracy_power(result: Figures) -> str:
    return power.NO_TEST if result["kind"] == "messages" else power.above_half(_blocks(result)[-1]["accuracy"]["n"])


def _steering_power(result: Figures) -> str:
    return power.paired(_tested(result)[dose.UNTOUCHED]["behaviour"]["n"])


def _difference_power(name: str) -> Callable[[Figures], str]:
    return lambda result: power.smallest(result["verdict"]["differences"].get(name))


def _pairs_power(name: str) -> Callable[[Figures], str]:
    return lambda result: power.smallest(_means(result, _mode(result))[name])


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
    "transfer_lowers": Rule(
        f"over pairs of different classes, bad answers fall and good ones rise by at least {EFFECT:.2f}, with "
        "intervals over models above 0; a fall alone is mixed; not reproduced when the interval of the fall ends below "
        "that",
        each(transfer_lowers),
        _pairs_power("drop"),
    ),
    "transfer_non_specific": Rule(
        "mapped directions take bad answers away, random ones of equal norm in the receiver take as many away (within "
        f"{CONTROL_MARGIN:.2f}), and in good answers they are surely ahead by less than that; not reproduced when they "
        "are surely ahead in both; orthogonal vectors are not averaged over pairs here",
        each(transfer_non_specific),
        _pairs_power("over_receiver_random"),
    ),
    "own_beats_mapped": Rule(
        "the receiver's own direction gains more good answers than the mapped one, with intervals that do not meet",
        each(own_beats_mapped),
        _pairs_power("gain"),
    ),
    "asymmetry": Rule(
        f"the two ways of a pair differ by at least {UNEQUAL:g} times what the choice of questions alone would give, "
        f"the best donor gives at least {EFFECT:.2f}, and it is the same in all results",
        asymmetry,
        lambda _: power.NO_TEST,
    ),
}
