"""Pictures that several studies draw: matrices between models, two figures a group, head maps, curves over alpha.

Contract: each function writes one PNG from plain figures with `value`, `low` and `high` (95 %).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.plots import BAD_COLOUR, GOOD_COLOUR, INK, new_figure, save


def plot_matrices(
    panels: Sequence[tuple[str, NDArray[np.float64]]], names: Sequence[str], title: str, path: Path
) -> None:
    """Heat maps of one square matrix each, two a row, with their numbers; NaN (the diagonal) stays empty."""
    side = max(4.0, 0.42 * len(names) + 1.6)
    rows = -(-len(panels) // 2)
    figure, grid = new_figure(2 * side + 1.2, rows * side + 0.6, 2, rows)
    axes = np.atleast_1d(grid).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes, panels, strict=False):
        most = max(1.0, float(np.nanmax(np.abs(values))))
        shown = axis.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most)
        figure.colorbar(shown, ax=axis, shrink=0.7)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(name, fontsize=9, color=INK)
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = abs(value) > 0.6 * most
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=5, color="w" if dark else INK)
    figure.suptitle(title, fontsize=10, color=INK)
    save(figure, path)


def plot_two_ways(
    groups: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]],
    ways: tuple[str, str],
    label: str,
    path: Path,
) -> None:
    """Two figures a group side by side, each with `value`, `low` and `high`."""
    figure, axis = new_figure(max(4.0, 1.1 * len(groups) + 1.5), 3.4, 1)
    for way, (name, colour) in enumerate(zip(ways, (GOOD_COLOUR, BAD_COLOUR), strict=True)):
        points = [pair[way] for pair in groups.values()]
        values = np.array([f["value"] for f in points])
        spread = np.array([[f["value"] - f["low"] for f in points], [f["high"] - f["value"] for f in points]])
        x = np.arange(len(groups)) + (way - 0.5) * 0.24
        axis.errorbar(x, values, yerr=np.clip(spread, 0, None), fmt="o", color=colour, capsize=3, label=name)
    axis.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(groups)), list(groups), fontsize=8)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_ylabel(label, fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    save(figure, path)


def plot_head_map(
    effects: NDArray[np.float64], chosen: Sequence[tuple[int, int]], label: str, title: str, path: Path
) -> None:
    """Effect of every head alone, (blocks, heads), with the chosen ones ringed; NaN (no direction) stays empty."""
    n_blocks, n_heads = effects.shape
    figure, axis = new_figure(max(3.4, 0.14 * n_heads + 2.4), max(3.0, 0.16 * n_blocks + 1.2), 1)
    most = float(np.nanmax(np.abs(effects))) or 1.0
    signed = bool(np.nanmin(effects) < 0)
    colours, least = ("RdBu_r", -most) if signed else ("Reds", 0.0)
    shown = axis.imshow(effects, cmap=colours, vmin=least, vmax=most, aspect="auto", origin="lower")
    figure.colorbar(shown, ax=axis, label=label)
    for block, head in chosen:
        axis.scatter(head, block, s=60, facecolors="none", edgecolors=INK, linewidths=1.4)
    axis.set_xlabel("query head", fontsize=9)
    axis.set_ylabel("block", fontsize=9)
    axis.set_title(title.replace("; ", "\n"), fontsize=9, color=INK)
    save(figure, path)


def plot_alpha(
    alphas: Sequence[float],
    panels: Sequence[tuple[str, Mapping[str, Sequence[Mapping[str, float]]]]],
    chosen: float,
    title: str,
    path: Path,
) -> None:
    """Figures over alpha (sigmas), one panel a label with one line a name; each figure has `value`, `low`, `high`."""
    figure, grid = new_figure(4.2 * len(panels), 3.3, len(panels))
    colours = (GOOD_COLOUR, BAD_COLOUR, INK, "#b08900")
    for axis, (label, lines) in zip(np.atleast_1d(grid).ravel(), panels, strict=True):
        for colour, (name, points) in zip(colours, lines.items(), strict=False):
            value, low, high = (np.array([f[key] for f in points]) for key in ("value", "low", "high"))
            axis.plot(alphas, value, color=colour, marker="o", markersize=3, label=name)
            axis.fill_between(alphas, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.axvline(chosen, color=INK, linestyle=":", linewidth=1)
        axis.set_xlabel("alpha (sigmas)", fontsize=9)
        axis.set_ylabel(label, fontsize=9)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10, color=INK)
    save(figure, path)
