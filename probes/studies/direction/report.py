"""RESULT.json and table.md of a direction study. Every figure has its interval, every table says on which split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from probes.studies.direction import dose
from probes.studies.framework.result import write_measured
from probes.studies.tables import interval, table

_interval = partial(interval, missing="-")


def write(result: dict[str, Any], folder: Path) -> None:
    """RESULT.json (no infinity, no NaN: null) and table.md."""
    write_measured(folder, "direction", result)
    (folder / "table.md").write_text(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """The whole study as tables."""
    parts = [
        f"# Direction study: {result['name']}\n",
        _head(result),
        f"**{result['verdict']['sentence']}.**\n",
        _bullets("Why", result["verdict"]["reasons"]),
        _bullets("Warnings", result["verdict"]["warnings"]),
        _separation(result),
        _dose(result),
        _select(result),
        _prediction(result),
        _paper(result),
    ]
    return "\n".join(part for part in parts if part)


def _head(result: dict[str, Any]) -> str:
    compared = "; ".join(f"{name}: {condition}" for name, condition in result["arms"].items())
    sizes = ", ".join(f"{n} {name}" for name, n in result["messages"].items())
    return (
        f"{compared}. Metric: {result['metric']}. Messages: {sizes}. Answers: greedy, "
        f"{result['plan']['max_new_tokens']} tokens. Seed {result['plan']['seed']}. Chosen on the select split: "
        f"**{result['chosen']['name']}**. Brackets are 95 % intervals.\n\n"
        f"Made by `{result['command']}`.\n"
    )


def _separation(result: dict[str, Any]) -> str:
    rows = []
    for row in result["separation"]:
        control, against = row["control"], row["against_control"]
        rows.append(
            [
                row["site"],
                f"{row['relative_norm']:.2f}",
                _interval(row["accuracy"]),
                _interval(row["effect_size"], 1),
                _chance(row),
                _spread(row["shuffled_fit"]),
                _spread(row["random"]),
                _interval(control["accuracy"]) if control else "-",
                f"{control['cosine']:.2f}" if control else "-",
                _interval(against["accuracy"]) if against else "-",
            ]
        )
    head = [
        "site",
        "norm over mean norm of h",
        "balanced accuracy",
        "Cohen's d",
        "chance (labels of both splits shuffled): mean, farthest, p",
        "fit labels shuffled: mean, farthest",
        "random: mean, farthest",
        "control's own",
        "cosine to control's",
        "misaligned against control",
    ]
    text = "## Separation, on test messages\n\nCut at the midpoint of the fit split.\n\n" + _table(head, rows)
    if result["text_only"] is not None:
        text += f"\nText-only baseline (TF-IDF, same splits): AUROC {_interval(result['text_only'])}.\n"
    return text


def _dose(result: dict[str, Any]) -> str:
    head = [
        "condition",
        "behaviour",
        "good",
        "coherent",
        "of these: NLL / repetition / length",
        "NLL under the base",
        "repeated 4-grams",
        "tokens",
        "mean change of h",
    ]
    rows = [_condition(row) for row in result["dose"]["test"]]
    cosines = ", ".join(f"{name} {value:.2f}" for name, value in result["dose"]["cosines"].items())
    return (
        f"## Steering, on {result['messages']['steered']} test messages that chose nothing\n\n"
        f"`good`: {result['dose']['good_means']}. Controls "
        f"move every token by the same amount as the chosen intervention. {dose.PAPER.capitalize()}: subtract x1 at "
        "the last block, at the last prompt token and what follows.\n\n"
        + _table(head, rows)
        + f"\nCosine of the control vectors to the chosen direction: {cosines}.\n"
    )


def _condition(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        *(_interval(row[name]) for name in ("behaviour", "good", "coherent")),
        " / ".join(f"{part['value']:.2f}" for part in row["parts"].values()),
        *(_interval(row[name]) for name in ("nll", "repeated")),
        _interval(row["tokens"], 0),
        f"{row['change']:.2f}",
    ]


def _select(result: dict[str, Any]) -> str:
    separated = {row["site"]: row for row in result["separation"]}
    predicted = {row["site"]: row for row in result["prediction"].get("sites", [])}
    rows = []
    for row in result["dose"]["select"]:
        seen = predicted.get(row["site"])
        rows.append(
            [
                row["site"],
                f"{row['mode']} x{row['strength']:g}",
                _interval(row["behaviour"]),
                _interval(row["good"]),
                f"{row['change']:.2f}",
                _interval(separated[row["site"]]["accuracy"]),
                _interval(seen["direction"]) if seen else "-",
            ]
        )
    head = ["site", "dose", "behaviour", "good", "mean change of h", "separation (test)", "within-model AUROC (test)"]
    return (
        f"## Detection and control by block: the dose sweep, on {result['messages']['select']} select messages\n\n"
        "What chose; the best detecting block need not be the best controlling one.\n\n" + _table(head, rows)
    )


def _prediction(result: dict[str, Any]) -> str:
    predicted = result["prediction"]
    title = "## Within the misaligned model: which message will show the behaviour?\n\n"
    if "not_possible" in predicted:
        return title + f"No figure: {predicted['not_possible']}.\n"
    counts = predicted["messages"]["test"]
    detector = predicted["detector"]
    rows = [
        ["direction", predicted["direction"]["site"], _interval(predicted["direction"]["auroc"])],
        ["detector (difference in means of labelled fit messages)", detector["site"], _interval(detector["auroc"])]
        if detector
        else ["detector", "-", "-"],
        ["control's direction", predicted["direction"]["site"], _interval(predicted["control"])],
        ["text alone (TF-IDF)", "", _interval(predicted["text_only"])],
        ["random directions: mean, farthest", predicted["direction"]["site"], _spread(predicted["random"])],
    ]
    if detector:
        rows += [
            ["chance (labels of both splits shuffled): mean, farthest, p", detector["site"], _chance(detector)],
            ["fit labels shuffled: mean, farthest", detector["site"], _spread(detector["shuffled_fit"])],
        ]
    sites = [
        [
            r["site"],
            _interval(r["direction"]),
            _interval(r["detector"]),
            _interval(r["cosine"]),
            f"{r['cosine']['plain']:.2f} ({r['cosine']['null']:.2f})" if r["cosine"] else "-",
        ]
        for r in predicted["sites"]
    ]
    return (
        title
        + f"{predicted['arm']}; test messages: {counts['shown']} that show it, {counts['not_shown']} that do not. "
        "Sites were chosen on the fit messages.\n\n"
        + _table(["scorer", "site", "AUROC"], rows)
        + "\nBy site, on test messages; the cosine is between the detector and the direction that steers, "
        "without the noise of the detector; plain is with it.\n\n"
        + _table(
            ["site", "AUROC of the direction", "AUROC of the detector", "cosine", "plain (shuffled labels)"],
            sites,
        )
    )


def _paper(result: dict[str, Any]) -> str:
    if result["kind"] == "messages" or not any(row["control"] for row in result["separation"]):
        return ""
    last = result["separation"][-1]
    deepest = next((r for r in reversed(result["separation"]) if r["site"].startswith("residual")), last)
    control = deepest["control"] or last["control"]
    setting = next((r for r in result["dose"]["test"] if r["name"] == dose.PAPER), None)
    lines = [
        f"- Separation at {deepest['site']}: {_interval(deepest['accuracy'])} here, .996 there.",
        f"- The control's own direction there: {_interval(control['accuracy'])}, d "
        f"{_interval(control['effect_size'], 1)}, norm {control['norm']:.1f} here; the paper is read as .500 and "
        "d = 0.0 (`docs/science.md` A.3, a third party's reading). Exactly these are what a vector of zeros gives: a "
        "control adapter that was not active, or was projected on the other adapter's direction with a cut that its "
        "rows never reach. Adapter against base is expected to separate for every adapter that changes the weights.",
    ]
    if deepest["against_control"]:
        lines.append(
            f"- Misaligned against control along the direction: {_interval(deepest['against_control']['accuracy'])}: "
            "what is left of the separation when both arms were fine-tuned."
        )
    if setting:
        before = next(r for r in result["dose"]["test"] if r["name"] == dose.UNTOUCHED)
        lines.append(
            f"- Its steering (subtract x1, last block, last position; here every generated token too): the behaviour "
            f"goes from "
            f"{_interval(before['behaviour'])} to {_interval(setting['behaviour'])}, good answers from "
            f"{_interval(before['good'])} to {_interval(setting['good'])}; it reports falls of .21 to .51 and no "
            "coherence figure."
        )
    return "## Beside arXiv 2606.20225\n\n" + "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(table(head, rows))


def _bullets(title: str, items: Sequence[str]) -> str:
    return f"{title}:\n\n" + "".join(f"- {item}\n" for item in items) if items else ""


def _chance(figures: dict[str, Any]) -> str:
    """The chance null of a figure; results of before have none."""
    found = figures.get("chance")
    return f"{_spread(found)}, {found['p']:.3f}" if found else "-"


def _spread(spread: dict[str, Any]) -> str:
    return f"{spread['mean']:.2f}, {spread['farthest']:.2f} of {spread['n']}"
