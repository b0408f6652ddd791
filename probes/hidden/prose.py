"""Where a text is words between spaces and marks of sentences, and not keys, numbers, identifiers or signs."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

# Short words in capitals are codes.
_WORD = re.compile(
    r"(?<![^\s\"'(«“„¿¡*_\[.?!])(?![A-Z]{1,4}(?![A-Za-z]))[A-Za-z]{1,20}+(?:['’][A-Za-z]{1,3})?(?![^\s.,;:!?\"')\]»”“*_’…-])"
)


def pairs_in_prose(text: str) -> NDArray[np.bool_]:
    """For each pair of neighbouring characters, whether it is within such a word or at an end of one."""
    inside = np.zeros(len(text), dtype=bool)
    for match in _WORD.finditer(text):
        inside[max(0, match.start() - 1) : match.end() + 1] = True
    return np.asarray(inside[:-1] & inside[1:])
