"""Tables that the commands print: a probe's card, an evaluation, a sweep."""

from __future__ import annotations

from typing import Any

from monitor.cli.render.tables import print_line, print_table
from probes.card import Card
from probes.evaluation import Evaluation, Interval
from probes.studies.mitigation import Sweep


def interval(value: dict[str, Any] | None) -> str:
    """A stored interval as text; `too few` where there is none."""
    return "too few" if value is None else str(Interval(**value))


def print_card(card: Card) -> None:
    """A probe's held-out figures beside its nulls, and its threshold."""
    report, model = card.evaluation, card.identity
    adapter = f" + adapter {model.adapter_sha256[:8]} x{model.adapter_scale:g}" if model.adapter_sha256 else ""
    test = report["split"]["test"]
    rows = [
        ("model", f"{model.model}{adapter}"),
        ("site, aggregation", f"{', '.join(d.site for d in card.directions)}, {card.aggregation}"),
        ("test rows", f"{test['misaligned']} misaligned, {test['aligned']} aligned"),
        ("AUROC", interval(report["test"]["auroc"])),
        *(
            (f"TPR at {point['target_fpr']:.1%} FPR", interval(point["tpr"]))
            for point in report["test"]["operating_points"]
        ),
        ("text-only baseline AUROC", interval(report["text_only"]["auroc"])),
        *(_null_row(kind, null) for kind, null in report["nulls"].items()),
    ]
    print_table(("held-out figure", "value"), rows, title=f"{card.name} v{card.version}")
    print_calibration(card)


def _null_row(kind: str, null: dict[str, Any] | str) -> tuple[str, str]:
    if isinstance(null, str):
        return f"null: {kind}", null
    most = f", farthest from chance {null['auroc_most']:.2f} of {null['n']}" if null["n"] > 1 else ""
    cosine = f", cosine {null['cosine']:.2f}" if "cosine" in null else ""
    return f"null: {kind.replace('_', ' ')}, AUROC", f"{null['auroc_mean']:.2f}{most}{cosine}"


def print_calibration(card: Card) -> None:
    """The threshold and what it was set on."""
    found = card.calibration
    few = "" if found.enough else f" (too few for this target: {int(3 / found.target_fpr)} are needed)"
    print_line(
        f"threshold {found.threshold:.3f} for FPR {found.target_fpr:.1%} on {found.n} benign messages of "
        f"{found.set_name}: {found.fpr}{few}; of new ones expect {found.expected_fpr:.2%}"
    )
    held_out = card.evaluation.get("at_threshold")
    if held_out and held_out["threshold"] == found.threshold:
        print_line(f"held-out at this threshold: TPR {interval(held_out['tpr'])}, FPR {interval(held_out['fpr'])}")


def print_mitigation(card: Card) -> None:
    """The recipe of a card that has one."""
    if card.mitigation is None:
        return
    parts = ", ".join(f"x{part.strength:g} at {part.site}" for part in card.mitigation.parts)
    print_line(f"mitigation: {card.mitigation.mode} {parts}, {card.mitigation.measured.get('verdict', '')}")


def print_evaluation(result: Evaluation, at_threshold: dict[str, Any], probe: str, data: str) -> None:
    """A probe on labelled data."""
    rows = [
        ("rows", f"{result.positives} misaligned, {result.negatives} aligned"),
        ("AUROC", str(result.auroc)),
        *((f"TPR at {point.target_fpr:.1%} FPR", str(point)) for point in result.operating_points),
        (f"TPR at the threshold {at_threshold['threshold']:.3f}", interval(at_threshold["tpr"])),
        ("FPR at the threshold", interval(at_threshold["fpr"])),
    ]
    print_table(("figure", "value"), rows, title=f"{probe} on {data}")


def print_sweep(result: Sweep) -> None:
    """The test table of a sweep and its verdict."""
    columns = ("on test prompts", "behaviour", "good", "NLL", "|delta|/|h|")
    print_table(columns, [condition.row() for condition in result.test], title=f"chosen: {result.chosen}")
    if result.control_cosine is not None:
        print_line(f"cosine to the control adapter's direction: {result.control_cosine:.2f}")
    print_line(f"verdict: {result.verdict}")
