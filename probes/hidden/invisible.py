"""Characters that show nothing, and marks that are stuffed onto letters.

Contract: `visible(text)` leaves out zero-width and bidi controls, fillers, tag characters, variation selectors, soft
hyphens and control characters, except where a script or an emoji needs them: joiners within Arabic, Indic and other
scripts that join, spaces of no width between letters of scripts that write no spaces, and sequences of emoji.
`unstuffed(text)` leaves out combining marks that no language writes: three or more on a letter, strokes through each
letter, and one on most letters of a text. Both take linear time.

Does not know: which languages are written with many marks on Latin letters; a text with marks on most
of them is one that hides.
"""

from __future__ import annotations

import re
import unicodedata

_JOINERS = "\u200b\u200c\u200d\u2060\ufeff"
# Scripts whose writing needs joiners, or marks where words end by a space of no width.
_JOINING = (
    "\u0600-\u08ff\u0900-\u109f\u1780-\u18af\u1900-\u1a1f\u1b00-\u1bff\ua840-\ua87f\ua8e0-\ua8ff\ufb50-\ufdff"
    "\ufe70-\ufefc"
)
_EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff"
_NOTHING = (
    "\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
_NEEDED = re.compile(
    f"(?<=[{_JOINING}])[{_JOINERS}]{{1,2}}(?=[{_JOINING}])"
    f"|(?<=[{_JOINING}])[\u200c\u200d](?![^\\W\\d_])"
    # Emoji: selector, joiner to the next one, tags of a flag.
    f"|(?<=[{_EMOJI}])\ufe0f?\u200d(?=[{_EMOJI}])"
    f"|(?<=[{_EMOJI}#*0-9\u00a9\u00ae\u203c\u2049])[\ufe0e\ufe0f](?=[\u20e3\u200d]|(?![\ufe00-\ufe0f]))"
    "|(?<=\U0001f3f4)[\U000e0061-\U000e007a\U000e0030-\U000e0039]{2,6}\U000e007f"
    # Marks of direction beside letters that run from right to left.
    "|(?<=[\u0590-\u08ff])[\u200e\u200f\u061c]|[\u200e\u200f\u061c](?=[\u0590-\u08ff])"
)
_HIDDEN = re.compile(f"{_NEEDED.pattern}|(?P<nothing>[{_NOTHING}]+)")
HIDES = re.compile(f"[{_NOTHING}]")

_MARK = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_STACK = re.compile(f"[{_MARK}]{{3,}}")
_STROKE = re.compile(
    f"(?<=[A-Za-z\u00c0-\u024f])(?=[{_MARK}]*[\u0332-\u0338\u20d0-\u20e1\u20e5-\u20f0])[{_MARK}]{{1,2}}+"
)
MARKS = re.compile(f"[{_MARK}]")
_LOOSE = re.compile(f"(?<=[A-Za-z\u00c0-\u024f\u1e00-\u1eff])[{_MARK}]+")
_MARKED_LATIN = re.compile("[\u00c0-\u024f\u1e00-\u1eff\u1d6c-\u1d9a]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
# Vietnamese has marks on about a third of its letters.
_TOO_MANY = 0.55
_FEW = 6


def visible(text: str) -> str:
    """The text without what shows nothing."""
    return _HIDDEN.sub(lambda match: "" if match["nothing"] else match[0], text)


def unstuffed(text: str) -> str:
    """The text without marks that no language writes there. To be given the text before it is composed."""
    if MARKS.search(text):
        stacks = len(_STACK.findall(text)) + len(_STROKE.findall(text))
        composed = unicodedata.normalize("NFC", _STROKE.sub("", _STACK.sub("", text)))
        loose = len(_LOOSE.findall(composed)) + stacks
        if loose > max(2, 0.2 * len(_LATIN.findall(composed))):
            # The first of stuffed marks is often one that composes.
            composed = without_accents(_LOOSE.sub("", composed))
        text = composed
    marked = len(_MARKED_LATIN.findall(text))
    if marked > max(_FEW, _TOO_MANY * len(_LATIN.findall(text))):
        text = without_accents(text)
    return text


_STROKED = str.maketrans(
    "ØøĐđĦħŁłŦŧƵƶȺⱥɃƀĿŀƗɨɆɇɌɍɎɏŊŋƏƷǤǥƘƙƁɓƊɗƑƒƓɠƝɲƤƥƬƭƳƴ", "OoDdHhLlTtZzAaBbLlIiEeRrYyNnEZGgKkBbDdFfGgNnPpTtYy"
)


def without_accents(text: str) -> str:
    """Latin letters without their accents and strokes, one for one."""
    return _MARKED_LATIN.sub(_base, text)


def _base(match: re.Match[str]) -> str:
    letter = unicodedata.normalize("NFD", match[0])[0]
    return letter.translate(_STROKED)
