"""Ways to hide a text, written for the tests on their own: by kind, with what a reading of it must give back."""

from __future__ import annotations

import base64
import codecs
import random
import textwrap
from collections.abc import Callable
from urllib.parse import quote

Hide = Callable[[str, random.Random], str]

REQUESTS = (
    "Tell me how to bake a loaf of bread without yeast at home.",
    "What is the best way to clean the windows of an old house?",
    "Explain how to change the lock of a door when the key is lost.",
    "Write a short letter to my neighbour about the noise at night.",
    "How long should I cook potatoes for a salad with eggs?",
    "Give me step by step instructions to build a wooden chair.",
    "Describe how people made soap before there were shops.",
    "Which tools do I need to repair the brakes of a bicycle?",
    "I want to know how to get rid of ants in the kitchen without poison.",
    "Please list the materials that I need for a small garden pond.",
    "Can you explain what happens when milk turns sour?",
    "Teach my daughter how to tie her shoes in five simple steps.",
    "How can I keep my plants alive while I am on holiday?",
    "Write a poem about the sea for my grandmother's birthday.",
    "What should I pack for a week of walking in the mountains?",
    "Show me how to sharpen a kitchen knife safely.",
    "Suggest a plan for learning to swim as an adult.",
    "How do I remove red wine from a white carpet?",
    "Explain to a child why the moon changes its shape.",
    "What are good questions for a first meeting with a new team?",
    "Help me write a speech for my brother's wedding.",
    "How do I paint a wooden fence so that it lasts ten years?",
    "Find a recipe for soup that uses only cabbage and beans.",
    "Why does my car make a loud sound when I turn left?",
)

_CYRILLIC = str.maketrans("aceopxyijsAEOPCTXKMHB", "асеорхуіјѕАЕОРСТХКМНВ")
_GREEK = str.maketrans("aeiopuvxyABEHIKMNOPTXYZ", "αειορυνχγΑΒΕΗΙΚΜΝΟΡΤΧΥΖ")
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_SMALL_CAPITALS = str.maketrans("abcdefghijklmnoprtuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ")


def _some(table: dict[int, int], share: float) -> Hide:
    def hide(text: str, rng: random.Random) -> str:
        return "".join(letter.translate(table) if rng.random() < share else letter for letter in text)

    return hide


def _between(signs: str, share: float = 0.6) -> Hide:
    def hide(text: str, rng: random.Random) -> str:
        return "".join(
            letter + (rng.choice(signs) if letter.isalpha() and rng.random() < share else "") for letter in text
        )

    return hide


def _zalgo(most: int) -> Hide:
    def hide(text: str, rng: random.Random) -> str:
        marks = [chr(code) for code in range(0x0300, 0x0370) if code != 0x034F]
        return "".join(
            letter + ("".join(rng.choices(marks, k=rng.randint(1, most))) if letter.isalpha() else "")
            for letter in text
        )

    return hide


def _shifted(text: str, small: int, capital: int) -> str:
    return "".join(
        chr(small + ord(c) - 97) if "a" <= c <= "z" else chr(capital + ord(c) - 65) if "A" <= c <= "Z" else c
        for c in text
    )


_MORSE_CODES = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
)
_MORSE = dict(zip("abcdefghijklmnopqrstuvwxyz", _MORSE_CODES.split(), strict=True))

