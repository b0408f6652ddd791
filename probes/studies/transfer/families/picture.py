"""A picture of a study between families: each direction's figure with its random directions, detection and steering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.plots import BAD_COLOUR, GOOD_COLOUR, INK, new_figure, save

Plain = dict[str, Any]


def plot_families(figures: Plain, path: Path) -> None:
    """Two panels, a row a receiver and direction: AUROC, and nats a token towards refusing.

    The grey bar reaches to the best of the random directions.
    """
    figure, axes = new_figure(12, 1.2 + 0.34 * (len(figures["own"]) + len(figures["pairs"])), 2)
    detection, steering = [], []
    for own in figures["own"]:
        there = [p for p in figures["pairs"] if (p["receiver"], p["behaviour"]) == (own["receiver"], own["behaviour"])]
        rows = [(f"{own['receiver']}: {own['behaviour']}, own", own["detection"], own["steering"]["aims"]["towards"])]
        rows += [(f"from {p['donor']}, {p['anchors']}", p["detection"], p["steering"]["towards"]) for p in there]
        detection += [(name, found["auroc"], found["controls"]) for name, found, _ in rows]
        steering += [(name, found["effect"], found["controls"]) for name, _, found in rows]
    titles = ("AUROC, test conversations", "towards refusing, nats a token")
    for axis, title, rows, chance in zip(axes, titles, (detection, steering), (0.5, 0.0), strict=True):
        for i, (name, value, controls) in enumerate(reversed(rows)):
            most = max(c["most"] for c in controls.values())
            axis.plot([chance, most], [i, i], color="0.75", linewidth=6, solid_capstyle="butt")
            colour = BAD_COLOUR if name.endswith(", own") else GOOD_COLOUR
            spread = [[max(0.0, value["value"] - value["low"])], [max(0.0, value["high"] - value["value"])]]
            axis.errorbar([value["value"]], [i], xerr=spread, fmt="o", color=colour, capsize=3)
        axis.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], fontsize=7)
        axis.axvline(chance, color=INK, linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=9, color=INK)
        axis.set_xlabel("grey: up to the best of the random directions", fontsize=7, color=INK)
    save(figure, path)
