"""Letters that look like Latin ones, folded to those where they stand in for them.

Contract: `folded(text)` exchanges (a) letters of other scripts within words that hold Latin letters too, (b) whole
words of look-alikes in a text that is otherwise Latin, (c) Latin letters in a dress of their own: small capitals,
turned, squared and circled ones. Russian, Greek and every other language stay as they are, a word in another script
within an English text as well, and short symbols of science such as `Δx` or `μm`.

The pairs are Unicode's confusables, as the package confusable-homoglyphs has them; to these come letters that are used
as Latin ones although they look so only as capitals (`к`, `т`). They are read at the first text that needs them.

Does not know: words. A word of look-alikes alone that is Russian (`сор`) becomes Latin in an English text that has no
other Russian word.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_ALSO = {
    **dict(zip("абвгкмнптчъьяи", "abbrkmhntubbru", strict=True)),
    **dict(zip("βεηθικλμπτχωδΛΣΔΩςξ", "behoiklmntxwdAEAOse", strict=True)),
    **dict(zip("ІӀЅЈԌѴΙӏıɩ", "IISJGVIlii", strict=True)),
    **dict(zip("աոսցօհլվքպ", "wnugohlvpp", strict=True)),
    **dict(zip("ҽҿԁғҳӄӎӷ", "eedfxkmr", strict=True)),
    **dict(zip("ɓƅƃɗɖɱɲƞʀʂʈʉʐ", "bbbddmnnrstuz", strict=True)),
}
_STYLED = re.compile(
    r"(?:NEGATIVE |CROSSED NEGATIVE )?(?:SQUARED|CIRCLED) LATIN CAPITAL LETTER ([A-Z])$"
    r"|LATIN LETTER SMALL CAPITAL ([A-Z])$"
    r"|(?:LATIN SMALL LETTER|LATIN LETTER SMALL CAPITAL) (?:TURNED|REVERSED|SIDEWAYS) (?:OPEN )?([A-Z])$"
    r"|LATIN SMALL LETTER (?:SCRIPT|DOTLESS) ([A-Z])$|REGIONAL INDICATOR SYMBOL LETTER ([A-Z])$"
)
_STYLED_RANGES = ((0x0250, 0x02B0), (0x1D00, 0x1D80), (0xA720, 0xA800), (0x1F130, 0x1F1A0), (0x1F1E6, 0x1F200))
# Latin letters that no alphabet of many writers has, and that look like plain ones.
_ODD_LATIN = "\u0184\u018d\u0196\u01a6\u01bd\u01c0\u0251\u0261"
_FOREIGN = re.compile(
    f"[{_ODD_LATIN}\u0370-\u1cff\u1f00-\u1fff\u2c00-\u2dff\ua4d0-\ua6ff\uab30-\uabbf\U00010280-\U0001034f"
    "\U000118a0-\U000118ff]"
)
_DRESSED = re.compile("[\u0250-\u02af\u1d00-\u1d7f\ua720-\ua7ff\U0001f130-\U0001f1ff]")
# How a word is said, between slashes or brackets.
_BRACKETED = re.compile(r"/[^\s/]{1,40}/|\[[^\s\[\]]{1,40}\]")
_PHONETICS = re.compile("[\u0250\u0252-\u0260\u0262-\u02af\u02c8\u02cc\u02d0]")
_FLAGS = re.compile("(?:[\U0001f1e6-\U0001f1ff]{2})+(?![\U0001f1e6-\U0001f1ff])")
_WORD = re.compile(r"[^\W\d_](?:[^\W_]|(?<=\w)['’](?=\w))*")
_LATIN = re.compile("[A-Za-z]")
_LETTERS = re.compile(r"[^\W\d_]")


@cache
def pairs() -> dict[str, str]:
    """Letter of another script -> the Latin letter that it looks like, or is used as."""
    return alike() | _ALSO


@cache
def alike() -> dict[str, str]:
    """Letter of another script -> the Latin letter that it looks like."""
    from confusable_homoglyphs.confusables import confusables_data

    found: dict[str, str] = {}
    for letter, others in confusables_data.items():
        like = [each["c"] for each in others if len(each["c"]) == 1 and each["c"].isascii() and each["c"].isalpha()]
        if len(letter) == 1 and not letter.isascii() and like:
            # `l` and `I` are in one class: the one in the letter's own case.
            same = [each for each in like if each.isupper() == letter.isupper()]
            found[letter] = (same or like)[0]
    return found


@cache
def dressed() -> dict[int, str]:
    """Translation of Latin letters in a dress, to small ones."""
    table = {}
    for start, stop in _STYLED_RANGES:
        for code in range(start, stop):
            match = _STYLED.match(unicodedata.name(chr(code), ""))
            if match:
                table[code] = next(filter(None, match.groups())).lower()
    return table


def folded(text: str) -> str:
    """The text with look-alikes as the Latin letters that they stand in for."""
    at = 0
    pieces = []
    for match in _BRACKETED.finditer(text):
        if _PHONETICS.search(match[0]):
            pieces += [_folded(text[at : match.start()]), match[0]]
            at = match.end()
    return "".join((*pieces, _folded(text[at:])))


def _folded(text: str) -> str:
    if _DRESSED.search(text):
        text = _undressed(text)
    if not _FOREIGN.search(text):
        return text
    table = pairs()
    words = [match[0] for match in _WORD.finditer(text) if _FOREIGN.search(match[0])]
    mixed = {word for word in words if _stands_in(word, table)}
    if not any(
        len(word) > 3 or (len(word) == 3 and all(x in alike() for x in _FOREIGN.findall(word))) for word in mixed
    ):
        # Symbols of science.
        mixed = set()
    alone = {word for word in words if word not in mixed and not _LATIN.search(word)}
    # Look-alikes alone: only in a Latin text, and where no other word of that script says that it is a language.
    same = alike()
    lookalike = {word for word in alone if all(each in same or not each.isalpha() for each in word)}
    latin = len(_LATIN.findall(text))
    is_latin = latin >= 0.4 * len(_LETTERS.findall(text)) or (mixed and latin)
    if is_latin and not (alone - lookalike):
        mixed |= {word for word in lookalike if len(word) > 1 or mixed}
    if not mixed:
        return text
    exchange = str.maketrans(table)
    return _WORD.sub(lambda match: match[0].translate(exchange) if match[0] in mixed else match[0], text)


def _stands_in(word: str, table: dict[str, str]) -> bool:
    """Whether a word is Latin with look-alikes in it, or of letters of two other scripts."""
    foreign = _FOREIGN.findall(word)
    if not foreign or not all(each in table for each in foreign):
        return False
    scripts = {_script(each) for each in foreign}
    if scripts == {"LATIN"} and _PHONETICS.search(word):
        return False
    return bool(_LATIN.search(word)) or len(scripts) > 1


def _script(letter: str) -> str:
    """The first word of a letter's name: LATIN, GREEK, CYRILLIC."""
    return unicodedata.name(letter, "").partition(" ")[0]


def _undressed(text: str) -> str:
    """Without the dress; pairs of regional indicators are flags, and single letters of phonetics stay."""
    table = dressed()
    if len(_DRESSED.findall(text)) < max(4, 0.15 * len(_LATIN.findall(text))):
        # Phonetics.
        return text
    pieces = []
    at = 0
    for match in _FLAGS.finditer(text):
        pieces += [text[at : match.start()].translate(table), match[0]]
        at = match.end()
    return "".join((*pieces, text[at:].translate(table)))
