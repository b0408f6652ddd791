"""Tables that the commands print: a probe's card, an evaluation, a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from probes.card import Card, load_probe, save_probe
from probes.evaluation import Evaluation, Interval
from probes.steer.recipe import with_recipe
from probes.studies.mitigation import Sweep


def _console() -> Console:
    return Console(highlight=False)


def interval(value: dict[str, Any] | None) -> str:
    """A stored interval as text; `too few` where there is none."""
    if value is None:
        return "too few"
    return str(Interval(**value))


def print_card(card: Card) -> None:
    """A probe's held-out figures beside its nulls."""
    report = card.evaluation
    table = Table("held-out figure", "value", box=None, title=f"{card.name} v{card.version}", title_justify="left")
    made = card.identity
    adapter = f" + adapter {made.adapter_sha256[:8]} x{made.adapter_scale:g}" if made.adapter_sha256 else ""
    table.add_row("model", f"{made.model}{adapter}")
    table.add_row("site, aggregation", f"{', '.join(d.site for d in card.directions)}, {card.aggregation}")
    test = report["split"]["test"]
    table.add_row("test rows", f"{test['misaligned']} misaligned, {test['aligned']} aligned")
    table.add_row("AUROC", interval(report["test"]["auroc"]))
    for point in report["test"]["operating_points"]:
        table.add_row(f"TPR at {point['target_fpr']:.1%} FPR", interval(point["tpr"]))
    table.add_row("text-only baseline AUROC", interval(report["text_only"]["auroc"]))
    for kind, null in report["nulls"].items():
        if isinstance(null, str):
            table.add_row(f"null: {kind}", null)
            continue
        most = f", farthest from chance {null['auroc_most']:.2f} of {null['n']}" if null["n"] > 1 else ""
        cosine = f", cosine {null['cosine']:.2f}" if "cosine" in null else ""
        table.add_row(f"null: {kind.replace('_', ' ')}, AUROC", f"{null['auroc_mean']:.2f}{most}{cosine}")
    _console().print(table)
    print_calibration(card)


def print_calibration(card: Card) -> None:
    """The threshold and what it was set on."""
    found = card.calibration
    few = "" if found.enough else f" (too few for this target: {int(3 / found.target_fpr)} are needed)"
    _console().print(
        f"threshold {found.threshold:.3f} for FPR {found.target_fpr:.1%} on {found.n} benign messages of "
        f"{found.set_name}: {found.fpr}{few}"
    )
    held_out = card.evaluation.get("at_threshold")
    if held_out and held_out["threshold"] == found.threshold:
        _console().print(
            f"held-out at this threshold: TPR {interval(held_out['tpr'])}, FPR {interval(held_out['fpr'])}"
        )


def print_evaluation(result: Evaluation, held: dict[str, Any], probe: str, data: str) -> None:
    """A probe on labelled data."""
    table = Table("figure", "value", box=None, title=f"{probe} on {data}", title_justify="left")
    table.add_row("rows", f"{result.positives} misaligned, {result.negatives} aligned")
    table.add_row("AUROC", str(result.auroc))
    for point in result.operating_points:
        table.add_row(f"TPR at {point.target_fpr:.1%} FPR", str(point))
    table.add_row(f"TPR at the threshold {held['threshold']:.3f}", interval(held["tpr"]))
    table.add_row("FPR at the threshold", interval(held["fpr"]))
    _console().print(table)


def print_sweep(result: Sweep) -> None:
    """The test table of a sweep and its verdict."""
    table = Table(
        "on test prompts",
        "behaviour",
        "good",
        "NLL",
        "|delta|/|h|",
        box=None,
        title_justify="left",
        title=f"chosen: {result.chosen}",
    )
    for condition in result.test:
        table.add_row(*condition.row())
    console = _console()
    console.print(table)
    if result.control_cosine is not None:
        console.print(f"cosine to the control adapter's direction: {result.control_cosine:.2f}")
    console.print(f"verdict: {result.verdict}")


def attach_recipe(path: Path, result: Sweep, scale: float) -> Path:
    """Give a probe the recipe that a sweep chose; returns the new card's path."""
    probe = load_probe(path)
    names = ("no intervention", str(result.chosen), "control adapter's direction")
    kept = [c for c in result.as_dict()["test"] if c["name"] in names]
    measured = {"adapter_scale": scale, "verdict": result.verdict, "test": kept}
    new = with_recipe(probe, [result.chosen], measured)
    new.card = new.card.model_copy(update={"version": probe.card.version + 1})
    return save_probe(new, path.parent)
