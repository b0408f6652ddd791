"""Finds runs of text in an encoding: base64, base32, hex, binary and decimal codes, percent, entities, escapes, tags.

Contract: each finder yields `Span(kind, start, stop, text)` with what the run decodes to, in linear time. That it is
text (`text_of`) is sure, that it is language is not: `probes.hidden.decode` asks that, and decodes what is nested.

Images, keys, hashes, signatures and UUIDs are no text: their bytes are no UTF-8. The first bytes of a long run decide,
so an image costs its length once, in a regular expression.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from probes.hidden.likeness import text_of, without_surrogates
from probes.hidden.shape import Shape


@dataclass(frozen=True)
class Span:
    """A run of text and what it decodes to."""

    kind: str
    start: int
    stop: int
    text: str


Finder = Callable[[str], Iterator[Span]]

_HEAD = 96
_SIGNS = r"A-Za-z0-9+/_\-"
_BASE64 = re.compile(rf"(?<![{_SIGNS}])[{_SIGNS}]{{16,}}+(?:\r?\n[ \t>]{{0,8}}[{_SIGNS}]++(?=[=\s]|$))*+={{0,3}}")
# In groups of the same length, such as four.
_GROUPED = re.compile(
    r"(?<!\S)(?:[A-Za-z0-9+/]{4}(?: [A-Za-z0-9+/]{4}){3,}+|[A-Za-z0-9+/]{8}(?: [A-Za-z0-9+/]{8}){2,}+)"
    r"(?: [A-Za-z0-9+/]{1,7})?={0,2}(?!\S)"
)
_BASE32 = re.compile(r"(?<![A-Za-z0-9])[A-Z2-7]{16,}+={0,6}(?![A-Za-z0-9])")
_PARTS = re.compile(r"[A-Za-z0-9+]{12,}+={0,2}")
_FILES = (
    b"\x89PNG",
    b"\xff\xd8",
    b"GIF8",
    b"%PDF",
    b"PK\x03",
    b"\x1f\x8b",
    b"RIFF",
    b"OggS",
    b"<svg",
    b'{"alg"',
    b'{"typ"',
)

_HEX = re.compile(
    r"(?<![0-9A-Za-z])(?:0x|\\x|x)?[0-9A-Fa-f]{2}(?:[\s,:;\-]{0,2}(?:0x|\\x|x)?[0-9A-Fa-f]{2}){5,}+(?![0-9A-Za-z])"
)
_NO_HEX = re.compile(r"0x|\\x|x|[^0-9A-Fa-f]")
_BINARY = re.compile(r"(?<![0-9A-Za-z])[01]{7,8}(?:[ ,\n]{0,2}[01]{7,8}){3,}+(?![0-9A-Za-z])")
_DECIMAL = re.compile(r"(?<![\w.])\d{2,3}(?:[ ,;\n]{1,2}\d{2,3}){5,}+(?![\w.])")
_PERCENT = re.compile(r"(?<![^\s\"'<>()%])(?:[^\s\"'<>()%]{0,80}%[0-9A-Fa-f]{2}){3,}+[^\s\"'<>()%]{0,80}")
_ONE_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})")
_ENTITY = re.compile(r"&#(?:[xX][0-9A-Fa-f]{1,6}|\d{1,7});?")
_ESCAPE = re.compile(
    r"\\u\{(?P<a>[0-9A-Fa-f]{1,6})\}|\\u(?P<b>[0-9A-Fa-f]{4})|\\U(?P<c>[0-9A-Fa-f]{8})|\\x(?P<d>[0-9A-Fa-f]{2})"
    r"|\\(?P<o>[0-7]{3})|[Uu]\+(?P<e>[0-9A-Fa-f]{4,6}) ?"
)
_GAP = 16
_FEWEST = 3
_FEWEST_DIGITS = 4
_FEWEST_BITS = 28
_FEWEST_SIGNS = 16
_TAGS = re.compile("[\U000e0020-\U000e007e]{4,}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")


def base64_runs(text: str) -> Iterator[Span]:
    """Base64 of either alphabet, in lines, with or without padding."""
    for match in _BASE64.finditer(text):
        yield from _of_run(text, match.start(), match.end())


def grouped_base64_runs(text: str) -> Iterator[Span]:
    """Base64 in groups of one length."""
    for match in _GROUPED.finditer(text):
        found = _from_base64(match[0].replace(" ", ""))
        if found:
            yield Span("base64", match.start(), match.end(), found)


def _of_run(text: str, start: int, stop: int) -> Iterator[Span]:
    """What a run of the alphabet holds: all of it, it without the words after it, or parts between slashes."""
    run = text[start:stop]
    if _bytes_of(run[:_HEAD]).startswith(_FILES):
        return
    lines = run.splitlines(keepends=True)
    for kept in dict.fromkeys((len(lines), len(lines) - 1, 1)):
        if kept > 0:
            part = "".join(lines[:kept]).rstrip()
            found = _from_base64(re.sub(r"[\s>]", "", part))
            if found:
                yield Span("base64", start, start + len(part), found)
                return
    if len(lines) == 1 and re.search(r"[/_-]", run):
        for match in _PARTS.finditer(run):
            found = _from_base64(match[0])
            if found:
                yield Span("base64", start + match.start(), start + match.end(), found)


def _from_base64(run: str) -> str | None:
    run = run.rstrip("=").replace("-", "+").replace("_", "/")
    head = _bytes_of(run[:_HEAD])
    if not head or text_of(head) is None:
        return None
    return text_of(head if len(run) <= _HEAD else _bytes_of(run))


def _bytes_of(run: str) -> bytes:
    run = run[: len(run) - 1] if len(run) % 4 == 1 else run
    try:
        return base64.b64decode(run + "=" * (-len(run) % 4))
    except (binascii.Error, ValueError):
        return b""


def base32_runs(text: str) -> Iterator[Span]:
    """Base32 in capitals."""
    for match in _BASE32.finditer(text):
        run = match[0].rstrip("=")
        run = run[: len(run) - (len(run) % 8 in (1, 3, 6))]
        try:
            found = text_of(base64.b32decode(run + "=" * (-len(run) % 8)))
        except (binascii.Error, ValueError):
            continue
        if found:
            yield Span("base32", match.start(), match.end(), found)


def hex_runs(text: str) -> Iterator[Span]:
    """Bytes in hex, with prefixes and signs between them or without."""
    for match in _HEX.finditer(text):
        digits = _NO_HEX.sub("", match[0])
        head = text_of(bytes.fromhex(digits[: _HEAD // 2 * 2]))
        found = text_of(bytes.fromhex(digits[: len(digits) // 2 * 2])) if head else None
        if found:
            yield Span("hex", match.start(), match.end(), found)


def binary_runs(text: str) -> Iterator[Span]:
    """Bytes as seven or eight binary digits."""
    for match in _BINARY.finditer(text):
        codes = match[0].replace(",", " ").split()
        digits = "".join(codes)
        width = 7 if {len(code) for code in codes} == {7} or len(digits) % 8 else 8
        data = bytes(int(digits[at : at + width], 2) for at in range(0, len(digits) - width + 1, width))
        found = text_of(data)
        if found:
            yield Span("binary", match.start(), match.end(), found)


def decimal_runs(text: str) -> Iterator[Span]:
    """Codes of ASCII characters as decimal numbers."""
    for match in _DECIMAL.finditer(text):
        codes = [int(code) for code in re.findall(r"\d+", match[0])]
        if all(32 <= code < 127 or code in (10, 13) for code in codes):
            yield Span("decimal", match.start(), match.end(), bytes(codes).decode("ascii"))


def percent_runs(text: str) -> Iterator[Span]:
    """Percent-encoded text: letters that are encoded, or the spaces of a sentence."""
    for match in _PERCENT.finditer(text):
        codes = [int(code[1:], 16) for code in _ONE_PERCENT.findall(match[0])]
        letters = sum(chr(code).isalpha() for code in codes)
        if letters < _FEWEST and codes.count(32) < _FEWEST:
            continue
        found = text_of(unquote_to_bytes(match[0]))
        if found:
            yield Span("percent", match.start(), match.end(), found)


def entity_runs(text: str) -> Iterator[Span]:
    """Numeric entities of HTML."""
    yield from _regions("html", _ENTITY, lambda match: html.unescape(match[0].rstrip(";") + ";"), text)


def escape_runs(text: str) -> Iterator[Span]:
    """Escapes of programming languages and of Unicode's notation."""
    yield from _regions("escapes", _ESCAPE, _unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    digits = next(filter(None, (match["a"], match["b"], match["c"], match["d"], match["e"])), None)
    code = int(digits, 16) if digits else int(match["o"], 8)
    return chr(code) if code < 0x110000 else ""


def _regions(kind: str, pattern: re.Pattern[str], decode: Callable[[re.Match[str]], str], text: str) -> Iterator[Span]:
    """Where encoded characters are near each other, from the first to the last, if they are letters."""
    group: list[re.Match[str]] = []
    for match in (*pattern.finditer(text), None):
        if group and (match is None or match.start() - group[-1].end() > _GAP):
            start, stop = group[0].start(), group[-1].end()
            letters = [decode(each) for each in group]
            plain = sum(letter.isascii() and letter.isalpha() for letter in letters)
            if plain >= _FEWEST or sum(map(str.isalpha, letters)) >= max(4, 0.5 * (stop - start) / 6):
                while stop < len(text) and text[stop].isalnum() and stop < group[-1].end() + _GAP:
                    stop += 1
                while start and text[start - 1].isalnum() and start > group[0].start() - _GAP:
                    start -= 1
                yield Span(kind, start, stop, without_surrogates(pattern.sub(decode, text[start:stop])))
            group = []
        if match is not None:
            group.append(match)


def tag_runs(text: str) -> Iterator[Span]:
    """Text in characters that show nothing: tags, and bytes as variation selectors."""
    for match in _TAGS.finditer(text):
        if text[match.start() - 1 : match.start()] != "\U0001f3f4":
            yield Span("invisible", match.start(), match.end(), "".join(chr(ord(each) - 0xE0000) for each in match[0]))
    for match in _SELECTORS.finditer(text):
        codes = [ord(each) for each in match[0]]
        found = text_of(bytes(code - 0xFE00 if code < 0xFE10 else code - 0xE0100 + 16 for code in codes))
        if found:
            yield Span("invisible", match.start(), match.end(), found)


# Whether a text can hold the encoding at all, and the finder.
FINDERS: tuple[tuple[Callable[[str, Shape], bool], Finder], ...] = (
    (lambda _text, shape: not shape.ascii, tag_runs),
    (lambda text, _shape: "&#" in text, entity_runs),
    (lambda text, _shape: "\\" in text or "u+" in text or "U+" in text, escape_runs),
    (lambda text, _shape: text.count("%") >= _FEWEST, percent_runs),
    (lambda _text, shape: shape.digits >= _FEWEST_DIGITS, hex_runs),
    (lambda _text, shape: shape.digits >= _FEWEST_BITS, binary_runs),
    (lambda _text, shape: shape.digits >= _FEWEST_BITS // 2, decimal_runs),
    (lambda _text, shape: shape.capitals >= _FEWEST_SIGNS // 2 and shape.longest >= _FEWEST_SIGNS, base32_runs),
    (lambda _text, shape: shape.longest >= _FEWEST_SIGNS, base64_runs),
    (lambda _text, shape: shape.digits > 0 and shape.capitals >= _FEWEST, grouped_base64_runs),
)
