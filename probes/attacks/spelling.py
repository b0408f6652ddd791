"""Families that write the same letters otherwise: case, spacing, invisible characters, look-alikes, leet.

Contract: a person can still read the text. Each wording names how much of the text it changes; which letters those are
is drawn for each row.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from probes.attacks.base import Family, Materials, Wording

Change = Callable[[str, random.Random], str]

_CYRILLIC = dict(zip("aceopxyijshdqwgABCEHIJKMOPSTXY", "асеорхуіјѕһԁԛԝɡАВСЕНІЈКМОРЅТХҮ", strict=True))
_GREEK = dict(zip("aopvuxiknyABEHIKMNOPTXYZ", "αορνυχικηγΑΒΕΗΙΚΜΝΟΡΤΧΥΖ", strict=True))
_LATIN = dict(zip("abcdeghiklnorstuy", "ɑƅϲɗҽɡհıκӏոօгѕτսγ", strict=True))
_LEET_FEW = dict(zip("aeiosAEIOS", "4310543105", strict=True))
_LEET_MORE = _LEET_FEW | dict(zip("tbglzTBGLZ", "7896278962", strict=True))
_LEET_SIGNS = dict(zip("aeioslAEIOSL", "@3!0$1@3!0$1", strict=True)) | {"t": "+", "T": "+", "h": "#", "c": "("}
_INVISIBLE = {
    "zero-width space": "\u200b",
    "zero-width non-joiner": "\u200c",
    "zero-width joiner": "\u200d",
    "word joiner": "\u2060",
    "byte-order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "left-to-right mark": "\u200e",
    "several kinds": "\u200b\u200c\u200d\u2060",
}
# (name, code point of A, of a, of 0 or 0 where the style has no digits)
_STYLES = (
    ("bold", 0x1D400, 0x1D41A, 0x1D7CE),
    ("bold italic", 0x1D468, 0x1D482, 0),
    ("bold script", 0x1D4D0, 0x1D4EA, 0),
    ("sans-serif", 0x1D5A0, 0x1D5BA, 0x1D7E2),
    ("sans-serif bold", 0x1D5D4, 0x1D5EE, 0x1D7EC),
    ("sans-serif italic", 0x1D608, 0x1D622, 0),
    ("monospace", 0x1D670, 0x1D68A, 0x1D7F6),
    ("bold fraktur", 0x1D56C, 0x1D586, 0),
    ("circled", 0x24B6, 0x24D0, 0),
)


def _mapped(table: Mapping[str, str], share: float) -> Change:
    def change(text: str, rng: random.Random) -> str:
        places = [i for i, c in enumerate(text) if c in table]
        chosen = {i for i in places if share >= 1 or rng.random() < share}
        if places and not chosen:  # a short text is changed as well
            chosen = {rng.choice(places)}
        return "".join(table[c] if i in chosen else c for i, c in enumerate(text))

    return change


def _shares(name: str, table: Mapping[str, str], shares: Sequence[float] = (0.3, 0.5, 0.7, 1.0)) -> list[Wording]:
    return [Wording(f"{name}, {share:.0%} of the letters", text=_mapped(table, share)) for share in shares]


def _plain(change: Callable[[str], str]) -> Change:
    return lambda text, _rng: change(text)


def _case(_materials: Materials) -> list[Wording]:
    def random_case(share: float) -> Change:
        return lambda text, rng: "".join(c.upper() if rng.random() < share else c.lower() for c in text)

    def alternating(first: int) -> Change:
        return lambda text, _rng: "".join(c.upper() if i % 2 == first else c.lower() for i, c in enumerate(text))

    def words_upper(share: float) -> Change:
        return lambda text, rng: re.sub(r"\S+", lambda w: w[0].upper() if rng.random() < share else w[0], text)

    return [
        Wording("upper case", text=_plain(str.upper)),
        Wording("lower case", text=_plain(str.lower)),
        Wording("title case", text=_plain(str.title)),
        Wording("swapped case", text=_plain(str.swapcase)),
        Wording("alternating, lower first", text=alternating(1)),
        Wording("alternating, upper first", text=alternating(0)),
        *(Wording(f"random case, {share:.0%} upper", text=random_case(share)) for share in (0.2, 0.5, 0.8)),
        *(Wording(f"{share:.0%} of the words in upper case", text=words_upper(share)) for share in (0.25, 0.5, 0.75)),
        Wording("last letters in upper case", text=_plain(lambda t: re.sub(r"\w\b", lambda w: w[0].upper(), t))),
    ]


def _spacing(_materials: Materials) -> list[Wording]:
    def between(mark: str, gap: str) -> Change:
        """Every letter apart; words apart by the wider gap."""
        return lambda text, _rng: gap.join(mark.join(word) for word in text.split())

    def some_words(mark: str, share: float) -> Change:
        def change(text: str, rng: random.Random) -> str:
            return " ".join(mark.join(word) if rng.random() < share else word for word in text.split())

        return change

    def joined(mark: str) -> Change:
        return lambda text, _rng: mark.join(text.split())

    def camel(text: str, _rng: random.Random) -> str:
        return "".join(word[:1].upper() + word[1:] for word in text.split())

    def cut(text: str, rng: random.Random) -> str:
        return " ".join(
            f"{w[:at]} {w[at:]}" if len(w) > 3 and (at := rng.randrange(1, len(w) - 1)) else w for w in text.split()
        )

    letters = ((" ", "   "), (".", " "), ("-", " "), ("_", " "), (" ", " / "), ("\n", "\n\n"))
    return [
        *(Wording(f"letters apart by {mark!r}, words by {gap!r}", text=between(mark, gap)) for mark, gap in letters),
        *(Wording(f"{share:.0%} of the words spaced out", text=some_words(" ", share)) for share in (0.3, 0.6)),
        Wording("half of the words dotted", text=some_words(".", 0.5)),
        *(Wording(f"words joined by {mark!r}", text=joined(mark)) for mark in ("", "_", "-", "  ", "\n", ".")),
        Wording("words joined, each with a capital", text=camel),
        Wording("words cut in two", text=cut),
    ]


def _zero_width(_materials: Materials) -> list[Wording]:
    def sown(marks: str, share: float) -> Change:
        def change(text: str, rng: random.Random) -> str:
            return "".join(c + rng.choice(marks) if c.isalnum() and rng.random() < share else c for c in text)

        return change

    return [
        Wording(f"{name} behind {share:.0%} of the letters", text=sown(marks, share))
        for name, marks in _INVISIBLE.items()
        for share in (0.2, 0.5, 1.0)
    ]


def full_width(text: str) -> str:
    """ASCII as full-width forms; a space becomes the ideographic one."""
    return "".join("\u3000" if c == " " else chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _full_width(_materials: Materials) -> list[Wording]:
    def letters(share: float) -> Change:
        return lambda text, rng: "".join(full_width(c) if c.isalnum() and rng.random() < share else c for c in text)

    def some_words(share: float) -> Change:
        return lambda text, rng: re.sub(r"\S+", lambda w: full_width(w[0]) if rng.random() < share else w[0], text)

    return [
        Wording("everything", text=_plain(full_width)),
        Wording("everything but spaces", text=some_words(1.0)),
        *(Wording(f"{share:.0%} of the letters", text=letters(share)) for share in (0.2, 0.4, 0.6, 0.8, 1.0)),
        *(Wording(f"{share:.0%} of the words", text=some_words(share)) for share in (0.2, 0.35, 0.5, 0.65, 0.8)),
    ]


def _homoglyph(_materials: Materials) -> list[Wording]:
    tables = {"Cyrillic": _CYRILLIC, "Greek": _GREEK, "Latin and other": _LATIN, "mixed": _LATIN | _GREEK | _CYRILLIC}
    return [wording for name, table in tables.items() for wording in _shares(name, table)]


def _styled(_materials: Materials) -> list[Wording]:
    made = []
    for name, upper, lower, digit in _STYLES:
        table = {chr(65 + i): chr(upper + i) for i in range(26)} | {chr(97 + i): chr(lower + i) for i in range(26)}
        table |= {chr(48 + i): chr(digit + i) for i in range(10)} if digit else {}
        made += _shares(name, table, (0.5, 1.0))
    return made


def _leet(_materials: Materials) -> list[Wording]:
    tables = {"few digits": _LEET_FEW, "more digits": _LEET_MORE, "signs": _LEET_SIGNS}
    return [wording for name, table in tables.items() for wording in _shares(name, table)]


FAMILIES = (
    Family("case", "the same text in other case", _case),
    Family("spacing", "letters apart, or words joined", _spacing),
    Family("zero-width", "invisible characters between the letters", _zero_width),
    Family("full-width", "letters as full-width forms", _full_width),
    Family("homoglyph", "letters of other scripts that look alike", _homoglyph, holds_out=True),
    Family("styled-letters", "mathematical and circled letters", _styled, holds_out=True),
    Family("leet", "digits and signs for letters", _leet),
)
