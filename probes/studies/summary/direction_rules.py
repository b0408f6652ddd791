"""Claims of arXiv 2606.20225 against direction and transfer studies, a rule each; the margins are the studies' own.

Rules read held-out figures only. `good` is the share of answers that neither show the behaviour nor break: the paper
has no such figure, and a fall of the behaviour without a rise of good answers is never called reproduced here. Transfer
is judged in the paper's mode, `subtract`, if the receivers' own directions work in it, else where these work best.
"""

from __future__ import annotations

from typing import Any

from probes.studies.direction import dose
from probes.studies.direction.verdict import EFFECT, MARGIN
from probes.studies.summary.results import Figures, Finding, Rule, each, interval, share
from probes.studies.transfer.verdict import WORKS

SEPARATES = 0.95  # `docs/science.md` A.4.1
TIE = 0.05
UNEQUAL = 2.0
_OTHERS = {"random": "random", dose.ORTHOGONAL: "orthogonal", dose.WRONG: "wrong layer"}


# Direction


def separation(result: Figures) -> Finding:
    if result["kind"] == "messages":
        return _labelled()
    row = _blocks(result)[-1]
    accuracy = interval(row["accuracy"])
    words = (
        f"{accuracy} at {row['site']}, held out; shuffled labels {row['permuted']['mean']:.2f} and random directions "
        f"{row['random']['mean']:.2f} on average"
    )
    return Finding("yes" if accuracy.value >= SEPARATES else "no", words)


def last_layer(result: Figures) -> Finding:
    if result["kind"] == "messages":
        return _labelled()
    blocks = _blocks(result)
    if len(blocks) < 2:
        return Finding("unmeasured", "one block was read")
    first, last = (interval(row["accuracy"]) for row in (blocks[0], blocks[-1]))
    best = max(blocks, key=lambda row: float(row["accuracy"]["value"]))
    words = f"{blocks[0]['site']}: {first}; {blocks[-1]['site']}: {last}"
    if best["accuracy"]["value"] > last.value:
        return Finding("no", f"{words}; best is {best['site']}: {interval(best['accuracy'])}")
    if last.low > first.high:
        return Finding("yes", words)
    if last.value - first.value < TIE:
        return Finding("no", f"{words}: a tie, depth hardly matters")
    return Finding("unsure", f"{words}: the intervals meet")


def control_separation(result: Figures) -> Finding:
    if result["kind"] == "messages":
        return _labelled()
    row = _blocks(result)[-1]
    if row["control"] is None:
        return Finding("unmeasured", "no control was given")
    accuracy, d = interval(row["control"]["accuracy"]), row["control"]["effect_size"]
    effect = f"d {d['value']:.1f}, " if d else ""
    words = (
        f"{accuracy}, {effect}norm {row['control']['norm']:.2g}, at {row['site']} (the direction under study: "
        f"{interval(row['accuracy'])})"
    )
    return Finding("yes" if accuracy.low <= 0.5 else "no", words)


def steering(result: Figures) -> Finding:
    rows = _tested(result)
    if dose.PAPER not in rows:
        return Finding("unmeasured", "the last block has no direction")
    before, after = rows[dose.UNTOUCHED], rows[dose.PAPER]
    words = (
        f"behaviour from {share(before['behaviour'])} to {interval(after['behaviour'])}, good answers from "
        f"{interval(before['good'])} to {interval(after['good'])}"
    )
    if before["behaviour"]["value"] < EFFECT:
        return Finding("untestable", f"{words}: there is hardly anything to lower")
    if before["behaviour"]["value"] - after["behaviour"]["value"] < EFFECT:
        return Finding("no", words)
    if after["behaviour"]["high"] >= before["behaviour"]["low"]:
        return Finding("unsure", f"{words}: the intervals meet")
    if after["good"]["value"] - before["good"]["value"] < EFFECT:
        return Finding("unsure", f"{words}: the behaviour goes because the text breaks")
    return Finding("yes", words)


def specific(result: Figures) -> Finding:
    verdict = result["verdict"]
    if verdict["label"] in ("noise", "no effect"):
        return Finding("no", verdict["sentence"])
    differences = verdict["differences"]
    differences_by_name = {
        n: interval(differences[key]) for key, n in _OTHERS.items() if key in differences or key == "random"
    }
    words = "good answers beyond those under " + "; ".join(f"{name}: {d}" for name, d in differences_by_name.items())
    if dose.WRONG not in differences:
        words += "; the wrong layer's direction is nearly the same, or there is none"
    if any(d.value < MARGIN for d in differences_by_name.values()):
        return Finding("no", words)
    return Finding("unsure" if any(d.low <= 0 for d in differences_by_name.values()) else "yes", words)


def content(result: Figures) -> Finding:
    verdict = result["verdict"]
    if dose.CONTENT not in verdict["differences"]:
        return Finding("unmeasured", "no control was given")
    if verdict["label"] in ("noise", "no effect"):
        return Finding("untestable", f"{verdict['sentence']}: nothing to compare the control with")
    difference, rows = interval(verdict["differences"][dose.CONTENT]), _tested(result)
    words = f"good answers beyond those under the control's direction: {difference}"
    if dose.CONTROL_CONDITION in rows:
        control = rows[dose.CONTROL_CONDITION]["behaviour"]
        words += (
            f"; the control fine-tune itself shows the behaviour in {interval(control)}"
            f" (the one under study: {interval(rows[dose.UNTOUCHED]['behaviour'])})"
        )
    if difference.value < MARGIN:
        return Finding("no", words)
    return Finding("unsure" if difference.low <= 0 else "yes", words)


def _labelled() -> Finding:
    return Finding("unmeasured", "a study of labelled messages, not of a fine-tune against its base")


