"""A probe's card as lines of facts. Cards of other versions may lack any of it, or hold something else there: what is
not as expected is left out. Reference texts are never among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alerts.text import printable
from monitor.web.ui.formatting import interval, percent

_IDENTITY = (
    ("model", "Model"),
    ("revision", "Revision"),
    ("adapter_sha256", "Adapter"),
    ("adapter_scale", "Adapter's scale"),
    ("dtype", "Computed in"),
    ("attention", "Attention"),
)


@dataclass(frozen=True)
class Fact:
    """`warning` is said beside it, and marked."""

    label: str
    value: str
    warning: str = ""


def short(card: Mapping[str, Any]) -> list[Fact]:
    """What one wants to know of each of many probes."""
    identity = _part(card, "identity")
    adapter = identity.get("adapter_sha256")
    model = str(identity.get("model") or "not said")
    facts = [Fact("Model", printable(f"{model} with adapter {str(adapter)[:8]}" if adapter else model))]
    return [*facts, *_reads(card), *_threshold(card), *_auroc(card)]


def full(card: Mapping[str, Any]) -> list[Fact]:
    """All that the page shows of a card."""
    identity, evaluation = _part(card, "identity"), _part(card, "evaluation")
    facts = [Fact(label, printable(str(identity[name]))) for name, label in _IDENTITY if identity.get(name) is not None]
    facts += [*_reads(card), *_threshold(card), *_auroc(card)]
    text = _part(evaluation, "text_only").get("auroc")
    facts += [Fact("By text alone", f"AUROC {interval(text)}")] if text else []
    at = _part(evaluation, "at_threshold")
    if at.get("tpr") and at.get("fpr"):
        facts.append(Fact("At the threshold", f"found {interval(at['tpr'])}; false alarms {interval(at['fpr'])}"))
    for name, null in sorted(_part(evaluation, "nulls").items()):
        if isinstance(null, Mapping) and {"auroc_mean", "auroc_most", "n"} <= null.keys():
            said = f"AUROC {null['auroc_mean']:.2f} on average, {null['auroc_most']:.2f} at most, n {null['n']}"
            facts.append(Fact(f"Null: {printable(name.replace('_', ' '))}", said))
    return [*facts, Fact("Made", printable(str(card.get("created") or "not said")))]


def quantiles(card: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(probability, score) of the calibration; none where the card has none."""
    found = _part(card, "calibration").get("quantiles")
    return [(float(p), float(v)) for p, v in found] if isinstance(found, list) else []


def threshold(card: Mapping[str, Any]) -> float | None:
    """In class gaps; None where nothing was calibrated."""
    found = _part(card, "calibration").get("threshold")
    return float(found) if isinstance(found, int | float) else None


def _part(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = card.get(name)
    return found if isinstance(found, Mapping) else {}


def _reads(card: Mapping[str, Any]) -> list[Fact]:
    directions = card.get("directions")
    sites = [str(d["site"]) for d in directions if "site" in d] if isinstance(directions, list) else []
    where = ", ".join(sites) or "not said"
    return [Fact("Reads", printable(f"{where}; {card['aggregation']}" if card.get("aggregation") else where))]


def _threshold(card: Mapping[str, Any]) -> list[Fact]:
    value, calibration = threshold(card), _part(card, "calibration")
    if value is None:
        return [Fact("Threshold", "not calibrated")]
    said = f"{value:.3f}"
    if calibration.get("target_fpr") is not None:
        said += f", for {percent(calibration['target_fpr'])} false positives"
    if calibration.get("fpr"):
        said += f"; measured {interval(calibration['fpr'])}"
    few = calibration.get("enough") is False
    return [Fact("Threshold", said, "too few messages for that target" if few else "")]


def _auroc(card: Mapping[str, Any]) -> list[Fact]:
    found = _part(_part(card, "evaluation"), "test").get("auroc")
    return [Fact("AUROC, held out", interval(found))] if found else []
