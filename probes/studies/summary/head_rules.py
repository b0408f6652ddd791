"""Claims of arXiv 2502.05945 (HSI) against heads studies, a rule each.

Where a study has its own mark for a claim, the rule takes it (`probes.studies.head_steering.verdict.marks`) and adds
the figures. A mark that compares with a control which was not run is not measured.
"""

from __future__ import annotations

from collections.abc import Callable

from probes.evaluation import Interval
from probes.statistics.nulls import rank_among
from probes.studies.framework.verdict import EFFECT, LESS_COHERENT, MORE_UNDEFINED, TEXT_BROKEN, Support, Verdict
from probes.studies.head_steering.verdict import (
    CHOSEN,
    FINE_TUNE,
    LAYER,
    PLAIN_NAME,
    PROBE_HEADS,
    RANDOM_DIRECTIONS,
    RANDOM_HEADS,
    WITHOUT_BEST,
)
from probes.studies.summary import power
from probes.studies.summary.results import Figures, Finding, Rule, each, interval, share

# Questions that are still `only a few examples`.
FEW_EXAMPLES = 10


def few_heads(result: Figures) -> Finding:
    searched = result["search"]
    figures = f"{len(searched['survivors'])} of {len(searched['singles'])} heads tried survive the re-test"
    return Finding(_mark(result, "few heads survive the re-test (at most 3 %)"), figures)


def wanted_rise(result: Figures) -> Finding:
    before, after = (result["heldout"][name]["wanted"] for name in (PLAIN_NAME, CHOSEN))
    figures = f"wanted choices {share(before)} before, {interval(after)} after ({_chosen(result)})"
    return Finding(_mark(result, "wanted choices rise by 30 points"), figures)


def inverted_u(result: Figures) -> Finding:
    curve = result["alpha_curve"]
    if len(curve["alphas"]) < 3:
        return Finding(Support.UNMEASURED, f"{len(curve['alphas'])} strengths were tried")
    points = zip(curve["alphas"], curve["heldout"], strict=True)
    figures = "; ".join(
        f"alpha {abs(alpha):g}: {f['effect']['value']:.2f} ({f['undefined']['value']:.0%} undefined)"
        for alpha, f in points
    )
    figures = f"effect by strength, {result['form']['unit']}: {figures}"
    effects = [f["effect"]["value"] for f in curve["heldout"]]
    if effects[-1] == max(effects) and curve["heldout"][-1]["undefined"]["value"] <= MORE_UNDEFINED:
        return Finding(Support.UNMEASURED, f"{figures}; the grid ends while the effect still rises")
    return _where_it_works(result, Finding(_mark(result, "inverted U over alpha"), figures))


def beats_probe_heads(result: Figures) -> Finding:
    return _where_it_works(result, _beats(result, "beats heads ranked by a probe", PROBE_HEADS))


def beats_layer_vector(result: Figures) -> Finding:
    return _where_it_works(result, _beats(result, "beats a layer-level vector", LAYER))


def beats_random(result: Figures) -> Finding:
    both = [
        _beats(result, "beats random heads", RANDOM_HEADS),
        _beats(result, "beats random directions", RANDOM_DIRECTIONS),
    ]
    answers = {seen.support for seen in both} - {Support.UNMEASURED}
    figures = "; ".join(seen.words for seen in both)
    return Finding((answers.pop() if len(answers) == 1 else Support.UNSURE) if answers else Support.UNMEASURED, figures)


def carries_over(result: Figures) -> Finding:
    if (no_room := _no_room(result)) is not None:
        return no_room
    before, after = (result["open"][name] for name in (PLAIN_NAME, CHOSEN))
    moved = _towards(result, CHOSEN)
    figures = (
        f"{result['metric']['name']} in {share(before['behaviour'])} of open answers before, "
        f"{interval(after['behaviour'])} after; good answers {interval(before['good'])} and {interval(after['good'])}"
    )
    if before["coherent"]["value"] < TEXT_BROKEN:
        return Finding(Support.UNTESTABLE, f"{figures}: {share(before['coherent'])} coherent before anything is done")
    drawn = [n for n in result["open"] if n.startswith((RANDOM_DIRECTIONS, RANDOM_HEADS))]
    as_much = [n for n in drawn if _towards(result, n).value >= moved.value]
    figures += f"; {len(as_much)} of {len(drawn)} random draws do as much"
    if moved.low <= 0:
        return Finding(Support.NO, figures)
    if as_much:
        return Finding(Support.UNSURE, figures)
    if after["coherent"]["value"] < before["coherent"]["value"] - LESS_COHERENT:
        return Finding(Support.UNSURE, f"{figures}: the text breaks")
    return _where_it_works(result, Finding(Support.YES, figures))


