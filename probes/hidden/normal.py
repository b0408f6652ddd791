"""A text as a reader would read it: nothing invisible, plain letters, words in one piece.

Contract: `normalised(text)` is the text after NFKC, without what shows nothing and without stuffed marks, with
look-alikes as the letters that they stand in for, letters that were set apart joined, one case where case alternates,
and single spaces. `changed(text)` is that where it says other words than the text does, else None: typographic quotes,
dashes, accents, emoji, ligatures, units and signs of other scripts are no reason for another reading. Linear time; the
result is at most a few times longer.

Does not know: meaning. `probes.hidden.spelling` and `probes.hidden.lookalikes` say what each part leaves.
"""

from __future__ import annotations

import re
import unicodedata

from probes.hidden.invisible import HIDES, unstuffed, visible
from probes.hidden.lookalikes import folded
from probes.hidden.shape import shape_of
from probes.hidden.spelling import in_one_case, joined, oddly_spaced, set_apart, spaced_once

_WORDS = re.compile(r"[^\W\d_]{2,}")
_LATIN_WORDS = re.compile(r"[a-z]{2,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
# Compatibility letters that ordinary text has: ligatures of type, units, ordinals, fractions, signs.
_ORDINARY = re.compile(
    "[\u00aa-\u00be\u0132\u0133\u01c4-\u01cc\u2030-\u205e\u2070-\u209f\u20a0-\u20cf\u2100-\u218f\u3200-\u33ff\ufb00-\ufb06"
    "\U0001f100-\U0001f12f]"
)
# Characters of other blocks than those never change a word: Latin with accents, punctuation, spaces, arrows.
_PLAIN = re.compile(
    "[\x20-\x7e\t\n\r\u00a0-\u00ac\u00ae-\u024f\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2190-\u23ff\u2500-\u27bf]*+"
)
_WIDE = re.compile("[\uff21-\uff5a]")
_HAN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_MOST_MARKS = 24
_EXPANDS = 4
_FEWEST_APART = 3
_FEWEST_UNSPACED = 14
# Words that alternate have a capital in every three characters or more.
_CAPITALS_SHARE = 12


def normalised(text: str) -> str:
    """The text as a reader would read it."""
    return spaced_once(_respelled(_plain_letters(text)))


def changed(text: str) -> str | None:
    """The normalised text, where its words are others than the text's."""
    if not _CONTROL.search(text) and (text.isascii() or _PLAIN.fullmatch(text)):
        plain = text if text.isascii() else unstuffed(text)
        new = plain is not text and plain != text
    else:
        plain = _plain_letters(text)
        new = plain != text and _new_words(_composed(text), text, plain)
    respelled = _respelled(plain)
    if new or respelled != plain or oddly_spaced(respelled):
        return spaced_once(respelled)
    return None


def _plain_letters(text: str) -> str:
    if _CONTROL.search(text) or HIDES.search(text):
        text = visible(text)
    if text.isascii():
        return text
    return folded(_composed(unstuffed(text)))


def _composed(text: str) -> str:
    """NFKC, of letters with no more marks than can be sorted in time, and without letters that become a sentence."""
    short = _short_of_marks(text)
    composed = unicodedata.normalize("NFKC", short)
    return composed if len(composed) <= _EXPANDS * len(text) + 64 else unicodedata.normalize("NFC", short)


def _short_of_marks(text: str) -> str:
    """At most `_MOST_MARKS` combining characters in a row: sorting them takes the square of their number."""
    kept = []
    run = 0
    if len(text) <= _MOST_MARKS:
        return text
    for letter in text:
        run = run + 1 if letter > "\u02ff" and unicodedata.combining(letter) else 0
        if run <= _MOST_MARKS:
            kept.append(letter)
    return "".join(kept)


def _respelled(text: str) -> str:
    shape = shape_of(text)
    if shape.single >= _FEWEST_APART or shape.longest >= _FEWEST_APART:
        text = joined(text)
    if shape.longest >= _FEWEST_UNSPACED:
        text = set_apart(text)
    return in_one_case(text) if shape.capitals * _CAPITALS_SHARE > len(text) else text


def _new_words(base: str, text: str, plain: str) -> bool:
    """Whether the plain letters make words that neither the text nor its composed form has."""
    lower = plain.lower()
    if set(_WORDS.findall(lower)) - set(_WORDS.findall(base.lower())):
        return True
    ordinary = _WIDE.sub(_compatible, text) if _is_wide_by_nature(text) else text
    return bool(
        set(_LATIN_WORDS.findall(lower)) - set(_LATIN_WORDS.findall(_ORDINARY.sub(_compatible, ordinary).lower()))
    )


def _is_wide_by_nature(text: str) -> bool:
    """Whether a text is Chinese or Japanese, which have a few Latin letters at full width."""
    han = len(_HAN.findall(text))
    return han > 0 and len(_WIDE.findall(text)) < max(5, 0.3 * han)


def _compatible(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match[0])
