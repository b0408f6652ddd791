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


_NULL = ("auroc_mean", "auroc_most", "n")


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
        if isinstance(null, Mapping) and all(isinstance(null.get(key), int | float) for key in _NULL):
            value = f"AUROC {null['auroc_mean']:.2f} on average, {null['auroc_most']:.2f} at most, n {null['n']}"
            facts.append(Fact(f"Null: {printable(name.replace('_', ' '))}", value))
    return [*facts, Fact("Created", printable(str(card.get("created") or "not given")))]


@dataclass(frozen=True)
class Attacks:
    """What the attack suite measured: a line on how, rows of figures by family, and what a search leaves flagged."""

    how: str
    families: tuple[tuple[str, str, str, str, str], ...]
    searches: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def attacks(card: Mapping[str, Any]) -> Attacks | None:
    """The card's attack figures, the worst family first; None where it has none."""
    found = _part(card, "attacks")
    plain = [_part(found, "plain")] if found.get("plain") else []
    families = [row for each in [*plain, *_parts(found.get("families"))] if (row := _family(each)) is not None]
    searches = []
    for method, search in sorted(_part(found, "adaptive").items()):
        curve = _parts(search.get("curve")) if isinstance(search, Mapping) else []
        points = tuple((printable(str(p.get("queries"))), interval(p.get("flagged"))) for p in curve)
        if points:
            searches.append((printable(method), points))
    if not families and not searches:
        return None
    settings = ("harmful", "benign", "seed", "max_tokens", "max_windows", "made")
    how = ", ".join(f"{name.replace('_', ' ')} {found[name]}" for name in settings if found.get(name) is not None)
    return Attacks(printable(how), tuple(families), tuple(searches))


def _family(figures: Mapping[str, Any]) -> tuple[str, str, str, str, str] | None:
    name = figures.get("family")
    if not isinstance(name, str):
        return None
    chooses = "" if name == "plain" else "no" if figures.get("holds_out") else "yes"
    unreadable = _part(figures, "unreadable").get("value")
    share = percent(unreadable) if isinstance(unreadable, int | float) else ""
    return printable(name), chooses, interval(figures.get("tpr")), interval(figures.get("fpr")), share


_RENDERED = {
    "template": "by the model's own template",
    "adapted": "adapted, since the model's template refuses it as it was sent",
}
_PARTIAL = {
    "length": "longer than max_tokens",
    "media": "parts without text",
    "running": "the answer was still running",
}


def reading(message: Mapping[str, Any]) -> list[Fact]:
    """What was read of a message, by its row: format, rendering, what was dropped, what was not read."""
    facts = []
    if message["format"]:
        facts.append(Fact("Format", printable(message["format"])))
    if message["rendered"]:
        facts.append(Fact("Rendered", _RENDERED.get(message["rendered"], message["rendered"])))
    notes = message["notes"]
    if notes:
        listed = notes if isinstance(notes, list) else [notes]
        facts.append(Fact("Notes", printable("; ".join(map(str, listed)))))
    unread = message["unread"]
    if unread:
        counted = unread if isinstance(unread, Mapping) else {str(unread): ""}
        kinds = ", ".join(f"{n} {kind}".strip() for kind, n in sorted(counted.items()))
        facts.append(Fact("Parts without text", printable(kinds)))
    if message["special_tokens"]:
        facts.append(Fact("Control tokens in the content", str(message["special_tokens"]), "written by the sender"))
    if message["partial"]:
        reasons = ", ".join(_PARTIAL.get(reason, printable(reason)) for reason in message["partial"].split(","))
        facts.append(Fact("Read", f"not whole: {reasons}", "partial"))
    if message.get("unreadable"):
        facts.append(Fact("Unreadable", f"{percent(message['unreadable'])} of the text"))
    if message.get("second_tokens"):
        facts.append(Fact("Second readings", f"{message['second_tokens']} tokens"))
    if message["windows"]:
        facts.append(Fact("Windows", str(message["windows"])))
    if message["trace_id"]:
        facts.append(Fact("Trace", printable(message["trace_id"])))
    return facts


def quantiles(card: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(probability, score) of the calibration; empty where the card has none."""
    pairs = _part(card, "calibration").get("quantiles")
    if not isinstance(pairs, list):
        return []
    return [(float(pair[0]), float(pair[1])) for pair in pairs if _is_pair(pair)]


def threshold(card: Mapping[str, Any]) -> float | None:
    """In class gaps; None where the probe is not calibrated."""
    value = _part(card, "calibration").get("threshold")
    return float(value) if isinstance(value, int | float) else None


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(value, int | float) for value in pair)


def _part(card: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = card.get(name)
    return part if isinstance(part, Mapping) else {}


def _parts(listed: Any) -> list[Mapping[str, Any]]:
    return [part for part in listed if isinstance(part, Mapping)] if isinstance(listed, list) else []


def _sites(card: Mapping[str, Any]) -> list[Fact]:
    directions = card.get("directions")
    listed = directions if isinstance(directions, list) else []
    sites = [str(d["site"]) for d in listed if isinstance(d, Mapping) and "site" in d]
    where = ", ".join(sites) or "not given"
    return [Fact("Sites", printable(f"{where}; {card['aggregation']}" if card.get("aggregation") else where))]


def _threshold(card: Mapping[str, Any]) -> list[Fact]:
    value, calibration = threshold(card), _part(card, "calibration")
    if value is None:
        return [Fact("Threshold", "not calibrated")]
    text = f"{value:.3f}"
    if isinstance(calibration.get("target_fpr"), int | float):
        text += f", for {percent(calibration['target_fpr'])} false positives"
    if calibration.get("fpr"):
        text += f"; measured {interval(calibration['fpr'])}"
    few = calibration.get("enough") is False
    return [Fact("Threshold", text, "too few messages for that target" if few else "")]


def _auroc(card: Mapping[str, Any]) -> list[Fact]:
    auroc = _part(_part(card, "evaluation"), "test").get("auroc")
    return [Fact("AUROC, held out", interval(auroc))] if auroc else []
