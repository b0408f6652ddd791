"""The one way to make a console: what is printed is data, so nothing in it is read as markup or as an emoji code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def make_console(*, stderr: bool = False, markup: bool = False) -> Console:
    """A console that prints `threshold:gem:fire:m` and `[bold]` as they are.

    `markup` is for text of awry's own, where all data is escaped.
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=markup, emoji=False, highlight=False)
