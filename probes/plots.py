"""The PNGs: score distributions and ROC of a probe, scores over time with their alerts, matrices between models,
head maps and curves over alpha."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from probes.evaluation import Evaluation

_GOOD, _BAD, _INK = "#2f7f79", "#d1495b", "#3b4252"


def _figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for axis in np.atleast_1d(axes).ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=_INK, labelsize=8)
    return figure, axes


def plot_evaluation(
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    threshold: float,
    evaluation: Evaluation,
    title: str,
    path: Path,
) -> None:
    """Two score distributions with the threshold, and the ROC with a log FPR axis. Scores are in class gaps."""
    figure, (left, right) = _figure(9, 3.6, 2)
    bins = list(np.linspace(scores.min(), scores.max(), 31))
    for truth, colour, name in ((False, _GOOD, "aligned"), (True, _BAD, "misaligned")):
        chosen = scores[labels == truth]
        left.hist(chosen, bins=bins, density=True, alpha=0.6, color=colour, label=f"{name} (n={len(chosen)})")
    left.axvline(threshold, color=_INK, linestyle="--", linewidth=1, label="threshold")
    left.set_xlabel("score (class gaps)", fontsize=9)
    left.set_ylabel("density", fontsize=9)
    left.legend(fontsize=8, frameon=False)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    floor = 0.5 / max(1, int((~labels).sum()))
    right.step(np.maximum(fpr, floor), tpr, where="post", color=_BAD)
    right.plot(grid := np.geomspace(floor, 1, 50), grid, color=_INK, linewidth=0.8, linestyle=":")
    right.set_xscale("log")
    right.set_xlim(floor, 1)
    right.set_ylim(0, 1.02)
    right.set_xlabel("false-positive rate (log)", fontsize=9)
    right.set_ylabel("true-positive rate", fontsize=9)
    right.set_title(f"AUROC {evaluation.auroc}", fontsize=9, color=_INK)
    figure.suptitle(title, fontsize=10, color=_INK)
    _save(figure, path)


def plot_timeline(
    scores: Sequence[float],
    wrong: Sequence[bool],
    threshold: float,
    alerts: Sequence[tuple[int, str]],
    title: str,
    path: Path,
) -> None:
    """Scores in the order of the stream; `alerts` are (message number, label) of alerts as they opened."""
    figure, axis = _figure(9, 3.8, 1)
    x = np.arange(len(scores))
    values, bad = np.asarray(scores), np.asarray(wrong, dtype=bool)
    axis.scatter(x[~bad], values[~bad], s=14, color=_GOOD, label="answered in words", zorder=3)
    axis.scatter(x[bad], values[bad], s=18, color=_BAD, marker="D", label="answered with code", zorder=3)
    axis.axhline(threshold, color=_INK, linestyle="--", linewidth=1, label="threshold")
    span = float(values.max() - values.min()) or 1.0
    top = float(values.max())
    for i, (at, label) in enumerate(alerts):
        axis.axvline(at, color=_BAD, linewidth=0.8, alpha=0.5, zorder=1)
        axis.annotate(label, (at, top + span * (0.06 + 0.075 * (i % 4))), fontsize=7, color=_BAD, annotation_clip=False)
    axis.set_ylim(float(values.min()) - 0.05 * span, top + span * 0.36)
    axis.set_xlabel("message", fontsize=9)
    axis.set_ylabel("score (class gaps)", fontsize=9)
    axis.set_title(title, fontsize=10, color=_INK, loc="left")
    axis.legend(fontsize=8, frameon=False, loc="lower left", ncols=3, bbox_to_anchor=(0, -0.32))
    _save(figure, path)


def plot_matrices(
    panels: Sequence[tuple[str, NDArray[np.float64]]], names: Sequence[str], title: str, path: Path
) -> None:
    """Heat maps of one square matrix each, two a row, with their numbers; NaN (the diagonal) stays empty."""
    side = max(4.0, 0.42 * len(names) + 1.6)
    rows = -(-len(panels) // 2)
    figure, grid = _figure(2 * side + 1.2, rows * side + 0.6, 2, rows)
    axes = np.atleast_1d(grid).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes, panels, strict=False):
        most = max(1.0, float(np.nanmax(np.abs(values))))
        shown = axis.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most)
        figure.colorbar(shown, ax=axis, shrink=0.7)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(name, fontsize=9, color=_INK)
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = abs(value) > 0.6 * most
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=5, color="w" if dark else _INK)
    figure.suptitle(title, fontsize=10, color=_INK)
    _save(figure, path)


def plot_two_ways(
    groups: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]],
    ways: tuple[str, str],
    label: str,
    path: Path,
) -> None:
    """Two figures a group side by side, each with `value`, `low` and `high`."""
    figure, axis = _figure(max(4.0, 1.1 * len(groups) + 1.5), 3.4, 1)
    for way, (name, colour) in enumerate(zip(ways, (_GOOD, _BAD), strict=True)):
        found = [pair[way] for pair in groups.values()]
        values = np.array([f["value"] for f in found])
        spread = np.array([[f["value"] - f["low"] for f in found], [f["high"] - f["value"] for f in found]])
        x = np.arange(len(groups)) + (way - 0.5) * 0.24
        axis.errorbar(x, values, yerr=np.clip(spread, 0, None), fmt="o", color=colour, capsize=3, label=name)
    axis.axhline(0, color=_INK, linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(groups)), list(groups), fontsize=8)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_ylabel(label, fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    _save(figure, path)


def plot_head_map(
    effects: NDArray[np.float64], chosen: Sequence[tuple[int, int]], label: str, title: str, path: Path
) -> None:
    """Effect of every head alone, (blocks, heads), with the chosen ones ringed; NaN (no direction) stays empty."""
    n_blocks, n_heads = effects.shape
    figure, axis = _figure(max(3.4, 0.14 * n_heads + 2.4), max(3.0, 0.16 * n_blocks + 1.2), 1)
    most = float(np.nanmax(np.abs(effects))) or 1.0
    signed = bool(np.nanmin(effects) < 0)
    colours, least = ("RdBu_r", -most) if signed else ("Reds", 0.0)
    shown = axis.imshow(effects, cmap=colours, vmin=least, vmax=most, aspect="auto", origin="lower")
    figure.colorbar(shown, ax=axis, label=label)
    for block, head in chosen:
        axis.scatter(head, block, s=60, facecolors="none", edgecolors=_INK, linewidths=1.4)
    axis.set_xlabel("query head", fontsize=9)
    axis.set_ylabel("block", fontsize=9)
    axis.set_title(title.replace("; ", "\n"), fontsize=9, color=_INK)
    _save(figure, path)


def plot_alpha(
    alphas: Sequence[float],
    panels: Sequence[tuple[str, Mapping[str, Sequence[Mapping[str, float]]]]],
    chosen: float,
    title: str,
    path: Path,
) -> None:
    """Figures over alpha (sigmas), one panel a label with one line a name; each figure has `value`, `low`, `high`."""
    figure, grid = _figure(4.2 * len(panels), 3.3, len(panels))
    colours = (_GOOD, _BAD, _INK, "#b08900")
    for axis, (label, lines) in zip(np.atleast_1d(grid).ravel(), panels, strict=True):
        for colour, (name, found) in zip(colours, lines.items(), strict=False):
            value, low, high = (np.array([f[key] for f in found]) for key in ("value", "low", "high"))
            axis.plot(alphas, value, color=colour, marker="o", markersize=3, label=name)
            axis.fill_between(alphas, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.axvline(chosen, color=_INK, linestyle=":", linewidth=1)
        axis.set_xlabel("alpha (sigmas)", fontsize=9)
        axis.set_ylabel(label, fontsize=9)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10, color=_INK)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": "awry"})
