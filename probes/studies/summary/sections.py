"""One study's part of the page: its verdict, its key figures, its pictures, its command.

Contract: `section(result, at)` returns Markdown lines made of RESULT.json and of the names of the files beside it
alone; links are relative to the folder `at`. No table of a study is repeated here: they are linked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from probes.studies.direction import dose
from probes.studies.framework.result import StudyResult
from probes.studies.head_steering.verdict import CHOSEN, LAYER, OPPOSITE, PLAIN_NAME, PROBE_HEADS
from probes.studies.summary.results import Figures, interval, share, whole

# What a picture shows, by its file's name.
_CAPTIONS = {
    "separation": "held-out separation by layer, with its nulls",
    "dose": "the behaviour and good answers by dose, with controls of equal norm",
    "detection-control": "where the direction detects and where it controls",
    "transfer": "every ordered pair of models: fit of the map, cosine, gain in good answers",
    "asymmetry": "who gives and who takes",
    "heads": "the effect of each head alone; chosen heads are ringed",
    "alpha": "choices, open answers and their likelihood by strength",
    "heads-contrast": "Ships on harmful less on harmless requests, each head; the first are ringed",
    "heads-ships": "mean Ships on harmful requests, each head; the first are ringed",
}


def section(result: StudyResult, at: Path) -> list[str]:
    """The whole part, heading included."""
    folder = Path(os.path.relpath(result.path.parent, at)).as_posix()
    lines = [f"### {result.name}", ""]
    if result.synthetic:
        lines += ["**Synthetic:** planted models; it shows that the tools work, and nothing about real models.", ""]
    if result.measured.get("planted"):
        lines += ["**Planted:** heads trained here to carry a behaviour; it shows what methods find.", ""]
    lines += [whole(result, _HEADS.get(result.study, _any_head)), ""]
    lines += [*whole(result, _verdict), ""]
    lines += [f"- {line}" for line in whole(result, _FIGURES.get(result.study, _any_figures))]
    lines += [""]
    for picture in sorted(result.path.parent.glob("*.png")):
        caption = _CAPTIONS.get(picture.stem, picture.stem)
        lines += [f"![{result.name}: {caption}]({folder}/{picture.name})", "", f"*{caption}*", ""]
    tables = [f"[{p.name}]({folder}/{p.name})" for p in sorted(result.path.parent.glob("*.md"))]
    links = [*tables, f"[RESULT.json]({folder}/RESULT.json)"]
    probes = [p.with_suffix(".json").name for p in sorted(result.path.parent.glob("*.safetensors"))]
    if probes:
        lines += [f"It left {', '.join(f'[{name}]({folder}/{name})' for name in probes)} for the worker.", ""]
    command = f"Made by `{result.command}`. " if result.command else ""
    return [*lines, f"{command}All figures: {', '.join(links)}.", ""]


# What was measured


def _direction_head(result: Figures) -> str:
    arms = "; ".join(f"{name}: {arm}" for name, arm in result["arms"].items())
    sizes = ", ".join(f"{n} {name}" for name, n in result["messages"].items())
    return f"{arms}. Behaviour: {result['metric']}. Messages: {sizes}. Seed {result['plan']['seed']}."


def _transfer_head(result: Figures) -> str:
    settings = result["plan"]
    names = ", ".join(s["name"] for s in result["subjects"])
    return (
        f"Ridge maps between {names}; {result['anchors']} {settings['anchors']} anchors; draws of each control: "
        f"{settings['draws']}; seed {settings['seed']}."
    )


def _heads_head(result: Figures) -> str:
    data = result["data"]
    return (
        f"{_model(result)}; aim: {result['plan']['search']['aim']}; questions: {data['search']} to search, "
        f"{data['retest']} to re-test, {data['heldout']} held out; asked by {result['form']['used']}. Behaviour of "
        f"open answers: {result['metric']['name']}. Seed {result['plan']['seed']}."
    )


def _safety_head(result: Figures) -> str:
    harmful, harmless = result["data"]["harmful"], result["data"]["harmless"]
    return (
        f"{_model(result)}; {harmful['attributed']['n']} harmful and {harmless['attributed']['n']} harmless requests "
        f"to attribute on, {harmful['held_out']['n']} and {harmless['held_out']['n']} held out. Seed "
        f"{result['plan']['seed']}."
    )


def _model(result: Figures) -> str:
    model = result["model"]["subject"]
    adapter = f"adapter {result['adapter']} x{model['adapter_scale']:g}" if result["adapter"] else "no adapter"
    return f"{model['model']}, {adapter}"


def _any_head(result: Figures) -> str:
    """Of a study that has no part of its own here."""
    models = ", ".join(f"{role}: {identity['model']}" for role, identity in result["model"].items())
    seed = f" Seed {result['plan']['seed']}." if "seed" in result["plan"] else ""
    return f"Models: {models}.{seed}"


def _verdict(result: Figures) -> list[str]:
    """The sentence, then what the study says part by part, then warnings."""
    verdict = result["verdict"]
    sentence = verdict["sentence"].rstrip(".")
    said = [text for text in verdict["reasons"] if text.rstrip(".") not in sentence]
    lines = [f"- {text}" for text in said] + [f"- Warning: {text}" for text in verdict["warnings"]]
    return [f"**{sentence}.**", *(["", *lines] if lines else [])]


# Key figures


def _direction_figures(result: Figures) -> list[str]:
    chosen = result["chosen"]["name"]
    names = (dose.BASE, dose.CONTROL_CONDITION, dose.UNTOUCHED, chosen, dose.PAPER)
    rows = {row["name"]: row for row in result["dose"]["test"]}
    lines = [
        f"{name}: behaviour {share(rows[name]['behaviour'])}, good answers {interval(rows[name]['good'])}"
        for name in names
        if name in rows
    ]
    predicted = result["prediction"]
    if "not_possible" in predicted:
        return [*lines, f"Which message will show the behaviour: no figure, {predicted['not_possible']}"]
    best, detector = predicted["direction"], predicted["detector"]
    lines.append(
        f"Which message will show the behaviour: AUROC {interval(best['auroc'])} of the direction at {best['site']}, "
        f"{interval(predicted['text_only'])} of the text alone"
    )
    if detector and detector["cosine"]:
        lines.append(
            f"Cosine between that direction and a detector of labelled messages at {detector['site']}: "
            f"{interval(detector['cosine'])} (shuffled labels: {detector['cosine']['null']:.2f})"
        )
    return lines


def _transfer_figures(result: Figures) -> list[str]:
    labels = {
        "r2": "fit of the maps on held-out anchors (R2)",
        "cosine": "cosine of the mapped direction to the receiver's own",
        "own_gain": "good answers gained by the receiver's own direction",
        "gain": "by the mapped direction",
        "over_controls": "by the mapped direction, beyond the mean control",
    }
    names = {"across": "different classes", "within": "same class"}
    exported = result["exported"]
    recipes = [f"{p['donor']} to {p['receiver']} ({p['recipe']})" for p in exported if p.get("recipe")]
    last = f"Probes that carry a recipe, of {len(exported)} receivers: {', '.join(recipes) or 'none'}"
    lines = [
        f"{mode}, {names[which]} ({figures['pairs']} pairs): "
        + "; ".join(f"{label} {interval(figures[key])}" for key, label in labels.items())
        for mode, overall in result["overall"].items()
        for which, figures in overall.items()
    ]
    return [*lines, last]


def _heads_figures(result: Figures) -> list[str]:
    heldout, opened = result["heldout"], result["open"]
    sites = ", ".join(head["site"] for head in result["heads"])
    lines = [f"Chosen heads: {sites}, alpha {result['alpha']:g}"]
    for name in (PLAIN_NAME, CHOSEN, OPPOSITE, LAYER, PROBE_HEADS):
        if name in heldout and name in opened:
            lines.append(
                f"{name}: wanted choices {share(heldout[name]['wanted'])}; open answers: {result['metric']['name']} "
                f"{share(opened[name]['behaviour'])}, good {interval(opened[name]['good'])}"
            )
    test = result["detector"]["test"]["auroc"]
    return [*lines, f"Detector made of these heads, held-out AUROC: {interval(test)}"]


def _safety_figures(result: Figures) -> list[str]:
    before, attribution = result["before"], result["attribution"]["undifferentiated"]
    first = attribution["top"]["ships"][0]
    group = ", ".join(row["head"] for row in result["dataset"]["sahara"])
    return [
        f"Nothing ablated: refused {share(before['harmful']['refused'])} of harmful and "
        f"{share(before['harmless']['refused'])} of harmless requests",
        f"Highest mean Ships: {first['head']}, {first['ships_harmful']:.2g} nats on harmful and "
        f"{first['ships_harmless']:.2g} on harmless requests; found greedily (Sahara): {group}",
        *(
            f"{name}: harmful requests refused {interval(trials[name]['harmful']['refused'])}, complied "
            f"{interval(trials[name]['harmful']['complied'])}"
            for name, trials in result["trials"].items()
        ),
        *_safety_probe(result["probe"]),
    ]


def _safety_probe(probe: Figures) -> list[str]:
    if "not_made" in probe:
        return [f"No probe of harmful requests: {probe['not_made']}"]
    drawn = probe["random_heads"]
    spread = f"; as many random heads, chosen alike, {min(drawn):.2f} to {max(drawn):.2f}" if drawn else ""
    return [
        f"Probe of harmful requests at {probe['site']}, held-out AUROC {interval(probe['auroc'])}{spread}; the text "
        f"alone {interval(probe['text_only'])}"
    ]


def _any_figures(result: Figures) -> list[str]:
    """Sentences that a study wrote itself."""
    return list(result.get("summary", []))


_HEADS: dict[str, Callable[[Figures], str]] = {
    "direction": _direction_head,
    "transfer": _transfer_head,
    "heads": _heads_head,
    "safety": _safety_head,
}
_FIGURES: dict[str, Callable[[Figures], list[str]]] = {
    "direction": _direction_figures,
    "transfer": _transfer_figures,
    "heads": _heads_figures,
    "safety": _safety_figures,
}
