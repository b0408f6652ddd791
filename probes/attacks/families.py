"""All attack families, by name.

Contract: `FAMILIES` maps names to families; `named` picks some of them in that order, by names or by the start of
names (`suffix`, `benign-after`); `benign-PLACE-TOKENS` takes any length. `materials_of` makes what they need from a
loaded model and a pool of benign texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from probes.attacks import encodings, lengths, phrases, spelling, turns
from probes.attacks.base import Family, Materials
from probes.attacks.markers import markers_of
from probes.errors import DataError
from probes.model.load import ChatModel

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *phrases.FAMILIES,
        *lengths.FAMILIES,
        *turns.FAMILIES,
        *spelling.FAMILIES,
        *encodings.FAMILIES,
    )
}

_LENGTH = re.compile(rf"benign-({'|'.join(lengths.PLACES)})-([1-9]\d{{0,4}})")


def named(names: Iterable[str]) -> tuple[Family, ...]:
    """The families of these names or beginnings of names, each once; all where none is given."""
    wanted = [name.strip() for name in names if name.strip()]
    chosen: set[str] = set()
    others: dict[str, Family] = {}
    for name in wanted:
        found = {own for own in FAMILIES if own == name or own.startswith(f"{name}-")}
        if not found and (length := _LENGTH.fullmatch(name)):
            others[name] = lengths.family(length[1], int(length[2]))
        elif not found:
            raise DataError(f"families: {name!r} is none of {', '.join(FAMILIES)}, nor the beginning of one")
        chosen |= found
    return tuple(f for f in FAMILIES.values() if not wanted or f.name in chosen) + tuple(others.values())


def choosing() -> tuple[Family, ...]:
    """The families that may choose."""
    return tuple(family for family in FAMILIES.values() if not family.holds_out)


def materials_of(chat: ChatModel, benign: Sequence[str] = ()) -> Materials:
    """What wordings are made of for a loaded model."""
    return Materials(tuple(benign), lambda text: len(chat.text_ids(text)), markers_of(chat))
