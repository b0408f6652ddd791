"""Line numbers in a TOML document.

Contract: `locate(text)` maps a path such as ("rate", 1, "severity", "error") to the line of its key, and a path of a
table to the line of its header, for a document that `tomllib` has read. It recognises headers and keys at the
beginning of a line, which is how rules are written; anything deeper in a value gets the line of the path above it
(`line_of`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_.\s-]|"[^"]*"|'[^']*')+?)\s*=""")
_QUOTES = re.compile(r"\"\"\"|'''")


def locate(text: str) -> dict[Path, int]:
    """Path to line, from 1."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    at: Path = ()
    inside: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        was_inside = inside is not None
        for quotes in _QUOTES.findall(line):
            inside = quotes if inside is None else None if inside == quotes else inside
        if was_inside:
            continue
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None and key is None:
            at = _header_path(_parts(header[2]), counts, new=header[1] == "[[")
            for length in range(1, len(at) + 1):
                lines.setdefault(at[:length], number)
        elif key is not None:
            path = at + tuple(_parts(key[1]))
            for length in range(len(at) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
    return lines


def line_of(lines: dict[Path, int], path: Sequence[str | int]) -> int | None:
    """The line of a path, or of the nearest one above it."""
    whole = tuple(path)
    return next((lines[whole[:n]] for n in range(len(whole), 0, -1) if whole[:n] in lines), None)


def _header_path(parts: list[str], counts: dict[Path, int], *, new: bool) -> Path:
    """The path of a header: names of arrays of tables are followed by the index of their newest table."""
    at: Path = ()
    for i, part in enumerate(parts):
        at = (*at, part)
        if new and i == len(parts) - 1:
            counts[at] = counts.get(at, -1) + 1
        if at in counts:
            at = (*at, counts[at])
    return at


def _parts(written: str) -> list[str]:
    """`a."b.c"` as its two names."""
    try:
        value: object = tomllib.loads(f"{written} = 0")
    except tomllib.TOMLDecodeError:
        return [written]
    parts = []
    while isinstance(value, dict):
        ((name, value),) = value.items()
        parts.append(name)
    return parts