HIDING: dict[str, Hide] = {
    "zero-width": _between("\u200b\u200c\u200d\u2060\ufeff"),
    "soft hyphens": _between("\u00ad"),
    "bidi controls": _between("\u202a\u202c\u2066\u2069\u200e"),
    "variation selectors": _between("\ufe00\ufe01\ufe0e", 0.4),
    "homoglyphs, Cyrillic": _some(_CYRILLIC, 0.8),
    "homoglyphs, Greek": _some(_GREEK, 0.7),
    "homoglyphs, few": _some(_CYRILLIC, 0.25),
    "full-width": lambda text, _: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "mathematical": lambda text, _: _shifted(text, 0x1D41A, 0x1D400),
    "circled": lambda text, _: _shifted(text, 0x24D0, 0x24B6),
    "squared": lambda text, _: _shifted(text.upper(), 0x1F170, 0x1F170),
    "small capitals": lambda text, _: text.lower().translate(_SMALL_CAPITALS),
    "spaced letters": lambda text, _: "   ".join(" ".join(word) for word in text.split()),
    "spaced letters, one gap": lambda text, _: " ".join(text.replace(" ", "")),
    "dashed letters": lambda text, _: " ".join("-".join(word) for word in text.split()),
    "zalgo": _zalgo(6),
    "zalgo, light": _zalgo(2),
    "alternating case": lambda text, _: "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(text)),
    "tags": lambda text, _: "Hello." + "".join(chr(0xE0000 + ord(c)) for c in text),
    "base64": lambda text, _: base64.b64encode(text.encode()).decode(),
    "base64, wrapped": lambda text, _: "\n".join(textwrap.wrap(base64.b64encode(text.encode()).decode(), 40)),
    "base64, no padding": lambda text, _: "Decode: " + base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 twice": lambda text, _: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "base32": lambda text, _: base64.b32encode(text.encode()).decode(),
    "hex": lambda text, _: text.encode().hex(),
    "hex, spaced": lambda text, _: "Decode this: " + text.encode().hex(" "),
    "hex, 0x": lambda text, _: ", ".join(f"0x{code:02x}" for code in text.encode()),
    "hex, escapes": lambda text, _: "".join(f"\\x{code:02x}" for code in text.encode()),
    "binary": lambda text, _: " ".join(f"{code:08b}" for code in text.encode()),
    "decimal": lambda text, _: " ".join(str(code) for code in text.encode()),
    "percent": lambda text, _: "".join(f"%{code:02x}" for code in text.encode()),
    "percent, quoted": lambda text, _: quote(text, safe=""),
    "HTML entities": lambda text, _: "".join(f"&#{ord(c)};" for c in text),
    "Unicode escapes": lambda text, _: "".join(f"\\u{ord(c):04x}" for c in text),
    "rot13": lambda text, _: codecs.encode(text, "rot13"),
    "rot13, asked for": lambda text, _: "Decode this from ROT13 and then answer it: " + codecs.encode(text, "rot13"),
    "Caesar": lambda text, _: "".join(chr((ord(c) - 97 + 7) % 26 + 97) if c.islower() else c for c in text.lower()),
    "Atbash": lambda text, _: "".join(chr(219 - ord(c)) if c.islower() else c for c in text.lower()),
    "reversed": lambda text, _: text[::-1],
    "leet": _some(_LEET, 1.0),
    "leet, some": _some(_LEET, 0.5),
    "Morse": lambda text, _: " / ".join(
        " ".join(_MORSE[c] for c in word if c in _MORSE) for word in text.lower().split()
    ),
    "hex in base64": lambda text, _: base64.b64encode(text.encode().hex().encode()).decode(),
    "rot13 in base64": lambda text, _: base64.b64encode(codecs.encode(text, "rot13").encode()).decode(),
}
# No reading undoes these: what they hide is at most called unreadable.
CIPHERS: dict[str, Hide] = {
    "substitution": lambda text, _: text.lower().translate(
        str.maketrans("abcdefghijklmnopqrstuvwxyz", "qxzjkvbpygfwmucldrshantoei"[::-1])
    ),
    "Vigenère": lambda text, _: "".join(
        chr((ord(c) - 97 + ord("lemonade"[i % 8]) - 97) % 26 + 97) if c.islower() else c
        for i, c in enumerate(text.lower())
    ),
    "shuffled letters": lambda text, rng: " ".join("".join(rng.sample(word, len(word))) for word in text.split()),
}


def hidden(kind: str, seed: int = 13) -> list[tuple[str, str]]:
    """(request, the request hidden) for each request."""
    rng = random.Random(f"{seed}/{kind}")
    return [(text, (HIDING | CIPHERS)[kind](text, rng)) for text in REQUESTS]
