"""Claims of arXiv 2502.05945 (HSI) against heads studies, a rule each.

Where a study has its own mark for a claim, the rule takes it (`probes.studies.head_steering.verdict.marks`) and adds
the figures. A mark that compares with a control which was not run is not measured.
"""

from __future__ import annotations

from probes.evaluation import Interval
from probes.studies.head_steering.verdict import (
    CHOSEN,
    LAYER,
    PLAIN_NAME,
    PROBE_HEADS,
    RANDOM_DIRECTIONS,
    RANDOM_HEADS,
    WITHOUT_BEST,
)
from probes.studies.summary.results import Figures, Finding, Rule, Support, each, interval, share

COHERENT, ROOM = 0.15, 0.15


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
        return Finding("unmeasured", f"{len(curve['alphas'])} strengths were tried")
    points = zip(curve["alphas"], curve["heldout"], strict=True)
    figures = "; ".join(
        f"alpha {abs(alpha):g}: {f['effect']['value']:.2f} ({f['undefined']['value']:.0%} undefined)"
        for alpha, f in points
    )
    return Finding(_mark(result, "inverted U over alpha"), f"effect by strength, {result['form']['unit']}: {figures}")


def beats_probe_heads(result: Figures) -> Finding:
    return _unless_noise(result, _beats(result, "beats heads ranked by a probe", PROBE_HEADS))


def beats_layer_vector(result: Figures) -> Finding:
    return _unless_noise(result, _beats(result, "beats a layer-level vector", LAYER))


def beats_random(result: Figures) -> Finding:
    both = [
        _beats(result, "beats random heads", RANDOM_HEADS),
        _beats(result, "beats random directions", RANDOM_DIRECTIONS),
    ]
    answers = {seen.support for seen in both} - {"unmeasured"}
    figures = "; ".join(seen.words for seen in both)
    return Finding((answers.pop() if len(answers) == 1 else "unsure") if answers else "unmeasured", figures)


def carries_over(result: Figures) -> Finding:
    if (no_room := _no_room(result)) is not None:
        return no_room
    before, after = (result["open"][name] for name in (PLAIN_NAME, CHOSEN))
    moved = _towards(result, CHOSEN)
    figures = (
        f"{result['metric']['name']} in {share(before['behaviour'])} of open answers before, "
        f"{interval(after['behaviour'])} after; good answers {interval(before['good'])} and {interval(after['good'])}"
    )
    if moved.low <= 0:
        return Finding("no", figures)
    if after["coherent"]["value"] < before["coherent"]["value"] - COHERENT:
        return Finding("unsure", f"{figures}: the text breaks")
    return _unless_noise(result, Finding("yes", figures))


def dissociation(result: Figures) -> Finding:
    if LAYER not in result["open"]:
        return Finding("unmeasured", "no layer vector was tried on open answers")
    if (no_room := _no_room(result)) is not None:
        return no_room
    heads, layer = (_towards(result, name) for name in (CHOSEN, LAYER))
    on_choices = [result["heldout"][name]["effect"]["value"] for name in (CHOSEN, LAYER)]
    figures = (
        f"open answers change the wanted way by {heads} under the heads, by {layer} under the layer vector; on choices "
        f"the effects are {on_choices[0]:.2f} and {on_choices[1]:.2f} {result['form']['unit']}"
    )
    if heads.value <= layer.value:
        return Finding("no", figures)
    return _unless_noise(result, Finding("yes" if heads.low > layer.high else "unsure", figures))


def without_best(result: Figures) -> Finding:
    if WITHOUT_BEST not in result["heldout"]:
        return Finding("unmeasured", "one head was chosen")
    return Finding(_mark(result, "most is left without the best head"), _effects(result, WITHOUT_BEST))


def _unless_noise(result: Figures, seen: Finding) -> Finding:
    """An effect that random directions have as well is no effect of these heads, whatever else it beats."""
    if seen.support == "yes" and result["verdict"].startswith("noise"):
        return Finding("unsure", f"{seen.words}; the study's verdict is noise")
    return seen


def _mark(result: Figures, name: str) -> Support:
    return "yes" if result["paper"][name] else "no"


def _beats(result: Figures, mark: str, control: str) -> Finding:
    # A mark says yes where there was nothing to beat.
    if not any(name.startswith(control) for name in result["heldout"]):
        return Finding("unmeasured", f"no {control} were tried")
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
    if room >= ROOM:
        return None
    return Finding(
        "untestable", f"{result['metric']['name']} in {share(shown)} of open answers before: no room to move"
    )


def _chosen(result: Figures) -> str:
    return ", ".join(head["site"] for head in result["heads"])


def _own_mark(words: str) -> str:
    return f"the study's own mark says so: {words}"


_NOISE = "; mixed when the study's verdict is noise"
RULES = {
    "few_heads": Rule(
        _own_mark("at least one and at most 3 % of the heads tried survive the re-test"), each(few_heads)
    ),
    "wanted_rise": Rule(_own_mark("held-out wanted choices rise by 30 points"), each(wanted_rise)),
    "inverted_u": Rule(_own_mark("the largest held-out effect is at none of the ends of the curve"), each(inverted_u)),
    "beats_probe_heads": Rule(
        _own_mark("the held-out effect is larger, paired by question, than that of as many heads ranked by a probe")
        + _NOISE,
        each(beats_probe_heads),
    ),
    "beats_layer_vector": Rule(
        _own_mark("the same against the residual stream's vector at its best strength") + _NOISE,
        each(beats_layer_vector),
    ),
    "carries_over": Rule(
        "the interval of the change of open answers lies on the wanted side of 0, and no more than "
        f"{COHERENT:.2f} of the answers break{_NOISE}",
        each(carries_over),
    ),
    "dissociation": Rule(
        "open answers change more under the heads than under the layer vector, with intervals that do not meet"
        + _NOISE,
        each(dissociation),
    ),
    "without_best": Rule(_own_mark("more than half of the effect is left without the best head"), each(without_best)),
    "beats_random": Rule(
        "the study's own marks say that the heads beat random heads and random directions in the same heads; one of "
        "the two alone is mixed",
        each(beats_random),
    ),
}