def dissociation(result: Figures) -> Finding:
    if LAYER not in result["open"]:
        return Finding(Support.UNMEASURED, "no layer vector was tried on open answers")
    if (no_room := _no_room(result)) is not None:
        return no_room
    heads, layer = (_towards(result, name) for name in (CHOSEN, LAYER))
    on_choices = [result["heldout"][name]["effect"]["value"] for name in (CHOSEN, LAYER)]
    figures = (
        f"open answers change the wanted way by {heads} under the heads, by {layer} under the layer vector; on choices "
        f"the effects are {on_choices[0]:.2f} and {on_choices[1]:.2f} {result['form']['unit']}"
    )
    if heads.value <= layer.value:
        return Finding(Support.NO, figures)
    return _where_it_works(result, Finding(Support.YES if heads.low > layer.high else Support.UNSURE, figures))


def without_best(result: Figures) -> Finding:
    if WITHOUT_BEST not in result["heldout"]:
        return Finding(Support.UNMEASURED, "one head was chosen")
    seen = Finding(_mark(result, "most is left without the best head"), _effects(result, WITHOUT_BEST))
    return _where_it_works(result, seen)


def as_good_as_tuning(result: Figures) -> Finding:
    tuned = result.get("fine_tune")
    if tuned is None:
        return Finding(Support.UNMEASURED, "no fine-tune was trained beside the heads")
    return _where_it_works(result, Finding(Support(tuned["comparable"]), _beside_tuning(tuned, result["heldout"])))


def few_examples(result: Figures) -> Finding:
    points = [p for p in result.get("examples_curve", []) if p["questions"] <= FEW_EXAMPLES]
    if not points:
        return Finding(Support.UNMEASURED, f"no search with at most {FEW_EXAMPLES} questions")
    figures = "; ".join(f"{p['questions']} questions: {_beside_tuning(p['fine_tune'], p['heldout'])}" for p in points)
    last = points[-1]
    change = interval(last["heldout"][CHOSEN]["effect"])
    if change.low <= 0:
        return Finding(Support.NO, f"{figures}; effect {change} {result['form']['unit']}")
    seen = _where_it_works(result, Finding(Support(last["fine_tune"]["comparable"]), figures))
    if seen.support is Support.YES:
        # Heads of few questions have no random draws of their own, and their strength is not checked on open answers.
        return Finding(Support.UNSURE, f"{figures}; no random draws were tried for these heads")
    return seen


def _beside_tuning(tuned: Figures, heldout: Figures) -> str:
    wanted = {name: interval(heldout[name]["wanted"]) for name in (CHOSEN, FINE_TUNE)}
    words = f"wanted choices {wanted[CHOSEN]} under the heads, {wanted[FINE_TUNE]} under the fine-tune"
    return f"{words} (heads less fine-tune {interval(tuned['wanted_difference'])}" + (
        ")" if tuned["learned"] else "; the fine-tune did not learn)"
    )


def _where_it_works(result: Figures, seen: Finding) -> Finding:
    """What random directions do as well, or what may be nothing, is no effect of these heads."""
    if seen.support == Support.YES and not Verdict(result["verdict"]["label"]).works:
        return Finding(Support.UNSURE, f"{seen.words}; the study's verdict is {result['verdict']['label']}")
    return seen


def _mark(result: Figures, name: str) -> Support:
    """The study gives no mark for a control with too few draws."""
    seen = result["paper"].get(name)
    return Support.UNMEASURED if seen is None else Support.YES if seen else Support.NO


def _beats(result: Figures, mark: str, control: str) -> Finding:
    # A mark says yes where there was nothing to beat.
    drawn = [f["effect"]["value"] for name, f in result["heldout"].items() if name.startswith(control)]
    if not drawn:
        return Finding(Support.UNMEASURED, f"no {control} were tried")
    own = result["heldout"][CHOSEN]["effect"]["value"]
    if control in (RANDOM_HEADS, RANDOM_DIRECTIONS) and not rank_among(own, drawn).enough and own > max(drawn):
        few = f"{_effects(result, control)}; {len(drawn)} draws are too few for a test"
        return Finding(Support.UNMEASURED, few)
    return Finding(_mark(result, mark), _effects(result, control))


def _effects(result: Figures, other: str) -> str:
    heldout = result["heldout"]
    best = max((f["effect"] for name, f in heldout.items() if name.startswith(other)), key=lambda e: float(e["value"]))
    several = "the best of the " if sum(name.startswith(other) for name in heldout) > 1 else ""
    own = interval(heldout[CHOSEN]["effect"])
    return f"effect {own} {result['form']['unit']}; {several}{other}: {interval(best)}"


