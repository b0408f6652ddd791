"""Letters that are set apart, odd spaces and odd case.

Contract: `joined(text)` puts letters together that stand one by one ("h o w  t o", "h-o-w t-o") where the result reads
like English; where nothing says where words end, the likeliest words are taken. `spaced_once(text)` makes each run of
spaces within a line one space, and every kind of space an ordinary one; indentation stays. `in_one_case(text)` writes
in small letters words that change case from letter to letter, and texts that are all capitals.

Does not know: letters set apart in other alphabets than the Latin one.
"""

from __future__ import annotations

import itertools
import re

import numpy as np

from probes.hidden.letters import COST, classes, cost_a_letter
from probes.hidden.words import COMMON, common_share

_SIGNS = r" .\-_*~|/·•+,:\u00a0"
_LONE = r"[A-Za-z](?![^\W_])"
_MORE = rf"(?:(?P=sign){_LONE})*+"
# Possessive throughout: what stands between two letters can be read in two ways.
APART = re.compile(
    rf"(?<![^\W_])[A-Za-z](?P<sign>[{_SIGNS}]){_LONE}{_MORE}"
    rf"(?:(?:(?P=sign){{2,5}}|[ \t\u00a0]{{1,5}}|[ \t]?[/|\n][ \t]?){_LONE}{_MORE})*+"
)
_MOST_LETTERS = 2000
_LONGEST_WORD = 14
_ENGLISH = 2.95
# Nats against a word of one letter that is none.
_LONE_LETTER = 8.0
_SPACES = re.compile(r"(?<=\S)[ \t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]{2,}(?=\S)")
_SPACE = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_ALTERNATES = re.compile(r"(?<![\w+/])[A-Za-z]{3,20}+(?![\w+/=])")
_LATIN_WORD = re.compile(r"(?<![\w+/])[A-Za-z]{1,20}+(?![\w+/=])")
_CAPITALS = re.compile(r"[A-Z]")
_SMALL = re.compile(r"[a-z]")


def joined(text: str) -> str:
    """The text with letters that stand one by one put together."""
    return APART.sub(_join, text)


def _join(match: re.Match[str]) -> str:
    sign, found = match["sign"], match[0]
    letters = re.sub(r"[^A-Za-z]", "", found)
    if len(letters) < 5:
        return found
    parts = re.split(
        r"[^A-Za-z]{2,}|\n" if sign in " \u00a0" else rf"(?:{re.escape(sign)}){{2,}}|[ \t\u00a0\n]+", found
    )
    words = [re.sub(r"[^A-Za-z]", "", part) for part in parts]
    if len(words) < 2 or max(map(len, words)) > _LONGEST_WORD:
        words = split_words(letters)
    text = " ".join(filter(None, words))
    shared = sum(len(word) for word in words if word.lower() in COMMON) / len(letters)
    return text if cost_a_letter(text) <= _ENGLISH and (shared >= 0.25 or len(words) == 1) else found


def split_words(letters: str) -> list[str]:
    """The likeliest words that letters without spaces are: by the costs of pairs, common words before others."""
    if len(letters) > _MOST_LETTERS:
        return [letters]
    found = classes(letters)
    inner = np.concatenate(([0.0], np.cumsum(COST[found[:-1], found[1:]], dtype=np.float64)))
    lower = letters.lower()
    best = [0.0] + [float("inf")] * len(letters)
    back = [0] * (len(letters) + 1)
    for stop in range(1, len(letters) + 1):
        for start in range(max(0, stop - _LONGEST_WORD), stop):
            word = lower[start:stop]
            cost = best[start] + COST[26, found[start]] + inner[stop - 1] - inner[start] + COST[found[stop - 1], 26]
            if word in COMMON:
                cost -= 1.2 * len(word) + 1.0
            else:
                cost += 1.5 if stop - start > 1 else _LONE_LETTER
            if cost < best[stop]:
                best[stop], back[stop] = cost, start
    words = []
    at = len(letters)
    while at:
        words.append(letters[back[at] : at])
        at = back[at]
    return words[::-1]


def spaced_once(text: str) -> str:
    """Runs of spaces within lines as one space, and every kind of space as the ordinary one."""
    return _SPACE.sub(" ", _SPACES.sub(" ", text))


def oddly_spaced(text: str) -> bool:
    """Whether most words of a line of prose have more than one space between them."""
    if "  " not in text:
        return False
    return any(
        len(_SPACES.findall(line)) > max(4, 0.6 * len(line.split())) and common_share(line)[1] >= 3
        for line in text.splitlines()
    )


def in_one_case(text: str) -> str:
    """Small letters for words whose letters alternate in case, and for texts that are all capitals."""
    capitals = len(_CAPITALS.findall(text))
    if capitals < 4:
        return text
    small = len(_SMALL.findall(text))
    if capitals >= 15 and small <= 0.1 * capitals and cost_a_letter(text) <= _ENGLISH:
        return text.lower()
    if capitals < 0.2 * small:
        return text
    words = _ALTERNATES.findall(text)
    odd = {word for word in words if _alternates(word)}
    if (
        sum(map(len, odd)) < 8
        or cost_a_letter(" ".join(odd)) > _ENGLISH
        or len(odd) < 0.3 * len({word for word in words if word not in COMMON})
    ):
        return text
    return _LATIN_WORD.sub(lambda match: match[0].lower() if _may_be_odd(match[0]) else match[0], text)


def _may_be_odd(word: str) -> bool:
    return len(word) < 3 or not (word.islower() or word[1:].islower())


def _alternates(word: str) -> bool:
    changes = sum(a.isupper() != b.isupper() for a, b in itertools.pairwise(word[1:]))
    return changes >= max(1, (len(word) - 2) // 2) and not word.isupper() and not word[1:].islower()
