"""The study's three PNGs: separation by layer with its nulls, dose curves with coherence, detection beside control."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.plots import BAD_COLOUR, GOOD_COLOUR, INK, new_figure, save
from probes.studies.direction import dose
from probes.studies.framework.controls import ORTHOGONAL, WRONG_LAYER, is_random

_GREY, _BLUE = "#9aa3b2", "#5e81ac"


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """separation.png, dose.png, detection-control.png."""
    paths = [folder / f"{name}.png" for name in ("separation", "dose", "detection-control")]
    for path, picture in zip(paths, (_separation, _dose, _detection), strict=True):
        picture(result, path)
    return paths


def _separation(result: dict[str, Any], path: Path) -> None:
    rows = [r for r in result["separation"] if not r["site"].startswith("head")] or result["separation"]
    figure, (left, right) = new_figure(12, 4.4, 2)
    x = np.arange(len(rows))
    curves = [("misaligned against aligned", BAD_COLOUR, rows)]
    if rows[0]["control"]:
        curves.append(("control against aligned, its own direction", _BLUE, [r["control"] for r in rows]))
    if rows[0]["against_control"]:
        curves.append(("misaligned against control", GOOD_COLOUR, [r["against_control"] for r in rows]))
    for label, colour, points in curves:
        _band(left, x, [f["accuracy"] for f in points], colour, label)
        known = [(a, f["effect_size"]) for a, f in zip(x, points, strict=True) if f["effect_size"]]
        if known:
            _band(right, np.array([a for a, _ in known]), [d for _, d in known], colour, label)
    for name, colour, style in (("random", _GREY, "-"), ("chance", INK, ":")):
        label = f"{name}, farthest from 0.5 of {rows[0][name]['n']}"
        left.plot(x, [r[name]["farthest"] for r in rows], color=colour, linestyle=style, linewidth=1, label=label)
    left.plot(x, [r["random"]["mean"] for r in rows], color=_GREY, linestyle="--", linewidth=1, label="random, mean")
    left.axhline(0.5, color=INK, linewidth=0.6)
    left.set_ylim(0.35, 1.03)
    left.set_title("balanced accuracy, test messages", fontsize=9, color=INK, loc="left")
    right.axhline(0, color=INK, linewidth=0.6)
    right.set_title("Cohen's d, test messages", fontsize=9, color=INK, loc="left")
    step = max(1, len(rows) // 10)
    for axis in (left, right):
        axis.set_xticks(x[::step], [r["site"].replace("residual", "") for r in rows][::step], fontsize=7)
        axis.set_xlabel("site ([block], then final)", fontsize=9)
    _legend(left, 2, below=0.17)
    figure.suptitle(f"{result['name']}: separation by layer, with its nulls", fontsize=10, color=INK)
    save(figure, path)


def _dose(result: dict[str, Any], path: Path) -> None:
    rows = {r["name"]: r for r in result["dose"]["test"]}
    untouched = rows[dose.UNTOUCHED]
    own = [r for r in rows.values() if r["mode"] and not _is_control(r["name"])]
    curve = [untouched, *(r for r in own if r["mode"] == "subtract")]
    strengths = [0.0, *(r["strength"] for r in curve[1:])]
    ablations = [r for r in own if r["mode"] == "ablate"]
    controls = [r for r in rows.values() if r["mode"] and _is_control(r["name"])]
    labels = [
        *(f"subtract x{a:g}" if a else "none" for a in strengths),
        *(f"ablate x{r['strength']:g}" for r in ablations),
        *(_short(r["name"]) for r in controls),
    ]
    figure, axes = new_figure(11, 4.2, 3)
    panels = (("behaviour", "shows the behaviour"), ("good", "good answers"), ("nll", "NLL under the base (nats)"))
    for axis, (key, title) in zip(axes, panels, strict=True):
        shown = [*curve, *ablations, *controls]
        x = np.arange(len(shown))
        _points(axis, x[: len(curve)], [r[key] for r in curve], BAD_COLOUR, line=True)
        _points(axis, x[len(curve) : len(curve) + len(ablations)], [r[key] for r in ablations], BAD_COLOUR, line=False)
        _points(axis, x[len(curve) + len(ablations) :], [r[key] for r in controls], _GREY, line=False)
        base = rows[dose.BASE][key]
        if base:
            axis.axhline(base["value"], color=GOOD_COLOUR, linestyle="--", linewidth=1)
        axis.axvline(len(curve) + len(ablations) - 0.5, color=INK, linewidth=0.6, linestyle=":")
        axis.set_xticks(x, labels, rotation=90, fontsize=7)
        axis.set_title(title, fontsize=9, color=INK, loc="left")
        if key != "nll":
            axis.set_ylim(-0.03, 1.03)
    figure.suptitle(
        f"{result['name']} at {result['chosen']['site']}; right of the dotted line: controls of equal norm for "
        f"{result['chosen']['mode']} x{result['chosen']['strength']:g}; dashed: base model",
        fontsize=10,
        color=INK,
    )
    save(figure, path)


def _detection(result: dict[str, Any], path: Path) -> None:
    by_site: dict[str, list[dict[str, Any]]] = {}
    for row in result["dose"]["select"]:
        by_site.setdefault(row["site"], []).append(row)
    sites = list(by_site)
    x = np.arange(len(sites))
    figure, (left, right) = new_figure(10, 3.8, 2)
    separated = {r["site"]: r for r in result["separation"]}
    _points(left, x - 0.12, [separated[s]["accuracy"] for s in sites], INK, line=False, label="separation")
    predicted = {r["site"]: r for r in result["prediction"].get("sites", [])}
    if predicted:
        _points(left, x, [predicted[s]["direction"] for s in sites], BAD_COLOUR, line=False, label="within-model AUROC")
        cosines = [predicted[s]["cosine"] for s in sites]
        _points(left, x + 0.12, cosines, _BLUE, line=False, label="cosine(detector, direction)")
    left.set_ylim(min(-0.05, left.get_ylim()[0]), 1.05)
    left.axhline(0.5, color=INK, linewidth=0.6, linestyle=":")
    left.set_title("detection (test messages)", fontsize=9, color=INK, loc="left")
    doses = [f"{r['mode']} x{r['strength']:g}" for r in by_site[sites[0]]]
    colours = [_GREY, GOOD_COLOUR, _BLUE, BAD_COLOUR, INK]
    for i, name in enumerate(doses):
        shift = (i - (len(doses) - 1) / 2) * 0.13
        _points(
            right, x + shift, [by_site[s][i]["good"] for s in sites], colours[i % len(colours)], line=False, label=name
        )
    right.set_ylim(-0.03, 1.03)
    right.set_title("control: good answers (select messages)", fontsize=9, color=INK, loc="left")
    for axis in (left, right):
        axis.set_xticks(x, sites, fontsize=8)
        _legend(axis, 3)
    figure.suptitle(f"{result['name']}: detecting and controlling, by block", fontsize=10, color=INK)
    save(figure, path)


def _is_control(name: str) -> bool:
    return is_random(name) or name in (ORTHOGONAL, WRONG_LAYER, dose.CONTENT, dose.CONTRAST)


def _short(name: str) -> str:
    return name.replace(" direction", "").replace("control's", "control")


def _band(axis: Any, x: Any, points: Sequence[dict[str, Any]], colour: str, label: str) -> None:
    axis.plot(x, [f["value"] for f in points], color=colour, marker=".", markersize=4, linewidth=1.2, label=label)
    axis.fill_between(x, [f["low"] for f in points], [f["high"] for f in points], color=colour, alpha=0.15, linewidth=0)


def _points(
    axis: Any, x: Any, points: Sequence[dict[str, Any] | None], colour: str, *, line: bool, label: str | None = None
) -> None:
    known = [(a, f) for a, f in zip(x, points, strict=True) if f is not None]
    if not known:
        return
    at = [a for a, _ in known]
    values = np.array([[f["value"], f["value"] - f["low"], f["high"] - f["value"]] for _, f in known])
    axis.errorbar(
        at,
        values[:, 0],
        yerr=np.clip(values[:, 1:].T, 0, None),
        fmt="o-" if line else "o",
        color=colour,
        capsize=2,
        markersize=4,
        linewidth=1,
        label=label,
    )


def _legend(axis: Any, columns: int, below: float = 0.14) -> None:
    axis.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -below), ncols=columns)