def _towards(result: Figures, name: str) -> Interval:
    """The change of open answers in the wanted direction."""
    change = interval(result["open"][name]["behaviour_change"])
    if result["plan"]["search"]["aim"] == "towards":
        return change
    return Interval(0.0 - change.value, 0.0 - change.high, 0.0 - change.low, change.n)


def _no_room(result: Figures) -> Finding | None:
    """Open answers that are as wanted before anything is done have nowhere to go."""
    shown = result["open"][PLAIN_NAME]["behaviour"]
    room = shown["value"] if result["plan"]["search"]["aim"] == "away" else 1 - shown["value"]
    if room >= EFFECT:
        return None
    return Finding(
        Support.UNTESTABLE, f"{result['metric']['name']} in {share(shown)} of open answers before: no room to move"
    )


def _chosen(result: Figures) -> str:
    return ", ".join(head["site"] for head in result["heads"])


def _own_mark(words: str) -> str:
    return f"the study's own mark says so: {words}"


_NOISE = "; mixed when the study's verdict is none of those that say it works"


def _effect_power(result: Figures) -> str:
    return power.smallest(result["heldout"][CHOSEN]["effect"], f" {result['form']['unit']}")


def _open_power(result: Figures) -> str:
    return power.smallest(result["open"][CHOSEN]["behaviour_change"])


def _search_power(result: Figures) -> str:
    """Of the re-test that a head must survive, in the middle of the heads that were re-tested."""
    retested = sorted(result["search"]["retest"].values(), key=lambda f: float(f["high"]) - float(f["low"]))
    return power.smallest(retested[len(retested) // 2], f" {result['form']['unit']}") if retested else power.UNKNOWN


def _draws_power(result: Figures) -> str:
    return power.draws([sum(n.startswith(k) for n in result["heldout"]) for k in (RANDOM_HEADS, RANDOM_DIRECTIONS)])


def _tuning_power(result: Figures) -> str:
    tuned = result.get("fine_tune")
    return power.smallest(tuned["wanted_difference"]) if tuned else power.UNKNOWN


def _rule(when: str, judge: Callable[[Figures], Finding], of: Callable[[Figures], str]) -> Rule:
    return Rule(when, each(judge), of, ("hsi",))


RULES = {
    "few_heads": _rule(
        _own_mark("at least one and at most 3 % of the heads tried survive the re-test"), few_heads, _search_power
    ),
    "wanted_rise": _rule(
        _own_mark("held-out wanted choices rise by 30 points"),
        wanted_rise,
        lambda result: power.smallest(result["heldout"][CHOSEN]["wanted_change"]),
    ),
    "inverted_u": _rule(
        _own_mark(
            "the largest held-out effect is surely above 0, at none of the ends of the curve, and at the last strength "
            "the effect is surely smaller or the choices break; a grid that ends while the effect rises does not tell"
        )
        + _NOISE,
        inverted_u,
        lambda _: power.NO_TEST,
    ),
    "beats_probe_heads": _rule(
        _own_mark("the held-out effect is larger, paired by question, than that of as many heads ranked by a probe")
        + _NOISE,
        beats_probe_heads,
        _effect_power,
    ),
    "beats_layer_vector": _rule(
        _own_mark("the same against the residual stream's vector at its best strength") + _NOISE,
        beats_layer_vector,
        _effect_power,
    ),
    "carries_over": _rule(
        "the interval of the change of open answers lies on the wanted side of 0, and no more than "
        f"{LESS_COHERENT:.2f} of the answers break; mixed where a random draw moves them as much, not testable where "
        f"most answers are incoherent before{_NOISE}",
        carries_over,
        _open_power,
    ),
    "dissociation": _rule(
        "open answers change more under the heads than under the layer vector, with intervals that do not meet"
        + _NOISE,
        dissociation,
        _open_power,
    ),
    "without_best": _rule(
        _own_mark("more than half of the effect, which surely is there, is left without the best head") + _NOISE,
        without_best,
        _effect_power,
    ),
    "beats_random": _rule(
        "the study's own marks say that the heads beat random heads and random directions in the same heads; one of "
        "the two alone is mixed",
        beats_random,
        _draws_power,
    ),
    "as_good_as_tuning": _rule(
        "the heads' wanted choices surely fall short of those of a fine-tune on as many questions by less than "
        f"{EFFECT:.2f} (lower end of the interval); cannot tell where the fine-tune did not learn, or surely gains "
        f"nothing on held-out questions{_NOISE}",
        as_good_as_tuning,
        _tuning_power,
    ),
    "few_examples": _rule(
        f"the same with at most {FEW_EXAMPLES} questions to find the heads, and their held-out effect is above 0; at "
        "best mixed, since no random draws are tried for heads of so few questions",
        few_examples,
        _effect_power,
    ),
}
