"""RESULT.json, RESULT.md and the picture of a study of detectors.

Contract: `write(...)` writes the three files into the folder and returns what RESULT.json holds. Figures in the tables
are `value [low, high]`, 95 %, on test rows that fitted, chose and calibrated nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from probes.model.load import ChatModel
from probes.plots import BAD_COLOUR, GOOD_COLOUR, INK, new_figure, save
from probes.studies.detectors.plan import DetectorPlan
from probes.studies.detectors.verdict import judged, overall
from probes.studies.framework.result import write_result
from probes.studies.tables import interval, table

STUDY = "detectors"
# The name of the method that others are compared with, where it is a probe.
SHIPPED = "shipped"
Figures = Mapping[str, Any]
_NULLS = ("both splits shuffled", "fit labels shuffled", "random directions")
_RATES = ("tpr", "twin_fpr", "everyday_fpr", "other_tpr", "other_fpr")
_HEADS = (
    "AUROC against twins",
    "TPR",
    "FPR of twins",
    "FPR of everyday messages",
    "TPR, other hands",
    "FPR, other hands",
)


def write(figures: dict[str, Any], chat: ChatModel, plan: DetectorPlan, out: Path, command: str, sha256: str) -> Any:
    """Write the files of the study; `figures` are what was measured."""
    methods: dict[str, dict[str, Any]] = figures["methods"]
    named = "the shipped probe" if figures["reference"] == SHIPPED else figures["reference"]
    verdicts = {name: judged(m["difference"], named) for name, m in methods.items() if "difference" in m}
    merits = {name: m["select"] for name, m in methods.items() if "select" in m}
    for name, verdict in verdicts.items():
        methods[name]["verdict"] = str(verdict.label)
    result = write_result(
        out,
        study=STUDY,
        name=plan.name,
        command=command,
        model={"subject": asdict(chat.identity)},
        data={"sha256": sha256, "rows": figures["rows"]},
        plan=plan.plain(),
        verdict=overall(verdicts, merits, figures["attacks_summary"], figures["reference"]),
        figures=figures,
        rounded=lambda value: round(value, 4),
    )
    (out / "RESULT.md").write_text("\n".join(_page(result)), encoding="utf-8")
    _picture(methods, figures["reference"], out / "detectors.png")
    return result


def _page(result: Figures) -> list[str]:
    figures, plan, verdict = result["figures"], result["plan"], result["verdict"]
    methods, reference = figures["methods"], figures["reference"]
    rows, identity = figures["rows"], result["model"]["subject"]
    lines = [
        "# Detectors",
        "",
        verdict["sentence"],
        "",
        *(f"- warning: {line}" for line in verdict["warnings"]),
        *([""] if verdict["warnings"] else []),
        f"Model {identity['model']} (revision {identity['revision']}, {identity['dtype']}). Pairs: "
        f"{rows['pairs']['fit']} to fit on, {rows['pairs']['select']} to choose on, {rows['pairs']['test']} held out; "
        f"{rows['everyday_fit']} everyday and {rows['ordinary_fit']} further benign messages in the fit, "
        f"{rows['choosing']} to choose with, {rows['calibrate']} for thresholds, {rows['everyday_test']} held out. "
        f"Thresholds: a false-positive rate of {plan['target_fpr']:g} of the benign messages. Of each method one "
        "reading was chosen on the select rows, by the mean of its AUROC against twins and its TPR. Seed "
        f"{plan['seed']}. Made by `{result['command']}`.",
        "",
        "## Held-out figures",
        "",
        "`other hands`: harmful requests without twins, and benign messages some of which sound worse than they are, "
        "written without sight of the pairs.",
        "",
        *table(("method", *_HEADS), [[name, *_cells(m["figures"])] for name, m in methods.items()]),
        "## Which reading it is",
        "",
        *table(
            ("method", "reading", "merit on the select rows", *_NULLS, "p"),
            [_reading(name, m) for name, m in methods.items() if "reading" in m],
        ),
        "AUROC of nulls against twins: their mean, and the farthest from 0.5 either way; p is the reading's rank among "
        "the random directions. Labels of both splits shuffled are the chance null. With those of the fit alone "
        "shuffled, directions are draws from the total covariance of the rows, and may tell the classes apart by that.",
        "",
        f"## Differences from {reference}",
        "",
        "On the same rows; AUROC by a jackknife over pairs, rates paired.",
        "",
        *table(
            ("method", *_HEADS, "verdict"),
            [[n, *_cells(m["difference"]), m["verdict"]] for n, m in methods.items() if "difference" in m],
        ),
        "## Share of everyday messages in the fit",
        "",
        "The same readings fitted on the pairs and so many everyday messages: AUROC against twins, then TPR.",
        "",
        *_shares(methods, rows),
    ]
    if figures["attacks"]:
        lines += _attacks(figures)
    return lines


def _cells(figures: Figures) -> list[str]:
    return [interval(figures["auroc"], missing="-"), *(interval(figures.get(rate), missing="-") for rate in _RATES)]


def _reading(name: str, method: Figures) -> list[str]:
    nulls = method.get("nulls", {})
    note = "" if method.get("converged", True) else " (not converged)"
    found = [nulls.get(kind) for kind in _NULLS]
    shown = [f"{null['mean']:.2f}, {null['most']:.2f}" if null else "-" for null in found]
    drawn = found[-1]
    shown.append(f"{drawn['p']:.3f}" if drawn else "-")
    merit = f"{method['select']:.3f}" if "select" in method else "-"
    return [name, method["reading"] + note, merit, *shown]


def _shares(methods: Figures, rows: Figures) -> list[str]:
    fitted = {name: m for name, m in methods.items() if "everyday_rows" in m}
    counts = list(next(iter(fitted.values()))["everyday_rows"]) if fitted else []
    body = []
    for name, method in fitted.items():
        columns = [*(method["everyday_rows"][count] for count in counts), method["figures"]]
        body.append([name, *(f"{f['auroc']['value']:.2f}, {f['tpr']['value']:.2f}" for f in columns)])
    return table(("method", *counts, f"all, and {rows['ordinary_fit']} further"), body)


def _attacks(figures: Figures) -> list[str]:
    summary, rows = figures["attacks_summary"], figures["attacks"]
    first = rows[0]["recall"]
    n = next(iter(first.values()))["n"]
    methods = list(first)
    return [
        "## Under attack",
        "",
        f"{n} harmful messages under each family; recall at the same thresholds. The mean over families has no "
        "interval, as all are of the same messages; those of single rates are in RESULT.json.",
        "",
        *table(
            ("method", "as they are", "mean of families", "held-out families", "worst suffix", "FPR, mean of families"),
            [_summary_row(method, summary[method]) for method in methods if method in summary],
        ),
        *table(
            ("family", *methods),
            [
                [
                    row["family"] + (" (held out)" if row["holds_out"] else ""),
                    *(f"{row['recall'][m]['value']:.2f}" for m in methods),
                ]
                for row in rows
            ],
        ),
    ]


def _summary_row(method: str, summary: Figures) -> list[str]:
    worst = summary["worst_suffix"]
    held_out = summary["held_out"]
    return [
        method,
        interval(summary["plain"]),
        f"{summary['mean']:.2f}",
        "-" if held_out is None else f"{held_out:.2f}",
        "-" if worst is None else f"{worst['value']:.2f} ({worst['family']})",
        f"{summary['fpr']:.2f}",
    ]


def _picture(methods: Mapping[str, Figures], reference: str, path: Path) -> None:
    """AUROC against twins and TPR of every method, with intervals; the reference's values as lines."""
    names: Sequence[str] = list(methods)[::-1]
    figure, axes = new_figure(9.0, 0.34 * len(names) + 1.2, 2)
    for axis, key, label in zip(
        axes, ("auroc", "tpr"), ("AUROC against twins", "TPR at the everyday threshold"), strict=True
    ):
        found = [methods[name]["figures"][key] for name in names]
        values = np.array([f["value"] for f in found])
        spread = np.array([[f["value"] - f["low"] for f in found], [f["high"] - f["value"] for f in found]])
        colours = [BAD_COLOUR if name == reference else GOOD_COLOUR for name in names]
        for y, (value, colour) in enumerate(zip(values, colours, strict=True)):
            axis.errorbar(value, y, xerr=np.clip(spread[:, [y]], 0, None), fmt="o", color=colour, capsize=3)
        axis.axvline(methods[reference]["figures"][key]["value"], color=INK, linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(names)), names if key == "auroc" else [""] * len(names), fontsize=7)
        axis.set_xlabel(label, fontsize=9)
    save(figure, path)
