"""The files of a heads study: RESULT.json, its Markdown tables, the map of single heads and the curves over alpha.

Contract: `write(result, shape, out)` writes all four from the result's plain data alone, so that they can be made
again from RESULT.json (`measured_of`). Figures stand with their 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.capture.sites import parse_site
from probes.errors import DataError
from probes.studies.framework.result import write_measured
from probes.studies.head_steering.verdict import CHOSEN, FINE_TUNE
from probes.studies.plots import plot_alpha, plot_head_map
from probes.studies.tables import Figure, interval, table


def write(result: dict[str, Any], shape: tuple[int, int], out: Path) -> None:
    """`shape` is (blocks, heads). DataError when the folder cannot be written to."""
    try:
        write_measured(out, "heads", result)
        (out / "RESULT.md").write_text(markdown(result))
        _head_map(result, shape, out / "heads.png")
        _alpha(result, out / "alpha.png")
    except OSError as error:
        raise DataError(f"study folder: cannot write to {out} ({error.strerror}); choose another out") from error


def _choice_row(name: str, figures: Figure) -> list[str]:
    keys = ("wanted", "wanted_change", "undefined", "effect")
    return [name, *(interval(figures.get(key)) for key in keys)]


def _open_row(name: str, figures: Figure) -> list[str]:
    parts = [f"{part['value']:.2f}" for part in figures["parts"].values()]
    return [
        name,
        interval(figures["behaviour"]),
        f"{interval(figures['good'])} ({', '.join(parts)})",
        *(interval(figures.get(key)) for key in ("nll", "nll_unsteered", "repeated")),
        f"{figures['tokens']['value']:.0f}",
        f"{figures['change']:.2f}",
    ]


_CHOICES = ("on held-out questions", "wanted choice", "change", "undefined", "effect")
_EXAMPLES = ("questions", "heads", "alpha", "wanted, heads", "wanted, fine-tune", "fine-tune, its own", "comparable")
_OPEN = ("open answers", "behaviour", "good", "NLL, base", "NLL, unsteered", "repeated", "tokens", "delta/h")


def markdown(result: dict[str, Any]) -> str:
    """The result as Markdown: the verdict, the held-out tables, the curve over alpha, the heads, the detector."""
    plan, verdict = result["plan"]["search"], result["verdict"]
    lines = [f"# {result['name']}: {verdict['label']}", "", " ".join(verdict["reasons"]), ""]
    lines += [*(f"- Warning: {text}" for text in verdict["warnings"]), ""]
    model, data = result["model"]["subject"], result["data"]
    lines += [
        f"Model {model['model']} (revision {model['revision']}, adapter {result['adapter'] or 'none'}"
        + (f" x{model['adapter_scale']:g}" if result["adapter"] else "")
        + f", {model['dtype']}); aim: {plan['aim']}; questions: {data['search']} to search, {data['retest']} to "
        f"re-test, {data['heldout']} held out; asked by {result['form']['used']} ({result['form']['why']}); effects in "
        f"{result['form']['unit']}; seed {result['plan']['seed']}.",
        "",
    ]
    base = result["base_choices"]
    rows = [] if base is None else [_choice_row("base model", base)]
    rows += [_choice_row(name, figures) for name, figures in result["heldout"].items()]
    lines += table(_CHOICES, rows)
    lines += [f"Good: {result['good_means']}; in brackets the shares that pass NLL, repetition, length.", ""]
    lines += table(_OPEN, [_open_row(name, figures) for name, figures in result["open"].items()])
    lines += [*_ranks(result["ranks"]), "", _fine_tune(result["fine_tune"]), ""]
    curve = result["alpha_curve"]
    lines += table(
        ("alpha", *_CHOICES[1:], *_OPEN[1:]),
        [
            [*_choice_row(f"{alpha:g}", choice), *_open_row("", opened)[1:]]
            for alpha, choice, opened in zip(curve["alphas"], curve["heldout"], curve["open"], strict=True)
        ],
    )
    layer, other = result["layer_curve"], result["other_form"]
    lines += table(
        (f"alpha of {'+'.join(layer['sites']) or 'the layer vector'}", *_CHOICES[1:]),
        [_choice_row(f"{a:g}", choice) for a, choice in zip(layer["alphas"], layer["heldout"], strict=True)],
    )
    lines += table(
        (f"the same questions, asked by {other['form']}", *_CHOICES[1:]),
        [_choice_row(name, figures) for name, figures in other["heldout"].items()],
    )
    points = result["examples_curve"]
    lines += table(_EXAMPLES, [_examples_row(point) for point in points]) if points else []
    lines += table(
        ("head", "shift in class gaps", "shift over the head's norm", "re-test effect", "probe accuracy"),
        [
            [
                head["site"],
                f"{head['shift_in_class_gaps']:.1f}",
                f"{head['shift_over_norm']:.2f}",
                interval(result["search"]["retest"].get(head["site"])),
                f"{head['probe_accuracy']:.2f}",
            ]
            for head in result["heads"]
        ],
    )
    searched = result["search"]
    lines += [
        f"{len(searched['singles'])} heads were tried one at a time, {len(searched['retest'])} re-tested, "
        f"{len(searched['survivors'])} survived; {len(searched['skipped'])} had no direction.",
        "",
        *(f"- {'yes' if seen else 'no'}: {mark}" for mark, seen in result["paper"].items()),
        "",
        _detector(result["detector"]),
        "",
        "The card carries the steering recipe." if result["recipe_in_card"] else f"No recipe: {verdict['label']}.",
        "",
    ]
    return "\n".join(lines)


def _ranks(ranks: Figure) -> list[str]:
    """Among the random draws: how many do as much as the chosen heads, and p."""
    where = {"heldout": "held-out questions", "open": "open answers"}
    return [
        f"- {where[part]}: {found['as_much']} of {found['draws']} {kind} do as much, p = {found['p']:.3f}"
        for part, kinds in ranks.items()
        for kind, found in kinds.items()
    ]


def _fine_tune(arm: Figure | None) -> str:
    if arm is None:
        return "The fine-tune was left out."
    learned = "learned" if arm["learned"] else "did not learn"
    return (
        f"The fine-tune on {arm['questions']} questions {learned} them ({arm['own_wanted']:.2f} wanted choices there). "
        f"Wanted choices held out, heads less fine-tune: {interval(arm['wanted_difference'])}; comparable: "
        f"{arm['comparable']}."
    )


def _examples_row(point: Figure) -> list[str]:
    arm, heldout = point["fine_tune"], point["heldout"]
    return [
        str(point["questions"]),
        ", ".join(point["heads"]),
        f"{point['alpha']:g}",
        *(interval(heldout[name]["wanted"]) for name in (CHOSEN, FINE_TUNE)),
        f"{arm['own_wanted']:.2f}",
        arm["comparable"],
    ]


def _detector(evaluation: Figure) -> str:
    own = evaluation["own_answers"]
    own_words = own if isinstance(own, str) else f"AUROC {interval(own['auroc'])}"
    others = evaluation["nulls"].get("random_heads", {}).get("auroc_most", "not tried")
    return (
        f"Detector {evaluation['name']} ({evaluation['heads']['chosen']}: {', '.join(evaluation['heads']['sites'])}): "
        f"held-out AUROC {interval(evaluation['test']['auroc'])}; text only "
        f"{interval(evaluation['text_only']['auroc'])}; random heads at most {others}; "
        f"on the model's own answers: {own_words}."
    )


def _head_map(result: dict[str, Any], shape: tuple[int, int], path: Path) -> None:
    effects = np.full(shape, np.nan)
    for name, effect in result["search"]["singles"].items():
        site = parse_site(name)
        effects[site.layer, site.head] = effect["value"]
    chosen = [(s.layer, s.head) for s in (parse_site(h["site"]) for h in result["heads"])]
    alpha = result["plan"]["search"]["alpha"]
    label = f"effect ({result['form']['unit']})"
    plot_head_map(effects, chosen, label, f"each head alone, alpha {alpha:g}; ringed: chosen", path)


def _alpha(result: dict[str, Any], path: Path) -> None:
    curve = result["alpha_curve"]
    choices, opened = curve["heldout"], curve["open"]

    def line(points: Sequence[Figure], key: str) -> list[Figure]:
        nothing = {"value": np.nan, "low": np.nan, "high": np.nan}
        return [f[key] or nothing for f in points]

    panels = [
        ("share of held-out choices", {"wanted": line(choices, "wanted"), "undefined": line(choices, "undefined")}),
        ("share of open answers", {result["metric"]["name"]: line(opened, "behaviour"), "good": line(opened, "good")}),
        ("nats a token", {"NLL, base": line(opened, "nll"), "NLL, unsteered": line(opened, "nll_unsteered")}),
    ]
    plot_alpha([abs(a) for a in curve["alphas"]], panels, abs(result["alpha"]), result["name"], path)
