"""Cheap facts of a text, by which the search for an encoding is left out where there can be none.

Contract: `shape_of(text)` is computed once for a text, in linear time. Ordinary prose passes few of the gates that are
made of it, and no gate stops a form that `probes.hidden` says it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Shape:
    """`longest`: characters of the longest word between spaces; `single`: words of one character."""

    ascii: bool
    longest: int
    single: int
    digits: int
    capitals: int


def shape_of(text: str) -> Shape:
    """The facts of a text."""
    lengths = [*map(len, text.split())]
    codes = _codes(text)
    return Shape(
        ascii=text.isascii(),
        longest=max(lengths, default=0),
        single=lengths.count(1),
        digits=int(np.count_nonzero((codes - np.uint8(48)) < 10)),
        capitals=int(np.count_nonzero((codes - np.uint8(65)) < 26)),
    )


def _codes(text: str) -> NDArray[np.uint8]:
    data = text.encode("ascii") if text.isascii() else text.encode("ascii", "ignore")
    return np.frombuffer(data, dtype=np.uint8)
