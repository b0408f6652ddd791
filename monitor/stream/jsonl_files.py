"""Which files a source of JSON lines names: paths and patterns, separated by commas.

`*`, `?`, `[...]` and `**` are a pattern's. Files come in the order in which they are named, those of one pattern oldest
modification first. A file that is found twice (a link, two patterns) is one file: it is known by device and inode.
"""

from __future__ import annotations

import glob
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import SourceError
from monitor.stream.jsonl_bytes import ByteReader, CorruptError, RewrittenError
from monitor.stream.jsonl_lines import LineSplitter

Key = tuple[int, int]

_PACKED = re.compile(r"\.(gz|zst|zstd)$")
# What logrotate and its like put after a name: .1, -20260801, -20260801-1790000000, .2026-08-01
_ROTATED = re.compile(r"([.-]\d{1,3}|[.-]\d{8}([.-]\d+)?|[.-]\d{4}-\d{2}-\d{2}([.T_-][\d.:-]+)?)$")
_IDENTITY_SEARCH = 1 << 20


@dataclass(frozen=True)
class Found:
    """`name` is the file's in coordinates."""

    path: str
    name: str
    key: Key
    modified: int
    size: int
    regular: bool = True


@dataclass(frozen=True)
class Named:
    """A path, or a pattern of paths, as a setting has it."""

    path: str
    pattern: bool


def named(source: str) -> list[Named]:
    """The paths and patterns of a setting. A file whose own name has a comma or a star is one path."""
    parts = [source] if os.path.lexists(source) else [part.strip() for part in source.split(",")]
    if not all(parts):
        raise SourceError("source: a file's name is missing: FILE[,FILE], patterns like logs/*.jsonl, or -")
    return [Named(part, any(c in part for c in "*?[") and not os.path.lexists(part)) for part in parts]


def name_of(path: str, *, of_pattern: bool = False) -> str:
    """The file's name without .gz and .zst; where a pattern found it, also without what rotation put after it."""
    name = _PACKED.sub("", Path(path).name) or Path(path).name
    return (_ROTATED.sub("", name) or name) if of_pattern else name


def find(names: Iterable[Named]) -> list[Found]:
    """The files that are there now."""
    found: dict[Key, Found] = {}
    for named in names:
        paths = glob.glob(named.path, recursive=True) if named.pattern else [named.path]  # noqa: PTH207
        each = [f for f in (_found(path, named.pattern) for path in paths) if f is not None]
        for file in sorted(each, key=lambda f: (f.modified, f.path)):
            if file.regular or not named.pattern:
                found.setdefault(file.key, file)
    return list(found.values())


def _found(path: str, of_pattern: bool) -> Found | None:
    try:
        about = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    key, regular = (about.st_dev, about.st_ino), stat.S_ISREG(about.st_mode)
    return Found(path, name_of(path, of_pattern=of_pattern), key, about.st_mtime_ns, about.st_size, regular)


def open_file(path: str) -> io.FileIO:
    try:
        return io.FileIO(path, "r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not readable"
        raise SourceError(f"source: cannot read {path} ({reason})") from error


def siblings(paths: Iterable[str]) -> Iterator[tuple[str, Found]]:
    """Files beside `paths`, each with its path, whose names go on after that name with `.` or `-`: where rotation
    puts old content."""
    folders: dict[Path, dict[str, str]] = {}
    for path in paths:
        folders.setdefault(Path(path).parent, {})[Path(path).name] = path
    for folder, names in folders.items():
        try:
            entries = [entry.name for entry in os.scandir(folder)]
        except OSError:
            continue
        for entry in entries:
            of = [entry[:i] for i, c in enumerate(entry) if c in ".-" and entry[:i] in names]
            found = _found(str(folder / entry), True) if of else None
            if found is not None and found.regular:
                yield names[of[-1]], found


def identity_in(path: str) -> str | None:
    """The identity of a file's log; None where it has none yet, or cannot be read."""
    try:
        reader = ByteReader(io.FileIO(path, "r"))
    except OSError:
        return None
    lines = LineSplitter(_IDENTITY_SEARCH)
    try:
        while lines.identity is None and lines.offset + lines.unfinished <= _IDENTITY_SEARCH:
            piece = reader.read()
            if not piece:
                break
            lines.feed(piece)
    except (OSError, CorruptError, RewrittenError):
        pass
    finally:
        reader.close()
    return lines.identity
