"""The files of a safety-heads study: RESULT.json, its Markdown tables, the map of layers by heads.

Contract: `write(result, out)` makes all of them from the result's plain data alone, so that they can be made again
from RESULT.json (`measured_of`). Rates stand with their 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from probes.capture.sites import parse_site
from probes.errors import DataError
from probes.studies.framework.result import write_measured
from probes.studies.plots import plot_head_map
from probes.studies.safety_heads.trials import REPEATED
from probes.studies.tables import Figure, interval, table

_KIND = "undifferentiated"


def write(result: Figure, out: Path) -> None:
    """DataError when the folder cannot be written to."""
    try:
        write_measured(out, "safety", result, _six_digits)
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
    model, data = result["model"]["subject"], result["data"]
    found = result["attribution"][_KIND]
    tail = found["tail"]
    refused = result["refusals_attributed_on"]
    lines = ["# Safety heads", ""]
    lines += [f"- {name}: {verdict['sentence']}" for name, verdict in result["verdicts"].items()]
    lines += ["", "By the paper's measure, refusals alone:", ""]
    lines += [f"- {name}: {verdict['sentence']}" for name, verdict in result["verdicts_by_refusals"].items()]
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
        "`not refused` is the paper's measure, `complied` ours: neither refused nor broken (NLL under the base in a "
        f"neutral conversation, length, and at most {REPEATED:g} of the runs of four words repeated). `times`: so many "
        "times as many not refused, and complied, as without an ablation. Controls of a set: the lowest to the highest "
        "rate of all draws; they answer harmful requests alone.",
        "",
    ]
    header = ("ablated", "heads", "refused", "not refused", "complied", "coherent", "times", "harmless refused")
    lines += table((*header, "harmless coherent"), _trial_rows(result))
    lines += [*_limits(result), *_questions(result), *_per_query(result["per_query"])]
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


_RATES = ("refused", "not_refused", "complied", "coherent")


def _trial_rows(result: Figure) -> list[list[str]]:
    rows = [_trial_row("nothing", result["before"])]
    for trials in result["trials"].values():
        rows += _grouped(trials, _trial_row)
    return rows


def _grouped(trials: Figure, row: Callable[[str, Figure], list[str]]) -> list[list[str]]:
    """A row a trial, and one for all draws of one control."""
    grouped: dict[str, list[tuple[str, Figure]]] = {}
    for name, trial in trials.items():
        grouped.setdefault(trial["role"], []).append((name, trial))
    rows = []
    for role, members in grouped.items():
        if len(members) == 1:
            rows.append(row(*members[0]))
            continue
        name = members[0][0].rsplit(" ", 1)[0]
        rows.append([f"{name} 1..{len(members)}", _heads(members[0][1]) if "shift" in role else "drawn"])
        rows[-1] += [_range(t["harmful"][key]["value"] for _, t in members) for key in _RATES]
    width = max(map(len, rows), default=0)
    return [r + [""] * (width - len(r)) for r in rows]


def _trial_row(name: str, trial: Figure) -> list[str]:
    rates = [interval(trial["harmful"][key]) for key in _RATES]
    harmless = trial.get("harmless")
    spared = [interval(harmless[key]) for key in ("refused", "coherent")] if harmless else ["", ""]
    return [name, _heads(trial), *rates, _times(trial["harmful"]), *spared]


def _times(harmful: Figure) -> str:
    times = harmful.get("times")
    if times is None:
        return ""
    return ", ".join("none before" if t is None else f"{t:.2g}x" for t in (times["not_refused"], times["complied"]))


def _limits(result: Figure) -> list[str]:
    """How much `complied` hangs on the limit of repetition."""
    sets = {name: trials[name]["harmful"]["complied_at"] for name, trials in result["trials"].items()}
    before = result["before"]["harmful"]["complied_at"]
    rows = [[name, *(f"{at[x]:.2f}" for x in before)] for name, at in {"nothing": before, **sets}.items()]
    return ["`complied` with other limits of repetition:", "", *table(("ablated", *before), rows)]


def _questions(result: Figure) -> list[str]:
    """What the ablations cost on ordinary questions."""
    if "questions" not in result["before"]:
        return []
    tried = {name: trial for trials in result["trials"].values() for name, trial in trials.items()}
    rows = [
        [name, *(interval(t["questions"][key]) for key in ("right", "lost", "nats", "nats_lost"))]
        for name, t in {"nothing": result["before"], **tried}.items()
        if "questions" in t
    ]
    n = result["before"]["questions"]["right"]["n"]
    header = ("ablated", "right", "lost", "nats a token of right answers", "nats lost")
    words = f"{n} ordinary questions, the likelier of two answers:"
    return ["## Utility", "", words, "", *table(header, rows)]


def _per_query(found: Figure | None) -> list[str]:
    """The paper's other level."""
    if found is None:
        return []
    header = ("each request's own head", "heads", "refused", "not refused", "complied", "coherent", "times")

    def row(name: str, trial: Figure) -> list[str]:
        return [name, "its own", *(interval(trial["harmful"][key]) for key in _RATES), _times(trial["harmful"])]

    rows = [row("nothing", found["before"]), *_grouped(found["trials"], row)]
    rows = [r + [""] * (len(header) - len(r)) for r in rows]
    chosen = ", ".join(f"{head} {n}" for head, n in list(found["heads"].items())[:5])
    return [
        "## Each request's own head",
        "",
        f"The first by Ships of each of {found['requests']} held-out harmful requests, ablated for that request alone "
        f"(chosen most: {chosen}). By `complied`: {found['verdict']['sentence']}. By `not refused`: "
        f"{found['verdict_by_refusals']['sentence']}.",
        "",
        *table(header, rows),
    ]


def _heads(trial: Figure) -> str:
    return " ".join(trial["heads"]) or "none" if "heads" in trial else "its own"


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
