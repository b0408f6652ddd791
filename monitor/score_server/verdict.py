"""What a client is told of a message: status, decision, and each probe's score.

Contract: pure functions; no text of a message gets into a verdict. Scores and thresholds are in class gaps. Probes in
shadow have a score and decide nothing. The decision of several messages is the gravest: `flag`, then `unscored`, then
`partial`, then `pass`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from monitor.service.batch_rows import ProbeScore, ProcessedMessage

Decision = Literal["flag", "unscored", "partial", "pass"]
_GRAVEST_FIRST: tuple[Decision, ...] = ("flag", "unscored", "partial", "pass")


def verdict_of(processed: ProcessedMessage, shadow: Collection[str]) -> dict[str, Any]:
    """Optional fields are there where they say something."""
    outcome = processed.outcome
    value: dict[str, Any] = {
        "id": processed.message_id,
        "status": processed.status,
        "decision": _decision(processed, shadow),
        "scores": {each.probe.name: _score(each, shadow) for each in processed.scores},
    }
    optional = {
        "reason": processed.reason,
        "partial": list(processed.partial),
        "notes": list(dict.fromkeys((*processed.parsed.notes, *(outcome.notes if outcome else ())))),
        "rendered": outcome.rendered if outcome else None,
        "unreadable": round(outcome.unreadable, 4) if outcome and outcome.unreadable else None,
    }
    return value | {name: found for name, found in optional.items() if found}


def gravest(verdicts: Sequence[dict[str, Any]]) -> Decision:
    """Of at least one."""
    found = {verdict["decision"] for verdict in verdicts}
    return next(decision for decision in _GRAVEST_FIRST if decision in found)


def _decision(processed: ProcessedMessage, shadow: Collection[str]) -> Decision:
    live = [each for each in processed.scores if each.probe.name not in shadow]
    if processed.decision == "flag" and not any(each.flagged for each in live):
        return "partial" if processed.partial else "pass"
    return processed.decision


def _score(each: ProbeScore, shadow: Collection[str]) -> dict[str, Any]:
    card = each.probe.card
    value: dict[str, Any] = {
        "score": round(each.score, 6),
        "threshold": card.threshold,
        "flagged": each.flagged,
        "version": card.version,
        "digest": each.probe.digest,
    }
    if each.probe.name in shadow:
        value["shadow"] = True
    return value | {
        name: found for name, found in (("reading", each.reading), ("turn", each.top_turn)) if found is not None
    }
