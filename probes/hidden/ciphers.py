"""Finds text whose letters were exchanged or turned round: rot13 and other shifts, Atbash, backwards.

Contract: as `probes.hidden.encodings`. English decides: what is found reads much more like English than the run did, by
its pairs of letters, and holds common words. Ordinary English costs one look at its pairs; names, code and other
languages gain too little by any exchange.

Does not know: ciphers in other languages, exchanges of letters that are none of these, and runs of fewer than about
three words: those give no evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from probes.hidden.encodings import Span
from probes.hidden.letters import (
    ATBASH,
    BACKWARDS,
    NEUTRAL,
    SHIFTS,
    Table,
    best_run,
    classes,
    cost_a_letter,
    costs,
    gain,
)
from probes.hidden.prose import pairs_in_prose
from probes.hidden.words import common_share

# Nats by which a run is dearer than neutral, so that it is worth a look at all exchanges.
_UNLIKE_ENGLISH = 9.0
# Nats that an exchange must gain over a run.
_GAIN = 14.0
_DECODED_COST = 2.95
# Letters in any other order often gain from right to left.
_REVERSED_COST = 2.75
_FEWEST_LETTERS = 10
# Of a pair that is in no word.
_BESIDE = -0.3
_MOST_RUNS = 4

_KEPT = (*range(26),)
_SHIFTED = {
    by: str.maketrans(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "".join(chr(97 + (i + by) % 26) for i in _KEPT) + "".join(chr(65 + (i + by) % 26) for i in _KEPT),
    )
    for by in range(1, 26)
}
_MIRRORED = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA"
)
_WORD = re.compile(r"[A-Za-z]+")
_OPENING = "how what why where who when which can could is are do does give write tell explain please describe"
_OPENERS = frozenset(_OPENING.split())
_LINKING = "a an the of to and or my your our their for with from in is are"
_NEVER_LAST = frozenset(_LINKING.split())


def exchanges(text: str) -> Iterator[Span]:
    """Runs of letters that were exchanged by a shift or Atbash, or that stand from right to left."""
    found = classes(text)
    over = costs(found) - np.float32(NEUTRAL)
    if len(found) < _FEWEST_LETTERS or best_run(over)[0] < _UNLIKE_ENGLISH:
        return
    # Keys, numbers and code are unlike English too, and cost every exchange.
    prose = pairs_in_prose(text)
    if best_run(np.where(prose, over, np.float32(_BESIDE)))[0] < _UNLIKE_ENGLISH:
        return
    tables: list[tuple[str, int, Table]] = [("shift", by, table) for by, table in SHIFTS.items()]
    tables += [("atbash", 0, ATBASH), ("reversed", 0, BACKWARDS)]
    gains = [gain(table, found) for _, _, table in tables]
    for _ in range(_MOST_RUNS):
        runs = [best_run(each) for each in gains]
        best = max(range(len(runs)), key=lambda i: runs[i][0])
        total, start, stop = runs[best]
        if total < _GAIN:
            return
        start, stop = _whole_words(text, start, stop + 1)
        span = _exchanged(text, start, stop, tables[best][0], tables[best][1])
        if span:
            yield span
        for each in gains:
            each[max(0, start - 1) : stop] = -NEUTRAL


def _whole_words(text: str, start: int, stop: int) -> tuple[int, int]:
    while start < stop and not text[start].isalpha():
        start += 1
    while stop > start and not text[stop - 1].isalpha():
        stop -= 1
    left, right = start, start
    while left and text[left - 1].isalpha():
        left -= 1
    while right < stop and text[right].isalpha():
        right += 1
    # Of a word at an end more than half must be in the run: its last pair alone says nothing.
    start = left if 2 * (start - left) <= right - left else right
    left, right = stop, stop
    while left > start and text[left - 1].isalpha():
        left -= 1
    while right < len(text) and text[right].isalpha():
        right += 1
    stop = right if 2 * (right - stop) <= right - left else left
    while start < stop and not text[start].isalpha():
        start += 1
    while stop > start and not text[stop - 1].isalpha():
        stop -= 1
    return start, stop


def _exchanged(text: str, start: int, stop: int, how: str, by: int) -> Span | None:
    run = text[start:stop]
    if how == "reversed":
        # Marks at the ends belong to the sentence.
        while start and text[start - 1] in ".?!":
            start -= 1
        while stop < len(text) and text[stop] in ".?!":
            stop += 1
        run = _turned_round(text[start:stop])
        kind = "reversed"
    elif how == "atbash":
        run, kind = run.translate(_MIRRORED), "atbash"
    else:
        run, kind = run.translate(_SHIFTED[by]), "rot13" if by == 13 else "caesar"
    dearest = _REVERSED_COST if kind == "reversed" else _DECODED_COST
    return Span(kind, start, stop, run) if _is_english(run, dearest) else None


def _turned_round(run: str) -> str:
    """The run from right to left, or each word of it, whichever begins and ends as sentences do."""
    whole = run[::-1]
    words = _WORD.sub(lambda match: match[0][::-1], run)
    return max((whole, words), key=_sentence)


def _sentence(text: str) -> int:
    words = _WORD.findall(text)
    if not words:
        return 0
    return (
        2 * (words[0].lower() in _OPENERS)
        - 2 * (words[-1].lower() in _NEVER_LAST)
        + int(words[0].istitle())
        + int(text.rstrip().endswith((".", "?", "!")))
    )


def _is_english(text: str, dearest: float) -> bool:
    letters = sum(map(len, _WORD.findall(text)))
    share, different = common_share(text)
    cost = cost_a_letter(text)
    if letters < _FEWEST_LETTERS or cost > dearest:
        return False
    return (share >= 0.25 and different >= 2) or (letters >= 40 and share >= 0.15 and cost <= 2.7)
