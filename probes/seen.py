"""Which rows a probe was made with: those that it was fitted on, chosen on and calibrated on.

Contract: a card holds the first 12 hex digits of the SHA-256 of each row's text (its turns and the response, one a
line), and no text; whoever has a text can see whether it is among them. A set of more than `MOST_ROWS` different texts
is known by its own digest alone. `seen_among` counts how many given rows are of each set, None where that cannot be
told. Figures on such rows are better than those on others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from probes.hashing import hash_texts, sha256_text

# Of one set, on a card: about 75 kB of JSON.
MOST_ROWS = 5000
_DIGITS = 12


class RowSet(BaseModel):
    """Different texts of one set; `rows` is None where there are too many, or where only their scores were at hand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    sha256: str
    rows: list[str] | None = None


class SeenRows(BaseModel):
    """The rows of a card; `select` are those that chose between candidates, `calibration` those that set the threshold.
    A set is None where it is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fit: RowSet | None = None
    select: RowSet | None = None
    calibration: RowSet | None = None


def text_of(turns: Iterable[Mapping[str, Any]], response: str | None) -> str:
    """A message as one text: every turn, and the response."""
    return "\n".join([*(str(turn["content"]) for turn in turns), response or ""]).strip()


def row_set(texts: Iterable[str]) -> RowSet:
    """What a card holds of these texts."""
    different = set(texts)
    rows = sorted({_short(text) for text in different}) if len(different) <= MOST_ROWS else None
    return RowSet(n=len(different), sha256=hash_texts(different), rows=rows)


def seen_among(seen: SeenRows | None, texts: Sequence[str]) -> dict[str, int | None]:
    """How many of the texts are rows of each set of a card."""
    sets = dict(seen) if seen is not None else dict.fromkeys(SeenRows.model_fields)
    given = [_short(text) for text in texts]
    return {name: _count(each, given, texts) for name, each in sets.items()}


def seen_warning(found: Mapping[str, int | None], n: int, probe: str) -> str | None:
    """One line for people, where some of n rows were used to make a probe."""
    said = {"fit": "fitted", "select": "chosen", "calibration": "calibrated"}
    used = [f"{count} were rows that it was {said[name]} on" for name, count in found.items() if count]
    if not used:
        return None
    return f"warning: of these {n} messages {probe} has seen some: {', '.join(used)}; figures on them are too good"


def _count(one: RowSet | None, given: Sequence[str], texts: Sequence[str]) -> int | None:
    if one is None:
        return None
    if one.rows is not None:
        known = set(one.rows)
        return sum(digest in known for digest in given)
    return len(texts) if hash_texts(set(texts)) == one.sha256 else None


def _short(text: str) -> str:
    return sha256_text(text)[:_DIGITS]
