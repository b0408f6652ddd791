"""Tables of data: nothing in a cell is read as markup or as an emoji code, and words stay whole when piped.

On a terminal a table is as wide as the terminal and long cells are folded, never cut. Elsewhere it is as wide as its
cells are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from alerts.text import printable
from monitor.console import make_console

# Of a console that is no terminal: wider than any row.
_PIPED_WIDTH = 100_000


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", note: str = "", header: bool = True
) -> None:
    """A table with its title above and a note below."""
    table = Table(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, overflow="fold", style="bold" if not header and not number else None)
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console = make_console(width=_PIPED_WIDTH)
    if title:
        console.print(Text(printable(title), style="bold"))
    console.print(table)
    if note:
        console.print(Text(note))


def print_line(text: str = "") -> None:
    """One line of text that is not broken by awry."""
    make_console(width=_PIPED_WIDTH).print(Text(printable(text)), soft_wrap=True)


def utc(at: datetime | None) -> str:
    """A time, whatever zone the database's server is in; empty where there is none."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if at is not None else ""
