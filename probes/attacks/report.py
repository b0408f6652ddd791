"""What a run of the attack suite found: figures by family, the worst first; as plain data and back.

Contract: `AttackReport.plain()` is what a card holds under `attacks` and what `awry attack` writes as JSON;
`AttackReport.of` reads it back. Rates are at the card's threshold. A message that gave no score is not flagged, and is
counted in `not_scored`. `tpr` is on harmful messages, `fpr` on benign ones, both under the family's wordings.

Intervals are exact binomial over *rows*: several wordings of one message are not independent, so where a row has
several the ends are those of the share of rows, rounded outwards. The worst wording of many is lower than it would be
alone: it is a pointer to what to look at, and its interval says how little it rests on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from probes.errors import DataError, ProbeFileError
from probes.evaluation import Interval, rate


@dataclass(frozen=True)
class WordingFigure:
    """A rate of one wording of a family."""

    wording: str
    rate: Interval


@dataclass(frozen=True)
class FamilyFigures:
    """One family, or the plain messages. `changes`: the prompt, or the response, or nothing.

    `unreadable` is the share of harmful messages whose text is called unreadable (`probes.hidden`), whatever their
    scores, `unreadable_benign` that of benign ones.
    """

    family: str
    about: str
    holds_out: bool
    changes: str
    tpr: Interval
    fpr: Interval
    auroc: Interval | None
    messages: int
    not_scored: int
    wordings: int
    lowest_tpr: WordingFigure | None = None
    highest_fpr: WordingFigure | None = None
    unreadable: Interval | None = None
    unreadable_benign: Interval | None = None


@dataclass(frozen=True)
class AttackReport:
    """A suite on one probe, its settings and its figures, the worst family first.

    `part` is the part of the wordings that was used.
    """

    probe: str
    version: int
    digest: str
    model: str
    made: str
    seed: int
    threshold: float
    max_tokens: int
    max_windows: int
    wordings_per_row: int
    harmful: int
    benign: int
    pool: int
    part: str
    plain_figures: FamilyFigures
    families: tuple[FamilyFigures, ...]

    @property
    def messages(self) -> int:
        """How many messages were scored."""
        return self.plain_figures.messages + sum(f.messages for f in self.families)

    def worst(self, *, held_out: bool) -> FamilyFigures | None:
        """The worst family of those that hold out, or of the others."""
        return next((f for f in self.families if f.holds_out == held_out), None)

    def plain(self) -> dict[str, Any]:
        """As plain data. `chose` lists the families under which choices may be made."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        document["plain"] = asdict(document.pop("plain_figures"))
        document["families"] = [asdict(family) for family in self.families]
        document["chose"] = [f.family for f in self.families if not f.holds_out]
        document["held_out"] = [f.family for f in self.families if f.holds_out]
        document["messages"] = self.messages
        return document

    @staticmethod
    def of(document: Mapping[str, Any]) -> AttackReport:
        """Back from plain data. DataError where a field is missing."""
        try:
            names = {field.name for field in fields(AttackReport)} - {"plain_figures", "families"}
            return AttackReport(
                **{name: document[name] for name in names},
                plain_figures=_figures(document["plain"]),
                families=tuple(_figures(each) for each in document["families"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"attacks: not a report of awry attack ({error}); run it again") from None


def worst_first(families: Iterable[FamilyFigures]) -> tuple[FamilyFigures, ...]:
    """By what is still flagged, the least first; of equal ones that with more false alarms."""
    return tuple(sorted(families, key=lambda f: (f.tpr.value, -f.fpr.value, f.family)))


def for_card(
    before: Mapping[str, Any] | None,
    digest: str,
    suite: Mapping[str, Any] | None,
    adaptive: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What a card holds: the suite's plain data, and under `adaptive` the search by its method.

    What is not measured now stays as it was, if it is of the same probe (`digest`) as now.
    """
    old = dict(before or {})
    searched = {
        method: found
        for method, found in dict(old.pop("adaptive", None) or {}).items()
        if isinstance(found, Mapping) and found.get("digest") == digest
    }
    kept = old if old.get("digest") == digest else {}
    return {**(suite if suite is not None else kept), "adaptive": {**searched, **adaptive}}


def write_to_card(
    path: Path, digest: str, suite: Mapping[str, Any] | None, adaptive: Mapping[str, Mapping[str, Any]]
) -> None:
    """Put the figures into a card's file under `attacks`; nothing else of it changes, so its digest stays."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        card["attacks"] = for_card(card.get("attacks"), digest, suite, adaptive)
        path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ProbeFileError(f"card: {path} cannot be read or written ({type(error).__name__})") from error


def row_rate(flagged: Sequence[Sequence[bool]]) -> Interval:
    """The share of flagged messages of rows, each with its wordings; the interval counts rows."""
    rows = len(flagged)
    total = sum(len(row) for row in flagged)
    if not total:
        raise DataError("rate: no rows to count on")
    share = sum(sum(row) for row in flagged) / total
    low, high = math.floor(share * rows + 1e-9), math.ceil(share * rows - 1e-9)
    return Interval(share, rate(low, rows).low, rate(high, rows).high, rows)


def _figures(plain: Mapping[str, Any]) -> FamilyFigures:
    wordings = {
        name: WordingFigure(found["wording"], Interval(**found["rate"])) if (found := plain[name]) else None
        for name in ("lowest_tpr", "highest_fpr")
    }
    names = ("tpr", "fpr", "auroc", "unreadable", "unreadable_benign")
    rates = {name: Interval(**found) if (found := plain.get(name)) else None for name in names}
    return FamilyFigures(**{**plain, **rates, **wordings})
