"""Families that encode a message and ask for the decoding: base64, hex, rot13, percent.

Contract: the payload decodes to the message's UTF-8 text (rot13: of its ASCII letters); a carrier's words stand around
it, or none. Parts are split by carrier.
"""

from __future__ import annotations

import base64
import codecs
import random
import textwrap
from collections.abc import Callable
from urllib.parse import quote

from probes.attacks.base import Family, Materials, Wording
from probes.attacks.phrases import words

Encode = Callable[[str], str]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _percent_all(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _hex(text: str, *, before: str = "", between: str = "") -> str:
    return between.join(f"{before}{byte:02x}" for byte in text.encode())


FORMS: dict[str, dict[str, Encode]] = {
    "base64": {
        "one line": _base64,
        "lines of 76": lambda text: "\n".join(textwrap.wrap(_base64(text), 76)),
        "without padding": lambda text: _base64(text).rstrip("="),
        "URL-safe": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    },
    "hex": {
        "one word": _hex,
        "bytes apart": lambda text: _hex(text, between=" "),
        "upper case": lambda text: _hex(text).upper(),
        "0x before each byte": lambda text: _hex(text, before="0x", between=" "),
        "escapes": lambda text: _hex(text, before="\\x"),
        "colons": lambda text: _hex(text, between=":"),
    },
    "rot13": {"all letters": lambda text: codecs.encode(text, "rot13")},
    "percent": {
        "every byte": _percent_all,
        "every byte, lower case": lambda text: _percent_all(text).lower(),
        "all but letters": lambda text: quote(text, safe=""),
    },
}
# What carriers call an encoding.
NAMES = {"base64": "Base64", "hex": "hexadecimal", "rot13": "ROT13", "percent": "URL encoding"}


def _make(name: str) -> Callable[[Materials], list[Wording]]:
    def make(_materials: Materials) -> list[Wording]:
        return [
            Wording(
                f"{form}: {carrier.replace('{name}', NAMES[name])}", text=_change(encode, carrier, name), key=carrier
            )
            for form, encode in FORMS[name].items()
            for carrier in words("carriers")
        ]

    return make


def _change(encode: Encode, carrier: str, name: str) -> Callable[[str, random.Random], str]:
    before, _, after = carrier.replace("{name}", NAMES[name]).partition("{payload}")

    def change(text: str, _rng: random.Random) -> str:
        return before + encode(text) + after

    return change


FAMILIES = (
    Family("base64", "the message in Base64", _make("base64")),
    Family("hex", "the message in hexadecimal", _make("hex"), holds_out=True),
    Family("rot13", "the message with its letters moved by 13", _make("rot13")),
    Family("percent", "the message in percent-encoding", _make("percent"), holds_out=True),
)
