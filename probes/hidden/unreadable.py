"""How much of a text a tokenizer cannot make sense of.

Contract: `share(found, tokens)` is between 0 and 1: of what a text says, the part that a model which reads it as it
stands is not told. That is text that only another reading shows (`found.plain`, `found.payloads`), characters that show
nothing, and stretches of words that fall apart into pieces of one or two letters and whose letters are like no language
in Latin letters. UNREADABLE is the share from which a message is called unreadable.

A tokenizer of few merges splits Chinese, Arabic, Hindi and emoji into bytes, and Polish into syllables, so pieces alone
say nothing: in measurements Polish falls apart as much as rot13 does. So real letters of other scripts, emoji, numbers,
and runs that are no words (keys, hashes, images, identifiers) never count; words in Latin letters do where both their
pieces and their pairs of letters are odd, for longer than chance explains.

Does not know: a cipher whose text is short (under about five words) or is written in another script than Latin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from probes.hidden.invisible import HIDES, visible, without_accents
from probes.hidden.letters import COST_OF_ANY, best_run, classes, costs
from probes.hidden.payloads import Payload
from probes.hidden.prose import pairs_in_prose

# docs/hidden.md has the false and true shares at this threshold, by kind.
UNREADABLE = 0.3

_REFERENCE = (
    "In the morning we walked along the river to the old market, where farmers from the villages around sell bread, "
    "honey and flowers. My sister wanted to see every stall twice, and we came home with more than we could carry."
)
# Of the way from one letter a token to what English has.
_FALLS_APART = 0.3
# Below this many letters a token in English a tokenizer tells nothing by its pieces.
_TELLS = 1.5
# Nats a pair from which letters are like no language, and how many nats above that a stretch must have.
_NO_LANGUAGE = 3.1
_EVIDENCE = 14.0
_BESIDE = -0.6
_MOST_STRETCHES = 4
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Looked:
    """What was found in one text: its normalised form where its words change by that, and the payloads of that form."""

    text: str
    plain: str | None
    payloads: Sequence[Payload]


class Tokens:
    """How a tokenizer cuts text, measured against what it does with English."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count

    @cached_property
    def english(self) -> float:
        """Letters a token in English prose."""
        return _letters(_REFERENCE) / max(1, self._count(_REFERENCE))

    def falls_apart(self, text: str) -> bool:
        """Whether the pieces of a text are hardly longer than a letter, for this tokenizer."""
        if self.english < _TELLS:
            return True
        return _letters(text) / max(1, self._count(text)) < 1 + _FALLS_APART * (self.english - 1)


def share(found: Looked, tokens: Tokens | None = None) -> float:
    """The share of a text that cannot be made sense of as it stands."""
    base = found.text if found.plain is None else found.plain
    rest = _without(base, found.payloads)
    unseen = _unseen(found.text)
    apart = sum(_solid(payload.text) for payload in found.payloads) + unseen
    hidden = apart + _letters_of_no_language(rest, tokens)
    if found.plain is not None:
        hidden += _new_letters(found.text, rest)
    if not hidden:
        return 0.0
    return min(1.0, hidden / (_solid(rest if found.plain is not None or not unseen else visible(rest)) + apart))


def _solid(text: str) -> int:
    """Characters that are no white space."""
    return sum(map(len, text.split()))


def _without(text: str, payloads: Sequence[Payload]) -> str:
    pieces = []
    at = 0
    for payload in payloads:
        pieces.append(text[at : payload.start])
        at = payload.stop
    return " ".join((*pieces, text[at:]))


def _unseen(text: str) -> int:
    """Characters that show nothing and that no script needs."""
    return 0 if text.isascii() or not HIDES.search(text) else len(text) - len(visible(text))


def _new_letters(text: str, plain: str) -> int:
    """Letters of the words that the text itself does not have."""
    known = {_key(word) for word in _WORD.findall(text)}
    return sum(len(word) for word in _WORD.findall(plain) if _key(word) not in known)


def _key(word: str) -> str:
    """A word whose case is an ordinary one in small letters."""
    return word.lower() if word.islower() or word.istitle() or word.isupper() else word


def _letters_of_no_language(text: str, tokens: Tokens | None) -> int:
    """Letters in stretches of words that fall apart and are like no language."""
    bare = text if text.isascii() else without_accents(text)
    found = classes(bare)
    if len(found) < 2:
        return 0
    over = costs(found, COST_OF_ANY) - np.float32(_NO_LANGUAGE)
    if best_run(over)[0] < _EVIDENCE:
        return 0
    over = np.where(pairs_in_prose(bare), over, np.float32(_BESIDE))
    letters = 0
    for _ in range(_MOST_STRETCHES):
        total, start, stop = best_run(over)
        if total < _EVIDENCE:
            break
        stretch = text[start : stop + 1]
        if tokens is None or tokens.falls_apart(stretch):
            letters += _letters(stretch)
        over[start:stop] = -_NO_LANGUAGE
    return letters


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))
