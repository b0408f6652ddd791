"""Pictures of a probe and of a stream: score distributions with the ROC, and scores over time with their alerts.

Contract: each `plot_*` writes one PNG; scores are in class gaps. Pictures of studies are drawn with the same figure,
colours and `save` (`probes.studies.plots`). matplotlib is imported when a figure is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from probes.evaluation import Evaluation

GOOD_COLOUR, BAD_COLOUR, INK = "#2f7f79", "#d1495b", "#3b4252"


def new_figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Any, Any]:
    """A figure (inches) without a window, and its axes: one, or an array of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for axis in np.atleast_1d(axes).ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=8)
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
    figure, (left, right) = new_figure(9, 3.6, 2)
    bins = list(np.linspace(scores.min(), scores.max(), 31))
    for truth, colour, name in ((False, GOOD_COLOUR, "aligned"), (True, BAD_COLOUR, "misaligned")):
        chosen = scores[labels == truth]
        left.hist(chosen, bins=bins, density=True, alpha=0.6, color=colour, label=f"{name} (n={len(chosen)})")
    left.axvline(threshold, color=INK, linestyle="--", linewidth=1, label="threshold")
    left.set_xlabel("score (class gaps)", fontsize=9)
    left.set_ylabel("density", fontsize=9)
    left.legend(fontsize=8, frameon=False)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    floor = 0.5 / max(1, int((~labels).sum()))
    right.step(np.maximum(fpr, floor), tpr, where="post", color=BAD_COLOUR)
    right.plot(grid := np.geomspace(floor, 1, 50), grid, color=INK, linewidth=0.8, linestyle=":")
    right.set_xscale("log")
    right.set_xlim(floor, 1)
    right.set_ylim(0, 1.02)
    right.set_xlabel("false-positive rate (log)", fontsize=9)
    right.set_ylabel("true-positive rate", fontsize=9)
    right.set_title(f"AUROC {evaluation.auroc}", fontsize=9, color=INK)
    figure.suptitle(title, fontsize=10, color=INK)
    save(figure, path)


def plot_timeline(
    scores: Sequence[float],
    wrong: Sequence[bool],
    threshold: float,
    alerts: Sequence[tuple[int, str]],
    title: str,
    path: Path,
) -> None:
    """Scores in the order of the stream; `alerts` are (message number, label) of alerts as they opened."""
    figure, axis = new_figure(9, 3.8, 1)
    x = np.arange(len(scores))
    values, bad = np.asarray(scores), np.asarray(wrong, dtype=bool)
    axis.scatter(x[~bad], values[~bad], s=14, color=GOOD_COLOUR, label="answered in words", zorder=3)
    axis.scatter(x[bad], values[bad], s=18, color=BAD_COLOUR, marker="D", label="answered with code", zorder=3)
    axis.axhline(threshold, color=INK, linestyle="--", linewidth=1, label="threshold")
    span = float(values.max() - values.min()) or 1.0
    top = float(values.max())
    for i, (at, label) in enumerate(alerts):
        axis.axvline(at, color=BAD_COLOUR, linewidth=0.8, alpha=0.5, zorder=1)
        axis.annotate(
            label, (at, top + span * (0.06 + 0.075 * (i % 4))), fontsize=7, color=BAD_COLOUR, annotation_clip=False
        )
    axis.set_ylim(float(values.min()) - 0.05 * span, top + span * 0.36)
    axis.set_xlabel("message", fontsize=9)
    axis.set_ylabel("score (class gaps)", fontsize=9)
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    axis.legend(fontsize=8, frameon=False, loc="lower left", ncols=3, bbox_to_anchor=(0, -0.32))
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write the PNG; its folder is made when it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": "awry"})
