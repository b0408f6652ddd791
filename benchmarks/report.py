"""The benchmark's table and JSON: rows with their aims, the traffic, the machine and the command.

Contract: `markdown(report)` is what is printed and `report` itself is the JSON, so that both hold the same figures.
A row without a figure says why in its note. Aims are judged on full runs only: `--quick` times nothing that counts.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Ratio

_LIBRARIES = ("awry", "torch", "transformers", "nnsight", "transformer-lens")


@dataclass(frozen=True)
class Row:
    """One line: `ratio` is to the bare decoder (for generation, to plain generation)."""

    key: str
    name: str
    tokens_per_s: float | None = None
    ratio: Ratio | None = None
    aim: str = ""
    met: bool | None = None
    largest_difference: float | None = None
    agrees: bool | None = None
    awry_ratio: Ratio | None = None
    note: str = ""


def report(rows: Sequence[Row], *, traffic: dict[str, Any], command: str, rounds: int, quick: bool) -> dict[str, Any]:
    """Everything that a reader needs to judge the figures."""
    return {
        "rows": [asdict(row) for row in rows],
        "units": "tokens_per_s: real tokens a second, median of the rounds; ratio: to the bare decoder (f: to plain "
        "generation), round by round",
        "traffic": traffic,
        "machine": machine(),
        "command": command,
        "rounds": rounds,
        "quick": quick,
    }


def machine() -> dict[str, Any]:
    """CPU, threads, load and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average_1_5_15_min": [round(x, 2) for x in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table and four lines below it."""
    lines = ["| | name | tokens/s | ratio to bare | aim | note |", "|---|---|---:|---:|---|---|"]
    lines += [_line(row) for row in report["rows"]]
    traffic, machine = report["traffic"], report["machine"]
    libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items() if number)
    lines += [
        "",
        f"Traffic: {traffic['messages']} messages, {traffic['tokens']} tokens (shortest {traffic['shortest']}, median "
        f"{traffic['median']}, longest {traffic['longest']}, template included); real tokens are "
        f"{traffic['real_share_awry']:.0%} of awry's batches and {traffic['real_share_arrival']:.0%} of padded "
        f"batches of {traffic['arrival_batch']} in arrival order. Generation: {traffic['generation_prompts']} prompts "
        f"x {traffic['generation_tokens']} tokens.",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} threads, load "
        f"{machine['load_average_1_5_15_min'][0]} at the end; Python {machine['python']}, {libraries}.",
        f"Command: {report['command']} (rounds: {report['rounds']}; medians, lowest to highest in brackets).",
    ]
    if report["quick"]:
        lines.append("--quick is a smoke test: its timings mean nothing and no aim is judged.")
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    speed = "" if row["tokens_per_s"] is None else f"{row['tokens_per_s']:.0f}"
    verdict = {True: ": met", False: ": missed", None: ""}[row["met"]]
    notes = []
    if row["agrees"] is False:
        notes.append("MISMATCH")
    if row["awry_ratio"] is not None:
        notes.append(f"awry (b) is {_ratio(row['awry_ratio'])} times as fast")
    if row["largest_difference"] is not None:
        notes.append(f"differs by {row['largest_difference']:.1e} at most")
    notes += [row["note"]] if row["note"] else []
    cells = (row["key"], row["name"], speed, _ratio(row["ratio"]), row["aim"] + verdict, "; ".join(notes))
    return "| " + " | ".join(cells) + " |"


def _ratio(ratio: dict[str, float] | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio['median']:.3f} ({ratio['low']:.3f}..{ratio['high']:.3f})"
