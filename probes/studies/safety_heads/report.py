"""The files of a safety-heads study: RESULT.json, its Markdown tables, the map of layers by heads.

Contract: `write(result, out)` makes all of them from the result's plain data alone, so that they can be made again
from RESULT.json. Rates stand with their 95 % intervals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from probes.capture.sites import parse_site
from probes.errors import DataError
from probes.studies.plots import plot_head_map
from probes.studies.tables import Figure, interval, plain, table

_KIND = "undifferentiated"


def write(result: Figure, out: Path) -> None:
    """DataError when the folder cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "RESULT.json").write_text(json.dumps(plain(result, _six_digits), indent=1) + "\n")
        (out / "RESULT.md").write_text(markdown(result))
        attribution = result["attribution"][_KIND]
        for name, label, title in (
            ("contrast", "nats, harmful minus harmless", "contrast of Ships"),
            ("ships", "nats", "mean Ships on harmful requests"),
        ):
            values = np.array(attribution["maps"]["contrast" if name == "contrast" else "ships_harmful"])
            ringed = [(s.layer, s.head) for s in (parse_site(row["head"]) for row in attribution["top"][name])]
            plot_head_map(values, ringed, label, f"{title}; ringed: the first {len(ringed)}", out / f"heads-{name}.png")
    except OSError as error:
        raise DataError(f"study folder: cannot write to {out} ({error.strerror}); choose another out") from error


def _six_digits(value: float) -> float:
    """More than any of these figures has."""
    return float(f"{value:.6g}")


def markdown(result: Figure) -> str:
    """The result as Markdown: verdicts, trials with controls, the top heads, the group, overlaps."""
    model, data = result["model"], result["data"]
    found = result["attribution"][_KIND]
    tail = found["tail"]
    refused = result["refusals_attributed_on"]
    lines = ["# Safety heads", ""]
    lines += [f"- {name}: {words}" for name, words in result["verdicts"].items()]
    lines += [
        "",
        f"Model {model['model']} (revision {model['revision']}, adapter {result['adapter'] or 'none'}"
        + (f" x{model['adapter_scale']:g}" if result["adapter"] else "")
        + f", {model['dtype']}); harmful requests: {data['harmful']['attributed']['n']} to attribute on, "
        f"{data['harmful']['held_out']['n']} held out; harmless: {data['harmless']['attributed']['n']} and "
        f"{data['harmless']['held_out']['n']}. It refuses {refused['count']} of the {refused['n']} harmful ones "
        f"attributed on. eps {result['plan']['eps']:g}, seed {result['plan']['seed']}; {result['units']}.",
        "",
        "## Held-out requests",
        "",
        "`complied`: neither refused nor broken (NLL under the base in a neutral conversation, repetition). Controls "
        "of a set: the lowest to the highest rate of all draws.",
        "",
    ]
    header = ("ablated", "heads", "refused", "complied", "coherent", "harmless refused", "harmless coherent")
    lines += table(header, _trial_rows(result))
    lines += [
        "## Heads",
        "",
        f"The first {tail['heads']} of {int(np.prod(result['shape']))} heads hold "
        f"{_percent(tail['share_of_top_1_percent'])} of all Ships (largest {tail['largest']:.3g}, median "
        f"{tail['median']:.3g}). Two halves of the harmful requests: {_overlap(found['two_halves'])}.",
        "",
    ]
    for kind, one in result["attribution"].items():
        lines += table(
            (
                f"{kind}, by contrast",
                "contrast",
                "p, all heads",
                "Ships harmful",
                "harmless",
                "refusal opening",
                "norm",
            ),
            [_head_row(row) for row in one["top"]["contrast"]],
        )
    spaces = ", ".join(
        f"r = {s['r']}{' centred' if s['centred'] else ''}: {', '.join(s['top'][:5])}"
        for s in result["dataset"]["subspaces"]
    )
    steps = ", ".join(f"{row['head']} ({row['angle']:.2f} degrees)" for row in result["dataset"]["sahara"])
    lines += [f"Sahara ({result['dataset']['prompts']} requests): {steps}.", "", f"Dataset-level Ships, {spaces}.", ""]
    for name, rankings in result["overlap"].items():
        lines += [f"- {name}, {ranking}: {_overlap(one)}" for ranking, one in rankings.items()]
    for other in result["overlap_with"]:
        who = other["with"]["adapter"] or "no adapter"
        lines += [f"- with the result of {who}, {name}: {_overlap(one)}" for name, one in other["lists"].items()]
    lines += ["", "## Probe", "", _probe(result["probe"])]
    return "\n".join([*lines, "", f"Command: `{result['command']}`", ""])


def _probe(probe: Figure) -> str:
    if "not_made" in probe:
        return f"No probe of harmful requests: {probe['not_made']}"
    operating = probe["at_threshold"]
    drawn = _range(probe["random_heads"]) if probe["random_heads"] else "none drawn"
    return (
        f"`{probe['file']}` reads harmful requests at {probe['site']}, chosen among the {len(probe['heads'])} heads "
        f"named above: AUROC {interval(probe['auroc'])} on held-out requests; as many random heads, chosen "
        f"alike: {drawn}; the text alone: {interval(probe['text_only'])}. At its threshold TPR "
        f"{interval(operating['tpr'])}, FPR {interval(operating['fpr'])}. No steering "
        "recipe: taking these heads away takes refusals away."
    )


def _trial_rows(result: Figure) -> list[list[str]]:
    rows = [_trial_row("nothing", result["before"])]
    for trials in result["trials"].values():
        grouped: dict[str, list[tuple[str, Figure]]] = {}
        for name, trial in trials.items():
            grouped.setdefault(trial["role"], []).append((name, trial))
        for role, members in grouped.items():
            if len(members) == 1:
                rows.append(_trial_row(*members[0]))
            else:
                name = members[0][0].rsplit(" ", 1)[0]
                rows.append([f"{name} 1..{len(members)}", _heads(members[0][1]) if "shift" in role else "drawn"])
                rows[-1] += [_range(t["harmful"][key]["value"] for _, t in members) for key in _RATES]
                rows[-1] += [_range(t["harmless"][key]["value"] for _, t in members) for key in _RATES[::2]]
    return rows


_RATES = ("refused", "complied", "coherent")


def _trial_row(name: str, trial: Figure) -> list[str]:
    rates = [interval(trial["harmful"][key]) for key in _RATES]
    return [name, _heads(trial), *rates, *(interval(trial["harmless"][key]) for key in _RATES[::2])]


def _heads(trial: Figure) -> str:
    return " ".join(trial["heads"]) or "none"


def _head_row(row: Figure) -> list[str]:
    opening = row["refusal_opening"]
    return [
        row["head"],
        f"{row['contrast']:.3g} [{row['contrast_low']:.3g}, {row['contrast_high']:.3g}]",
        f"{row['p_all_heads']:.2g}",
        f"{row['ships_harmful']:.3g}",
        f"{row['ships_harmless']:.3g}",
        f"{opening:+.2f}" if opening is not None and np.isfinite(opening) else "",
        f"{row['norm_ratio']:.2f}",
    ]


def _range(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{min(listed):.2f} to {max(listed):.2f}"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.0%}"


def _overlap(overlap: Figure) -> str:
    return (
        f"{overlap['shared']} of {overlap['sizes'][0]} and {overlap['sizes'][1]} shared, Jaccard "
        f"{overlap['jaccard']:.2f} (by chance {overlap['jaccard_by_chance']:.2f}, p {overlap['p']:.2g})"
    )
