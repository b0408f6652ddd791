"""A transfer study as Markdown: the models, the matrix, what controls did, who gives and who takes, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.studies.tables import interval, table


def markdown(result: dict[str, Any]) -> str:
    """The whole page; `result` is what `probes.studies.transfer.report.summarise` gives."""
    settings = result["plan"]
    lines = ["# Transfer of misalignment directions between models", ""]
    lines += [line for note in result["notes"] for line in (f"**{note}**", "")]
    lines += [
        f"Ridge maps between {len(result['subjects'])} models, {result['anchors']} {settings['anchors']} anchors at "
        f"{', '.join(settings['token_positions'])}, depth {settings['depth']:g}, strength {settings['strength']:g}, "
        f"positions {settings['steered']}, {settings['draws']} draws of each control, seed {settings['seed']}.",
        "",
        "`bad`: shows the behaviour. `good`: does not, and is coherent. `gain`: share of good answers under a "
        "direction minus that without. Intervals are 95 %; means over pairs are the jackknife's over models.",
        "",
    ]
    for name, why in result["left_out"].items():
        lines += [f"Left out: **{name}**, {why}.", ""]
    for mode in settings["modes"]:
        lines += [f"**{mode}**: {result['verdicts'][mode]['sentence']}.", ""]
    lines += [*(f"- Warning: {text}" for text in result["verdict"]["warnings"]), ""]
    lines += ["## The models by themselves", "", *_models(result), ""]
    for mode in settings["modes"]:
        lines += [f"## Pairs by group, {mode}", "", *_cells(result["groups"][mode]), ""]
        lines += [f"### All pairs, {mode}", "", *_overall(result["overall"][mode]), ""]
        lines += [f"### Asymmetry, {mode}", "", *_asymmetry(result["asymmetry"][mode]), ""]
    lines += ["## Detection", "", f"{result['verdicts']['detection']['sentence']}.", "", *_detection(result), ""]
    lines += ["## Every pair", "", *_pairs(result["pairs"], settings["modes"]), ""]
    lines += ["## Probes", "", *map(_probe, result["exported"])]
    return "\n".join(lines) + "\n"


def _models(result: dict[str, Any]) -> list[str]:
    rows = []
    for subject in result["subjects"]:
        for mode, own in subject["modes"].items():
            rows.append(
                [
                    subject["name"],
                    subject["site"],
                    mode,
                    _both(subject["untouched"]),
                    _both(own["own"]),
                    f"{own['random']['bad']['mean']:.2f} / {own['random']['good']['mean']:.2f}",
                    _both(own["orthogonal"]),
                    _both(own["wrong_layer"]) if own["wrong_layer"] else "none",
                    f"{subject['aligned']['good']['value']:.2f}",
                ]
            )
    head = ["model", "site", "mode", "untouched, bad / good", "own direction", "random (mean)", "orthogonal"]
    return table([*head, "wrong layer", "aligned, good"], rows)


def _cells(cells: Sequence[dict[str, Any]]) -> list[str]:
    """One row a donor, one column a receiver."""
    groups = list(dict.fromkeys([c["donor"] for c in cells] + [c["receiver"] for c in cells]))
    at = {(c["donor"], c["receiver"]): c for c in cells}

    def cell(donor: str, receiver: str) -> str:
        figures = at.get((donor, receiver))
        if figures is None:
            return ""
        gain, over = figures["gain"]["value"], figures["over_controls"]["value"]
        return f"{figures['r2']['value']:.2f}, {figures['cosine']['value']:.2f}, **{gain:+.2f}** ({over:+.2f})"

    rows = [[donor, *(cell(donor, receiver) for receiver in groups)] for donor in groups]
    legend = "R2, cosine to the receiver's own, **gain** (gain over the mean control); same group: other members."
    return [*table(["donor \\ receiver", *groups], rows), legend]


def _overall(overall: dict[str, Any]) -> list[str]:
    names = {"across": "different groups", "within": "same group"}
    figures = {
        "r2": "R2",
        "cosine": "cosine to own",
        "own_gain": "gain, receiver's own direction",
        "gain": "gain, mapped",
        "over_random_source": "mapped over random donor directions",
        "over_shuffled": "mapped over shuffled pairs",
        "over_receiver_random": "mapped over random in the receiver",
        "drop": "bad answers taken away, mapped",
        "drop_random_source": "... random donor directions",
        "drop_shuffled": "... shuffled pairs",
        "drop_receiver_random": "... random in the receiver",
    }
    rows = [[label, *(interval(means[key]) for means in overall.values())] for key, label in figures.items()]
    correlation = "rank correlation of {} with the gain over controls"
    for name, label in (("r2", "R2"), ("cosine", "cosine")):
        correlations = [o["rank_correlation_with_over_controls"][name] for o in overall.values()]
        rows.append([correlation.format(label), *("too few" if v is None else f"{v:.2f}" for v in correlations)])
    return table(["", *(f"{names[k]} ({v['pairs']} pairs)" for k, v in overall.items())], rows)


def _asymmetry(asymmetry: dict[str, Any]) -> list[str]:
    rows = [
        [name, interval(g["as_donor"]), interval(g["as_receiver"]), interval(g["over_controls_as_donor"])]
        for name, g in asymmetry["groups"].items()
    ]
    lines = table(["group", "gain as donor", "gain as receiver", "gain over controls as donor"], rows)
    if asymmetry["mean_difference_of_two_ways"] is not None:
        lines += [
            f"The two ways of a pair differ by {asymmetry['mean_difference_of_two_ways']:.2f} on average; equal ways "
            f"would differ by {asymmetry['expected_from_sampling']:.2f} from the choice of questions alone.",
        ]
    return lines


def _detection(result: dict[str, Any]) -> list[str]:
    """AUROC of the two conditions: mapped, its controls, and the receivers' own directions."""
    own = {s["name"]: s["detection"] for s in result["subjects"]}
    rows = [
        [
            f"{pair['donor']} to {pair['receiver']}",
            interval(pair["detection"]["auroc"]),
            *(_spread(pair["detection"]["controls"][kind]) for kind in ("random_source", "shuffled")),
            interval(own[pair["receiver"]]["auroc"]),
            _spread(own[pair["receiver"]]["controls"]["random"]),
        ]
        for pair in result["pairs"]
    ]
    head = ["pair", "AUROC, mapped", "random donor directions", "shuffled pairs", "receiver's own", "random there"]
    return [
        "AUROC of the misaligned against the aligned condition on test questions; controls: mean (farthest from "
        "chance, either way).",
        "",
        *table(head, rows),
    ]


