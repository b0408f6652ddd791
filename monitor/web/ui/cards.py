"""A probe's card as labelled values. Cards of other versions may lack any field, or hold another type there: such
fields are left out. Reference texts are never shown.
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
    ("adapter_scale", "Adapter scale"),
    ("dtype", "Dtype"),
    ("attention", "Attention"),
)


@dataclass(frozen=True)
class Fact:
    """A labelled value; `warning` is shown beside it, marked."""

    label: str
    value: str
    warning: str = ""


def short(card: Mapping[str, Any]) -> list[Fact]:
    """A summary, for the list of probes."""
    identity = _part(card, "identity")
    adapter = identity.get("adapter_sha256")
    model = str(identity.get("model") or "not given")
    facts = [Fact("Model", printable(f"{model} with adapter {str(adapter)[:8]}" if adapter else model))]
    return [*facts, *_sites(card), *_threshold(card), *_auroc(card)]


def full(card: Mapping[str, Any]) -> list[Fact]:
    """Everything that the page of a probe shows."""
    identity, evaluation = _part(card, "identity"), _part(card, "evaluation")
    facts = [Fact(label, printable(str(identity[name]))) for name, label in _IDENTITY if identity.get(name) is not None]
    facts += [*_sites(card), *_threshold(card), *_auroc(card)]
    text = _part(evaluation, "text_only").get("auroc")
    facts += [Fact("Text-only baseline", f"AUROC {interval(text)}")] if text else []
    at = _part(evaluation, "at_threshold")
    if at.get("tpr") and at.get("fpr"):
        facts.append(Fact("At the threshold", f"TPR {interval(at['tpr'])}; FPR {interval(at['fpr'])}"))
    for name, null in sorted(_part(evaluation, "nulls").items()):
        if isinstance(null, Mapping) and {"auroc_mean", "auroc_most", "n"} <= null.keys():
            value = f"AUROC {null['auroc_mean']:.2f} on average, {null['auroc_most']:.2f} at most, n {null['n']}"
            facts.append(Fact(f"Null: {printable(name.replace('_', ' '))}", value))
    return [*facts, Fact("Created", printable(str(card.get("created") or "not given")))]


def quantiles(card: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(probability, score) of the calibration; empty where the card has none."""
    pairs = _part(card, "calibration").get("quantiles")
    return [(float(p), float(v)) for p, v in pairs] if isinstance(pairs, list) else []


def threshold(card: Mapping[str, Any]) -> float | None:
    """In class gaps; None where the probe is not calibrated."""
    value = _part(card, "calibration").get("threshold")
    return float(value) if isinstance(value, int | float) else None


def _part(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = card.get(name)
    return part if isinstance(part, Mapping) else {}


def _sites(card: Mapping[str, Any]) -> list[Fact]:
    directions = card.get("directions")
    sites = [str(d["site"]) for d in directions if "site" in d] if isinstance(directions, list) else []
    where = ", ".join(sites) or "not given"
    return [Fact("Sites", printable(f"{where}; {card['aggregation']}" if card.get("aggregation") else where))]


def _threshold(card: Mapping[str, Any]) -> list[Fact]:
    value, calibration = threshold(card), _part(card, "calibration")
    if value is None:
        return [Fact("Threshold", "not calibrated")]
    text = f"{value:.3f}"
    if calibration.get("target_fpr") is not None:
        text += f", for {percent(calibration['target_fpr'])} false positives"
    if calibration.get("fpr"):
        text += f"; measured {interval(calibration['fpr'])}"
    few = calibration.get("enough") is False
    return [Fact("Threshold", text, "too few messages for that target" if few else "")]


def _auroc(card: Mapping[str, Any]) -> list[Fact]:
    auroc = _part(_part(card, "evaluation"), "test").get("auroc")
    return [Fact("AUROC, held out", interval(auroc))] if auroc else []
