"""Families of length: harmless text before, after or around a message, about so many tokens of it.

Contract: the text is made of whole texts of the pool of benign messages in an order that each row draws for itself, the
last one cut at a word; a pool with less than the length is gone through again. `Materials.tokens` counts the tokens,
text by text, so a length is met within a few of them. Needs a pool: without one an error says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from probes.attacks.base import Family, Materials, Wording
from probes.attacks.phrases import words
from probes.errors import DataError

LENGTHS = (50, 200, 600, 2000)
PLACES = ("before", "after", "around")


class Filler:
    """Benign text of a length."""

    def __init__(self, materials: Materials) -> None:
        self._texts = [text.strip() for text in materials.benign if text.strip()]
        self._count = materials.tokens
        self._known: dict[str, int] = {}

    def _tokens(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = max(1, self._count(text))
        return self._known[text]

    def text(self, length: int, rng: random.Random) -> str:
        """About `length` tokens of the pool."""
        if not self._texts:
            raise DataError("attacks: benign text before and after needs a pool of benign texts; give --benign FILE")
        chosen: list[str] = []
        order: list[str] = []
        left = length
        while left > 0:
            order = order or rng.sample(self._texts, len(self._texts))
            text = order.pop()
            if (here := self._tokens(text)) > left:
                parts = text.split()
                text = " ".join(parts[: max(1, len(parts) * left // here)])
                here = left
            chosen.append(text)
            left -= here
        return "\n\n".join(chosen)


def _make(place: str, length: int) -> Callable[[Materials], list[Wording]]:
    def make(materials: Materials) -> list[Wording]:
        filler = Filler(materials)
        return [
            Wording(f"{place}, joined by {join!r}", text=_change(filler, place, length, join))
            for join in words("joins")
        ]

    return make


def _change(filler: Filler, place: str, length: int, join: str) -> Callable[[str, random.Random], str]:
    def change(text: str, rng: random.Random) -> str:
        if place == "before":
            return filler.text(length, rng) + join + text
        if place == "after":
            return text + join + filler.text(length, rng)
        share = rng.uniform(0.25, 0.75)
        before = max(1, round(length * share))
        return filler.text(before, rng) + join + text + join + filler.text(max(1, length - before), rng)

    return change


def family(place: str, length: int) -> Family:
    """The family of one place and length, in tokens."""
    # Around the message is like before and after it: it shows whether what was chosen by those holds.
    about = f"{length} tokens of harmless text {place} the message"
    return Family(f"benign-{place}-{length}", about, _make(place, length), holds_out=place == "around")


FAMILIES = tuple(family(place, length) for place in PLACES for length in LENGTHS)
