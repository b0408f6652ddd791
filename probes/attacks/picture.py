"""Pictures of attacks: what is flagged by family, the worst at the top; what a search leaves flagged, by its budget.

Both show intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.attacks.adaptive import AdaptiveReport
from probes.attacks.report import AttackReport
from probes.evaluation import Interval
from probes.plots import BAD_COLOUR, GOOD_COLOUR, INK, new_figure, save

_COLOURS = (BAD_COLOUR, GOOD_COLOUR, INK, "#c58b2a")


def plot_attacks(report: AttackReport, path: Path) -> None:
    """TPR on harmful messages and FPR on benign ones by family; what holds out has a hollow mark."""
    families = list(reversed(report.families))  # the axis counts from the bottom
    figure, axis = new_figure(8.5, 1.6 + 0.24 * len(families), 1)
    held_out = [family.holds_out for family in families]
    _points(axis, [f.tpr for f in families], held_out, BAD_COLOUR, "o", 0.14, f"harmful (n={report.harmful})")
    _points(axis, [f.fpr for f in families], held_out, GOOD_COLOUR, "s", -0.14, f"benign (n={report.benign})")
    plain = report.plain_figures
    for rate, colour in ((plain.tpr, BAD_COLOUR), (plain.fpr, GOOD_COLOUR)):
        axis.axvline(rate.value, color=colour, linestyle="--", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(families)), [f.family for f in families], fontsize=8, color=INK)
    axis.set_ylim(-0.7, len(families) - 0.3)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(
        "flagged at the card's threshold; dashed: as they are; hollow: nothing was chosen by it", fontsize=8
    )
    axis.grid(axis="y", color=INK, alpha=0.1, linewidth=0.6)
    axis.legend(fontsize=8, frameon=False, loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    figure.suptitle(f"{report.probe} v{report.version} under attack, {report.model}", fontsize=10, color=INK)
    save(figure, path)


def plot_adaptive(reports: Sequence[AdaptiveReport], path: Path) -> None:
    """The share of harmful messages still flagged after so many queries, a line for each search."""
    figure, axis = new_figure(6.5, 3.6, 1)
    for report, colour in zip(reports, _COLOURS * len(reports), strict=False):
        budgets = [budget for budget, _ in report.curve]
        shares = [share for _, share in report.curve]
        name = f"{report.probe} v{report.version}, {report.method} (n={report.messages})"
        axis.plot(budgets, [s.value for s in shares], "o-", color=colour, markersize=3.5, linewidth=1.2, label=name)
        axis.fill_between(budgets, [s.low for s in shares], [s.high for s in shares], color=colour, alpha=0.12)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("queries of the attacker, a message", fontsize=9)
    axis.set_ylabel("still flagged", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="lower center", ncols=1, bbox_to_anchor=(0.5, 1.0))
    figure.suptitle("An attacker who sees the score changes what stands behind the message", fontsize=10, color=INK)
    save(figure, path)


def _points(
    axis: Any, rates: Sequence[Interval], hollow: Sequence[bool], colour: str, marker: str, shift: float, name: str
) -> None:
    for i, (rate, empty) in enumerate(zip(rates, hollow, strict=True)):
        axis.plot([rate.low, rate.high], [i + shift] * 2, color=colour, linewidth=1.1, alpha=0.6, zorder=2)
        fill = "white" if empty else colour
        axis.plot(rate.value, i + shift, marker, color=colour, markerfacecolor=fill, markersize=4.5, zorder=3)
    axis.plot([], [], marker, color=colour, markersize=4.5, label=name)