def _blocks(result: Figures) -> list[dict[str, Any]]:
    """Rows of the residual stream in the order of depth; `final` is another site."""
    return [row for row in result["separation"] if row["site"].startswith("residual")]


def _tested(result: Figures) -> dict[str, Figures]:
    return {row["name"]: row for row in result["dose"]["test"]}


# Transfer


def transfer_lowers(result: Figures) -> Finding:
    means, words = _pairs(result)
    if means["own_gain"]["value"] < WORKS:
        return _own_fails(means, words)
    drop, gain = interval(means["drop"]), interval(means["gain"])
    words = f"bad answers taken away {drop}, good ones gained {gain}, {words}"
    if drop.value < WORKS:
        return Finding("no", words)
    if drop.low <= 0:
        return Finding("unsure", words)
    if gain.value < WORKS or gain.low <= 0:
        return Finding("unsure", f"{words}: bad answers go, good ones do not come back")
    return Finding("yes", words)


def transfer_non_specific(result: Figures) -> Finding:
    means, words = _pairs(result)
    if means["own_gain"]["value"] < WORKS:
        return _own_fails(means, words)
    drop, random = means["drop"]["value"], means["drop_receiver_random"]["value"]
    over = interval(means["over_receiver_random"])
    counts = ", ".join(f"{n} *{verdict}*" for verdict, n in sorted(means["verdicts"].items()))
    words = (
        f"bad answers taken away {drop:.2f}, by random directions of equal norm in the receiver {random:.2f}, by "
        f"random donor directions through the map {means['drop_random_source']['value']:.2f}; good answers "
        f"beyond random ones in the receiver {over}; {words}, by verdict: {counts}"
    )
    if drop < WORKS:
        return Finding("untestable", f"{words}: mapped directions take nothing away")
    alike = {drop - random < MARGIN, over.low <= 0}
    return Finding("unsure" if len(alike) == 2 else "yes" if alike == {True} else "no", words)


def own_beats_mapped(result: Figures) -> Finding:
    means, words = _pairs(result)
    own, gain = interval(means["own_gain"]), interval(means["gain"])
    if own.value < WORKS:
        return _own_fails(means, words)
    words = f"good answers gained: own direction {own}, mapped {gain}, {words}"
    if own.value <= gain.value:
        return Finding("no", words)
    return Finding("yes" if own.low > gain.high else "unsure", words)


def asymmetry(result: Figures) -> Finding:
    pairs, words = _pairs(result)
    if pairs["own_gain"]["value"] < WORKS:
        return _own_fails(pairs, words)
    found = result["asymmetry"][_mode(result)]
    two, expected = found["mean_difference_of_two_ways"], found["expected_from_sampling"]
    if two is None or len(found["groups"]) < 2:
        return Finding("unmeasured", "no pair was measured both ways")
    givers = sorted(found["groups"], key=lambda name: -float(found["groups"][name]["as_donor"]["value"]))
    shown = [f"{name} {found['groups'][name]['as_donor']['value']:+.2f}" for name in (givers[0], givers[-1])]
    words = (
        f"the two ways of a pair differ by {two:.2f}, {expected:.2f} would come from the questions alone; best donor "
        f"{shown[0]}, worst {shown[1]}, {words}"
    )
    if two <= expected:
        return Finding("no", words)
    return Finding("yes" if two >= UNEQUAL * expected else "unsure", words)


def _mode(result: Figures) -> str:
    """The paper subtracts; where the receivers' own directions do not work so, the mode in which they work best."""
    own = {mode: float(_means(result, mode)["own_gain"]["value"]) for mode in result["settings"]["modes"]}
    return "subtract" if own.get("subtract", 0.0) >= WORKS else max(own, key=lambda mode: own[mode])


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
        "untestable", f"the receivers' own directions do not work either: good answers gained {own}, {words}"
    )


RULES = {
    "separation": Rule(
        f"held-out balanced accuracy at the last block is at least {SEPARATES:.2f}",
        each(separation),
    ),
    "last_layer": Rule(
        "no block does better than the last, and its interval lies above the first block's; not reproduced when the "
        f"two are within {TIE:.2f}",
        each(last_layer),
    ),
    "control_separation": Rule(
        "the interval of the control's own separation at the last block reaches 0.5",
        each(control_separation),
    ),
    "steering": Rule(
        "in the paper's setting (subtract x1, last block, last position) the behaviour falls by at least "
        f"{EFFECT:.2f}, the intervals before and after do not meet, and good answers rise by as much; a fall without "
        "that rise is mixed",
        each(steering),
    ),
    "specific": Rule(
        f"the setting chosen on other messages gives at least {MARGIN:.2f} more good answers than every random, "
        "orthogonal and wrong-layer vector of equal norm, with intervals above 0",
        each(specific),
    ),
    "content": Rule(
        f"the same, against the direction of the control fine-tune: at least {MARGIN:.2f} more, interval above 0",
        each(content),
    ),
    "transfer_lowers": Rule(
        f"over pairs of different classes, bad answers fall and good ones rise by at least {WORKS:.2f}, with intervals "
        "(bootstrap over models) above 0; a fall alone is mixed",
        each(transfer_lowers),
    ),
    "transfer_non_specific": Rule(
        "mapped directions take bad answers away, random ones of equal norm in the receiver take as many away (within "
        f"{MARGIN:.2f}), and the interval of the difference in good answers reaches 0; mixed when the two disagree",
        each(transfer_non_specific),
    ),
    "own_beats_mapped": Rule(
        "the receiver's own direction gains more good answers than the mapped one, with intervals that do not meet",
        each(own_beats_mapped),
    ),
    "asymmetry": Rule(
        f"the two ways of a pair differ by at least {UNEQUAL:g} times what the choice of questions alone would give",
        each(asymmetry),
    ),
}
