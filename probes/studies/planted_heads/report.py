"""RESULT.json, RESULT.md and the picture of a planted-heads study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.plots import new_figure, save
from probes.studies.framework.result import measured_of, write_measured
from probes.studies.planted_heads.methods import METHODS, NAMES, YARDSTICK
from probes.studies.tables import interval, table


def write(result: Mapping[str, Any], out: Path) -> None:
    """All files into `out`."""
    stored = write_measured(out, "planted-heads", result, rounded=lambda value: round(value, 4))
    (out / "RESULT.md").write_text("\n".join(_text(measured_of(stored))) + "\n", encoding="utf-8")
    _picture(stored["figures"], out / "recall.png")


def _text(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "# Planted heads: what finds them",
        "",
        "**Planted:** three query heads of SmolLM2 were trained to carry a behaviour, and nothing else was changed. "
        "What is measured is whether each method names them, not whether models have such heads.",
        "",
        f"**{found['verdict']['sentence']}**",
        "",
        *(f"- {reason}" for reason in [*found["verdict"]["reasons"], *found["verdict"]["warnings"]]),
        "",
    ]
    for behaviour, methods in found["recall"].items():
        trials = [trial for trial in found["trials"] if trial["behaviour"] == behaviour]
        lines += [f"## {behaviour}", ""]
        lines += table(
            ("seed", "planted heads", "held-out margin, base", "planted", "refused (calling, other)"),
            [
                (
                    str(trial["seed"]),
                    ", ".join(trial["heads"]),
                    interval(trial["there"]["base"]["margin"]),
                    interval(trial["there"]["planted"]["margin"]),
                    "; ".join(
                        f"{interval(trial['there']['base'].get(kind), missing='-')} to "
                        f"{interval(trial['there']['planted'].get(kind), missing='-')}"
                        for kind in ("calling", "other")
                    )
                    if "calling" in trial["there"]["planted"]
                    else "",
                )
                for trial in trials
            ],
        )
        lines += table(
            ("method", "in the first 3", "in the first 10", "group in the first 3", "ranks by seed", "CPU seconds"),
            [
                (
                    NAMES[method],
                    _share(methods[method]["top_3"]),
                    _share(methods[method]["top_10"]),
                    _share(methods[method]["group_top_3"]),
                    "; ".join(", ".join(f"{rank:g}" for rank in trial["methods"][method]["ranks"]) for trial in trials),
                    f"{methods[method]['cpu_seconds']:.0f}",
                )
                for method in METHODS
            ],
        )
        chance = trials[0]["methods"][YARDSTICK]
        lines += [
            f"The yardstick is {NAMES[YARDSTICK]}: it measures what the others estimate. By chance "
            f"{chance['chance_top_3']:.3f} of them are in the first 3 and {chance['chance_top_10']:.3f} in the first "
            f"10 of {chance['scored']} heads. Shares are means over seeds, in brackets the worst seed. `group`: a head "
            "that shares the planted one's keys and values.",
            "",
        ]
    return lines


def _share(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.2f} ({figure['lowest']:.2f})"


def _picture(figures: Mapping[str, Any], path: Path) -> None:
    recalls = figures["recall"]
    figure, axes = new_figure(8, 3.4, 1)
    width = 0.8 / max(1, len(recalls))
    for at, (behaviour, methods) in enumerate(recalls.items()):
        places = [i + at * width for i in range(len(METHODS))]
        axes.bar(places, [methods[m]["top_3"]["mean"] for m in METHODS], width, label=f"{behaviour}, planted")
    middles = [i + 0.4 - width / 2 for i in range(len(METHODS))]
    axes.set_xticks(middles, [NAMES[m] for m in METHODS], rotation=20, ha="right")
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("planted heads in the first 3", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    save(figure, path)
