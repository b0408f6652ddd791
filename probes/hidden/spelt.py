"""Finds words spelt with digits and signs, and Morse code.

Contract: as `probes.hidden.ciphers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from math import prod

from probes.hidden.encodings import Span
from probes.hidden.letters import cost_a_letter
from probes.hidden.words import COMMON

_LEET_GATE = re.compile(r"[A-Za-z][0-9@$!|][A-Za-z]")
# What a digit or sign stands for, the likeliest first.
_LEET = {
    **{"0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "gbl", "7": "t", "8": "b", "9": "g"},
    **{"@": "a", "$": "s", "|": "li", "+": "t", "!": "il", "(": "c", "€": "e", "#": "h"},
}
_FIRST = str.maketrans({sign: letters[0] for sign, letters in _LEET.items()})
_LEET_WORD = re.compile(r"\S+")
_OUTER = ".,;:?\"'`*_~)]}>-"
_HAS_LEET = re.compile(r"[0-9@$|+!(€#]")
_HAS_LETTER = re.compile(r"[A-Za-z]")
_NO_LEET = re.compile(r"://|@\w+\.\w|[=/\\{}<>]|\d{5}")
_MOST_LETTERS = 18
_LONGEST = 40
_MOST_GAP = 4
_MOST_FORMS = 12


def leet_runs(text: str) -> Iterator[Span]:
    """Words with digits and signs in place of letters, two or more near each other."""
    group: list[tuple[re.Match[str], str, bool]] = []
    since = 0
    tokens = [*_LEET_WORD.finditer(text), None]
    for match in tokens:
        if match is None or since > _MOST_GAP:
            yield from _leet_span(text, group)
            group, since = [], 0
            if match is None:
                return
        folded = _from_leet(match[0])
        if folded is not None:
            group.append((match, folded, bool(_HAS_LETTER.search(match[0]))))
            since = 0
        elif group:
            since += 1


def _from_leet(token: str) -> str | None:
    """A token with its digits and signs as letters, if it is leet by its form."""
    if not _HAS_LEET.search(token) or len(token) > _LONGEST:
        return None
    core = token.strip(_OUTER + "!")
    if len(core) > _MOST_LETTERS or _NO_LEET.search(core) or not _HAS_LEET.search(core):
        return None
    inner = token[: len(token.rstrip(_OUTER + "!"))] if core else token
    best = min(_forms(inner), key=_cost)
    if not _HAS_LETTER.search(core) and _letters(best) not in COMMON:
        return None
    return best + token[len(inner) :]


def _forms(word: str) -> list[str]:
    """The word in letters: every choice where there are few."""
    choices = [_LEET.get(letter, letter) for letter in word]
    if prod(map(len, choices)) > _MOST_FORMS:
        return [word.translate(_FIRST)]
    return ["".join(form) for form in product(*choices)]


def _letters(word: str) -> str:
    return re.sub(r"[^A-Za-z]", "", word).lower()


def _cost(form: str) -> float:
    word = _letters(form)
    return 0.0 if word in COMMON else cost_a_letter(f" {word} ")


def _leet_span(text: str, group: list[tuple[re.Match[str], str, bool]]) -> Iterator[Span]:
    with_letters = [folded for _, folded, has_letters in group if has_letters]
    words = {_letters(folded) for folded in with_letters}
    if len(words) < 2:
        return
    common = words & COMMON
    likely = {word for word in words if word in COMMON or (len(word) >= 4 and cost_a_letter(f" {word} ") <= 2.9)}
    if not common or len(likely) < max(2, 0.6 * len(words)):
        return
    start, stop = group[0][0].start(), group[-1][0].end()
    pieces = []
    at = start
    for match, folded, _ in group:
        pieces += [text[at : match.start()], folded]
        at = match.end()
    yield Span("leet", start, stop, "".join(pieces))


_MORSE_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
)
_MORSE_DIGITS = "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
_MORSE = dict(zip(f"{_MORSE_CODES} {_MORSE_DIGITS}".split(), "abcdefghijklmnopqrstuvwxyz0123456789", strict=True))
_MORSE_RUN = re.compile(r"(?<!\S)[.\-–—·•−_]{1,6}(?:(?: {1,7}|[ ]?[/|\n][ ]?)[.\-–—·•−_]{1,6}){5,}+(?!\S)")
_MORSE_SIGNS = str.maketrans("·•–—−_|\n", "..----//")


def morse_runs(text: str) -> Iterator[Span]:
    """Morse code in dots and dashes."""
    for match in _MORSE_RUN.finditer(text):
        words = re.split(r" *[/] *| {2,}", match[0].translate(_MORSE_SIGNS))
        codes = [word.split() for word in words]
        if all(code in _MORSE for word in codes for code in word):
            found = " ".join("".join(_MORSE[code] for code in word) for word in codes)
            if len(set(found)) > 4:
                yield Span("morse", match.start(), match.end(), found)


def leet_gate(text: str) -> bool:
    """Whether words with digits or signs inside are there at all."""
    return len(_LEET_GATE.findall(text)) >= 1


def morse_gate(text: str) -> bool:
    """Whether dots and dashes stand alone at all."""
    return any(each in text for each in (" .", " -", " \u00b7", " \u2022", " \u2013", " \u2014", " \u2212", " _"))
