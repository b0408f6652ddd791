"""Letters that are set apart, odd spaces and odd case.

Contract: `joined(text)` puts letters together that stand one by one ("h o w  t o", "h-o-w t-o") where the result reads
like English. `set_apart(text)` puts spaces between words that stand together ("how-do-i-open", "HowDoIOpen"). Where
nothing says where words end, the likeliest are taken. `spaced_once(text)` makes each run of
spaces within a line one space, and every kind of space an ordinary one; indentation stays. `in_one_case(text)` writes
in small letters words that change case from letter to letter, and texts that are all capitals.

Does not know: letters set apart in other alphabets than the Latin one.
"""

from __future__ import annotations

import re

import numpy as np

from probes.hidden.letters import COST, classes, cost_a_letter
from probes.hidden.words import COMMON, common_share

_SIGNS = r" .\-_*~|/·•+,:\n\u00a0"
_LONE = r"[A-Za-z](?![^\W_])"
_MORE = rf"(?:(?P=sign){_LONE})*+"
# Possessive throughout: what stands between two letters can be read in two ways.
APART = re.compile(
    rf"(?<![^\W_])[A-Za-z](?P<sign>[{_SIGNS}]){_LONE}{_MORE}"
    rf"(?:(?:(?P=sign){{2,5}}|[ \t\u00a0]{{1,5}}|[ \t]?[/|\n][ \t]?){_LONE}{_MORE})*+"
)
# Words that have a sign, or nothing, where spaces should be; not a path, an address or a name in code.
_UNSPACED = re.compile(
    r"(?<![\w/.@:=\\-])(?:[A-Za-z]{24,}+|[A-Za-z']{1,20}+(?P<between>[-_.+*~|])[A-Za-z']{1,20}+"
    r"(?:(?P=between)[A-Za-z']{1,20}+){4,}+)(?![\w/@:=(\\-])"
)
_FEWEST_WORDS = 6
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
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SMALL = re.compile(r"[a-z]")


def joined(text: str) -> str:
    """The text with letters that stand one by one put together."""
    found = APART.sub(_join, text)
    # Short words and odd ends, which alone are initials.
    return found if found == text else APART.sub(_join_short, found)


def set_apart(text: str) -> str:
    """The text with spaces between words that have none."""
    return _UNSPACED.sub(_set_apart, text)


def _join(match: re.Match[str]) -> str:
    sign, found = match["sign"], match[0]
    letters = re.sub(r"[^A-Za-z]", "", found)
    if len(letters) < 5:
        return found
    words = _words_apart(found, sign)
    if len(words) < 2 or max(map(len, words)) > _LONGEST_WORD:
        words = split_words(letters)
    text = " ".join(filter(None, words))
    shared = sum(len(word) for word in words if word.lower() in COMMON) / len(letters)
    return text if cost_a_letter(text) <= _ENGLISH and (shared >= 0.25 or len(words) == 1) else found


def _words_apart(found: str, sign: str) -> list[str]:
    between = r"[^A-Za-z]{2,}|\n" if sign in " \u00a0" else rf"(?:{re.escape(sign)}){{2,}}|[ \t\u00a0]+"
    if sign not in " \u00a0\n":
        between += r"|\n"
    return [re.sub(r"[^A-Za-z]", "", part) for part in re.split(between, found)]


def _join_short(match: re.Match[str]) -> str:
    words = [*filter(None, _words_apart(match[0], match["sign"]))]
    if len(words) == 1 and not _is_known(words[0]):
        words = split_words(words[0])
    return " ".join(words) if all(map(_is_known, words)) else match[0]


def _is_known(word: str) -> bool:
    return word.lower() in COMMON or (len(word) > 2 and cost_a_letter(f" {word} ") <= _ENGLISH)


def _set_apart(match: re.Match[str]) -> str:
    """The words of a run that has signs, or nothing, in the place of spaces."""
    run = match[0]
    parts = re.split(r"[^A-Za-z']+", run) if not run.isalpha() else _HUMP.findall(run)
    if len(parts) < _FEWEST_WORDS:
        parts = split_words(run) if run.isalpha() and cost_a_letter(run) <= _ENGLISH else []
    common = {part.lower() for part in parts if len(part) > 1} & COMMON
    shared = sum(len(part) for part in parts if part.lower() in COMMON) / len(run)
    text = " ".join(parts)
    return text if len(parts) >= _FEWEST_WORDS and len(common) >= 3 and shared >= 0.4 else run


def split_words(letters: str) -> list[str]:
    """The likeliest words that letters without spaces are: by the costs of pairs, common words before others."""
    if len(letters) > _MOST_LETTERS:
        return [letters]
    found = classes(letters)
    # As lists: single numbers out of an array are slow.
    inner = np.concatenate(([0.0], np.cumsum(COST[found[:-1], found[1:]], dtype=np.float64))).tolist()
    first, last = COST[26, found].tolist(), COST[found, 26].tolist()
    lower = letters.lower()
    best = [0.0] + [float("inf")] * len(letters)
    back = [0] * (len(letters) + 1)
    for stop in range(1, len(letters) + 1):
        end = inner[stop - 1] + last[stop - 1]
        for start in range(max(0, stop - _LONGEST_WORD), stop):
            cost = best[start] + first[start] - inner[start] + end
            if lower[start:stop] in COMMON:
                cost -= 1.2 * (stop - start) + 1.0
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
    if capitals < 0.1 * small:
        return text
    words = _ALTERNATES.findall(text)
    odd = [word for word in words if _alternates(word)]
    if sum(map(len, odd)) < 8 or len(odd) < 0.25 * len(words) or cost_a_letter(" ".join(odd)) > _ENGLISH:
        return text
    return _LATIN_WORD.sub(lambda match: match[0].lower() if _may_be_odd(match[0]) else match[0], text)


def _may_be_odd(word: str) -> bool:
    return len(word) < 3 or not (word.islower() or word[1:].islower())


def _alternates(word: str) -> bool:
    """Whether case changes within a word as it does in no name: two pieces or more of one or two letters."""
    if word.islower() or word.isupper() or word[1:].islower():
        return False
    pieces = _HUMP.findall(word)
    short = sum(len(piece) <= 2 for piece in pieces)
    return short >= 2 and short >= 0.5 * len(pieces)