def _spread(controls: dict[str, Any]) -> str:
    return f"{controls['mean']:.2f} ({controls['most']:.2f})"


def _probe(probe: dict[str, Any]) -> str:
    if "not_made" in probe:
        return f"- {probe['receiver']}: no probe, {probe['not_made']}"
    recipe = f"with a recipe ({probe['recipe']})" if probe["recipe"] else "without a recipe: no mapped direction works"
    operating = probe["at_threshold"]
    return (
        f"- {probe['receiver']}: `{probe['file']}`, {probe['donor']}'s direction, {recipe}; AUROC "
        f"{interval(probe['auroc'])} (the text alone: {interval(probe['text_only'])}), at its threshold TPR "
        f"{interval(operating['tpr'])}, FPR {interval(operating['fpr'])}"
    )


def _pairs(pairs: Sequence[dict[str, Any]], modes: Sequence[str]) -> list[str]:
    rows = []
    for pair in pairs:
        null = pair["cosine_null"]
        row = [
            f"{pair['donor']} to {pair['receiver']}",
            f"{pair['r2']:.2f} ({pair['r2_shuffled']:.2f})",
            f"{pair['cosine']:.2f} [{null['low']:.2f}, {null['high']:.2f}]",
        ]
        for mode in modes:
            effect = pair["modes"][mode]
            row += [
                _both(effect["mapped"]),
                f"{effect['random_source']['good']['most']:.2f}, {effect['shuffled']['good']['most']:.2f}",
                effect["verdict"],
            ]
        rows.append(row)
    head = ["pair", "R2 (shuffled)", "cosine [random donor directions]"]
    for mode in modes:
        head += [f"{mode}: mapped, bad / good", "best control's good: random donor, shuffled", "verdict"]
    return table(head, rows)


def _both(condition: dict[str, Any]) -> str:
    return f"{condition['bad']['value']:.2f} / {condition['good']['value']:.2f}"
