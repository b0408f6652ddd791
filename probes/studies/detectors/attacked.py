"""The attack table: how many harmful messages each method still flags, family by family (`probes.attacks`).

Contract: `attack_table` runs all probes over the same messages in the same wordings, one family at a time, each kept
when it is done. Probes score at their own thresholds, by the path of the worker. `summary` says per probe the recall as
the messages are, the mean over families, over those that hold out, and the worst family of suffixes. Rates have exact
intervals over messages; the mean over families has none, since all families are of the same messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from probes.attacks.base import rng_of
from probes.attacks.report import FamilyFigures
from probes.attacks.suite import FEWEST_ROWS, SuitePlan, run_suites
from probes.card import Probe
from probes.model.load import ChatModel
from probes.progress import Progress
from probes.reading import Conversation
from probes.result_cache import ResultCache
from probes.studies.detectors.plan import DetectorPlan

PLAIN = "plain"


def attack_table(
    chat: ChatModel,
    probes: dict[str, Probe],
    harmful: Sequence[Conversation],
    benign: Sequence[Conversation],
    pool: Sequence[str],
    plan: DetectorPlan,
    cache: ResultCache,
    progress: Progress,
) -> list[dict[str, Any]]:
    """A row a family, the messages as they are first: `recall` and `fpr` by method, with intervals.

    At most `plan.attacked` harmful messages and half as many benign ones.
    """
    rows: list[dict[str, Any]] = []
    quiet = rng_of(plan.seed, "benign").sample(list(benign), min(len(benign), max(FEWEST_ROWS, plan.attacked // 2)))
    for number, family in enumerate(plan.families, 1):
        name = f"attacks {family.name}"
        stored: list[dict[str, Any]] | None = cache.get(name)
        if stored is None:
            progress(f"attack family {number} of {len(plan.families)}: {family.name}")
            suite = SuitePlan((family,), seed=plan.seed, max_rows=plan.attacked, max_tokens=plan.max_tokens)
            reports = run_suites(chat, list(probes.values()), harmful, quiet, pool=pool, plan=suite)
            by_method = dict(zip(probes, reports, strict=True))
            plain = {method: report.plain_figures for method, report in by_method.items()}
            pushed = {method: report.families[0] for method, report in by_method.items()}
            stored = [_row(PLAIN, plain), _row(family.name, pushed)]
            cache.put(name, stored)
        rows += stored if not rows else stored[1:]
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each method, over the families: recall and false positives, and the worst suffix."""
    pushed = [row for row in rows if row["family"] != PLAIN]
    if not pushed:
        return {}
    held_out = [row for row in pushed if row["holds_out"]]
    suffixes = [row for row in pushed if row["family"].startswith("suffix")]
    found: dict[str, dict[str, Any]] = {}
    for method in pushed[0]["recall"]:
        worst = min(suffixes, key=lambda row: row["recall"][method]["value"], default=None)
        found[method] = {
            "plain": rows[0]["recall"][method],
            "families": len(pushed),
            "mean": _mean(pushed, "recall", method),
            "held_out": _mean(held_out, "recall", method) if held_out else None,
            "fpr": _mean(pushed, "fpr", method),
            "worst_suffix": None if worst is None else {"family": worst["family"], **worst["recall"][method]},
        }
    return found


def _row(family: str, figures: dict[str, FamilyFigures]) -> dict[str, Any]:
    first = next(iter(figures.values()))
    return {
        "family": family,
        "holds_out": first.holds_out,
        "recall": {method: asdict(each.tpr) for method, each in figures.items()},
        "fpr": {method: asdict(each.fpr) for method, each in figures.items()},
    }


def _mean(rows: Sequence[dict[str, Any]], of: str, method: str) -> float:
    return sum(float(row[of][method]["value"]) for row in rows) / len(rows)
