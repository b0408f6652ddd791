"""Tables of data: words stay whole, nothing in a cell is read as markup or as an emoji code.

A table is as wide as its cells are. On a terminal that is narrower each row becomes lines of name and value, as in
psql's expanded display; piped it stays one line a row.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import typer
from rich.cells import cell_len

from alerts.text import printable


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", note: str = "", header: bool = True
) -> None:
    """A table with its title above and a note below."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    lines = _aligned([columns, *cells] if header else cells)
    if title:
        _print_bold(title)
    if cells and len(columns) > 2 and _too_wide(lines):
        for row in cells:
            _print_expanded(columns, row)
    else:
        for number, line in enumerate(lines):
            (_print_bold if header and not number else typer.echo)(line)
    if note:
        print_line(note)


def print_line(text: str = "") -> None:
    """One line of text, which the terminal breaks where it must."""
    typer.echo(printable(text))


def utc(at: datetime | None) -> str:
    """A time, whatever zone the database's server is in; empty where there is none."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if at is not None else ""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Each row as a line, with two spaces between columns and none at its end."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_padded, row, widths)).rstrip() for row in rows]


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))


def _too_wide(lines: Sequence[str]) -> bool:
    return sys.stdout.isatty() and max(map(cell_len, lines)) > shutil.get_terminal_size().columns


def _print_expanded(columns: Sequence[str], row: Sequence[str]) -> None:
    """A line for each cell that holds something, and an empty one."""
    width = max(map(cell_len, columns))
    for name, cell in zip(columns, row, strict=True):
        if cell:
            typer.echo(f"{_bold(_padded(name, width))}  {cell}")
    typer.echo()


def _print_bold(text: str) -> None:
    typer.echo(_bold(printable(text)))


def _bold(text: str) -> str:
    return text if os.environ.get("TERM") == "dumb" else typer.style(text, bold=True)
