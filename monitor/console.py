"""The one way to make a console: what is printed is data, so nothing in it is read as markup or as an emoji code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def make_console(*, stderr: bool = False, markup: bool = False, width: int | None = None) -> Console:
    """A console that prints `threshold:gem:fire:m` and `[bold]` as they are.

    `markup` is for text of awry's own, where all data is escaped. `width` is that of a console which is no terminal,
    where rich would take 80 columns and break words.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() else width
    return Console(stderr=stderr, markup=markup, emoji=False, highlight=False, width=wide)
