"""Whether bytes are text, and whether a text is language.

Contract: `text_of(data)` is UTF-8 or UTF-16 text of mostly printable characters, else None; an incomplete last
character is left out. `is_language(text)` is true for prose of English and other languages, names, and code with words
in it; not for keys, hashes, numbers, another encoding or a cipher.

Does not know: which language. Text in letters beyond ASCII counts where most of it is letters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from probes.hidden.letters import cost_a_letter
from probes.hidden.words import common_share

_CONTROL_BYTE = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FEWEST = 4
_FEWEST_BEYOND = 8
_EASTERN = -1
# Nats a pair: English is about 2.4, other languages in Latin letters 2.6 to 3.4, letters at random over 4.
_LANGUAGE = 3.35
_SHORT_LANGUAGE = 3.0
_SHORT = 16
_VERY_SHORT_LANGUAGE = 2.5
_VERY_SHORT = 10


def text_of(data: bytes) -> str | None:
    """The text that bytes are, if they are text."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data[: len(data) // 2 * 2].decode("utf-16", "replace")
    elif data.count(0) * 2 >= len(data) - 1 > 4:
        order = "utf-16-be" if data[0] == 0 else "utf-16-le"
        text = data[: len(data) // 2 * 2].decode(order, "replace")
    elif _CONTROL_BYTE.search(data[:256]):
        return None
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            # What a cut left of the last character.
            if error.start < len(data) - 3 or error.start == 0:
                return None
            text = data[: error.start].decode("utf-8")
    return text if len(_CONTROL.findall(text)) <= 0.02 * len(text) else None


def is_language(text: str) -> bool:
    """Whether a text is language."""
    solid = "".join(text.split())
    if len(solid) < _FEWEST:
        return False
    letters = sum(map(str.isalpha, solid))
    if letters < 0.55 * len(solid):
        return False
    beyond = [letter for letter in solid if letter > "\u024f" and letter.isalpha()]
    if len(beyond) > 0.5 * letters:
        return len(beyond) >= _FEWEST_BEYOND and _in_one_script(beyond)
    if beyond and len(solid) < _SHORT:
        return False
    cost = cost_a_letter(text)
    if len(solid) < _VERY_SHORT:
        return letters >= 0.8 * len(solid) and (cost <= _VERY_SHORT_LANGUAGE or common_share(text)[1] > 0)
    if len(solid) < _SHORT:
        return cost <= _SHORT_LANGUAGE
    return cost <= _LANGUAGE or common_share(text)[0] >= 0.35


def _in_one_script(letters: Sequence[str]) -> bool:
    """Whether most letters are of one block: bytes that happen to be UTF-8 are of many."""
    blocks = Counter(_EASTERN if "\u2e80" <= letter <= "\ud7ff" else ord(letter) >> 8 for letter in letters)
    return blocks.most_common(1)[0][1] >= 0.8 * len(letters)


def without_surrogates(text: str) -> str:
    """Halves of pairs put together; halves that are alone left out, since no tokenizer takes them."""
    if not _SURROGATE.search(text):
        return text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return _SURROGATE.sub("", whole)
