"""Claims of arXiv 2606.20225 against transfer studies, a rule each; the margins are the studies' own.

As in `direction_rules`, a fall of the behaviour without a rise of good answers is never called reproduced. Transfer is
judged in the paper's mode, `subtract`, if the receivers' own directions work in it, else where these work best; over
means of pairs where there are three models or more. Two models say nothing of a third: there each pair is judged by its
own questions, and pairs that disagree are a finding that is not sure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from probes.studies.framework.result import StudyResult
from probes.studies.framework.verdict import CONTROL_MARGIN, EFFECT, Support
from probes.studies.summary import power
from probes.studies.summary.results import Figures, Finding, Rule, each, interval, label, whole
from probes.studies.transfer.means import FEWEST_MODELS

UNEQUAL = 2.0


def of_views(judge: Callable[[Figures, str], Finding]) -> Callable[[Figures], Finding]:
    """One finding of what `judge` says of each view of a result: all that can tell agree, or it is not sure.

    A view in which the receivers' own directions do not work cannot tell.
    """

    def rule(result: Figures) -> Finding:
        findings = [
            judge(figures, where) if figures["own_gain"]["value"] >= EFFECT else _own_fails(figures, where)
            for figures, where in _views(result)
        ]
        words = "; ".join(found.words for found in findings)
        telling = {found.support for found in findings} - {Support.UNTESTABLE}
        if len(telling) > 1:
            return Finding(Support.UNSURE, words)
        return Finding(next(iter(telling), Support.UNTESTABLE), words)

    return rule


def transfer_lowers(figures: Figures, where: str) -> Finding:
    drop, gain = interval(figures["drop"]), interval(figures["gain"])
    words = f"bad answers taken away {drop}, good ones gained {gain}, {where}"
    if drop.value < EFFECT:
        # What so little says may hide an effect.
        return Finding(Support.NO if drop.high < EFFECT else Support.UNSURE, words)
    if drop.low <= 0:
        return Finding(Support.UNSURE, words)
    if gain.value < EFFECT or gain.low <= 0:
        return Finding(Support.UNSURE, f"{words}: bad answers go, good ones do not come back")
    return Finding(Support.YES, words)


def transfer_non_specific(figures: Figures, where: str) -> Finding:
    drop, random = interval(figures["drop"]), figures["drop_receiver_random"]["value"]
    over = interval(figures["over_receiver_random"])
    counts = ", ".join(f"{n} *{verdict}*" for verdict, n in sorted(figures["verdicts"].items()))
    words = (
        f"bad answers taken away {drop}, by random directions of equal norm in the receiver {random:.2f}, by "
        f"random donor directions through the map {figures['drop_random_source']['value']:.2f}, by the direction "
        f"through a map of shuffled anchors {figures['drop_shuffled']['value']:.2f}; good answers beyond random ones "
        f"in the receiver {over}; {where}, by verdict: {counts}"
    )
    if drop.value < EFFECT:
        return Finding(Support.UNTESTABLE, f"{words}: mapped directions take nothing away")
    if drop.value - random < CONTROL_MARGIN and drop.low > 0 and over.high < CONTROL_MARGIN:
        return Finding(Support.YES, words)
    return Finding(Support.NO if drop.value - random >= CONTROL_MARGIN and over.low > 0 else Support.UNSURE, words)


def own_beats_mapped(figures: Figures, where: str) -> Finding:
    own, mapped = interval(figures["own"]), interval(figures["mapped"])
    words = f"{figures['compared']}: own direction {own}, mapped {mapped}, {where}"
    if own.value <= mapped.value:
        return Finding(Support.NO, words)
    return Finding(Support.YES if own.low > mapped.high else Support.UNSURE, words)


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
    mode = _mode(result)
    means = _means(result, mode)
    words = _over_pairs(means, mode)
    if means["own_gain"]["value"] < EFFECT:
        return _own_fails(means, words), ""
    found = result["asymmetry"][mode]
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


def _views(result: Figures) -> Iterator[tuple[Figures, str]]:
    """Figures to judge by, and what they are of: means over pairs, or of two models each pair."""
    mode = _mode(result)
    means = _means(result, mode)
    if len(result["subjects"]) >= FEWEST_MODELS:
        compared = {"own": means["own_gain"], "mapped": means["gain"], "compared": "good answers gained"}
        yield {**means, **compared}, _over_pairs(means, mode)
        return
    own = {subject["name"]: subject["modes"][mode]["own"]["good"] for subject in result["subjects"]}
    for pair in result["pairs"]:
        found = pair["modes"][mode]
        yield (
            {
                "own_gain": {"value": found["own_gain"]},
                "drop": found["drop"],
                "gain": found["gain"],
                "own": own[pair["receiver"]],
                "mapped": found["mapped"]["good"],
                "compared": "good answers",
                "verdicts": {found["verdict"]: 1},
                **{f"drop_{kind}": {"value": value} for kind, value in found["drop_controls"].items()},
                **{f"over_{kind}": value for kind, value in found["over"].items()},
            },
            f"{pair['donor']} to {pair['receiver']} ({mode}, n = {found['drop']['n']})",
        )


def _over_pairs(means: Figures, mode: str) -> str:
    return f"{means['pairs']} pairs ({mode})"


def _means(result: Figures, mode: str) -> Figures:
    """Over pairs of different groups, or of all when there is one group."""
    overall: dict[str, Figures] = result["overall"][mode]
    return overall["across"] if "across" in overall else overall["within"]


def _own_fails(figures: Figures, where: str) -> Finding:
    own = figures["own_gain"]
    gained = interval(own) if "low" in own else f"{own['value']:.2f}"
    words = f"the receivers' own directions do not work either: good answers gained {gained}, {where}"
    return Finding(Support.UNTESTABLE, words)


def _power(name: str) -> Callable[[Figures], str]:
    """Of each view; what is said of several is said once."""
    return lambda result: ", ".join(dict.fromkeys(power.smallest(figures[name]) for figures, _ in _views(result)))


RULES = {
    "transfer_lowers": Rule(
        f"over pairs of different classes, bad answers fall and good ones rise by at least {EFFECT:.2f}, with "
        "intervals over models above 0; a fall alone is mixed; not reproduced when the interval of the fall ends below "
        "that; of two models each pair is judged by its own questions",
        each(of_views(transfer_lowers)),
        _power("drop"),
    ),
    "transfer_non_specific": Rule(
        "mapped directions take bad answers away, random ones of equal norm in the receiver take as many away (within "
        f"{CONTROL_MARGIN:.2f}), and in good answers they are surely ahead by less than that; not reproduced when they "
        "are surely ahead in both; orthogonal vectors are not averaged over pairs here",
        each(of_views(transfer_non_specific)),
        _power("over_receiver_random"),
    ),
    "own_beats_mapped": Rule(
        "the receiver's own direction gains more good answers than the mapped one, with intervals that do not meet",
        each(of_views(own_beats_mapped)),
        _power("gain"),
    ),
    "asymmetry": Rule(
        f"the two ways of a pair differ by at least {UNEQUAL:g} times what the choice of questions alone would give, "
        f"the best donor gives at least {EFFECT:.2f}, and it is the same in all results",
        asymmetry,
        lambda _: power.NO_TEST,
    ),
}
