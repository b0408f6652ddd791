"""`awry settings`: what can be set, and how."""

from __future__ import annotations

import typer

from monitor.cli import options as o
from monitor.cli.output import print_json
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def settings(as_json: o.Json = False) -> None:
    """Print every setting with its environment variable, default and meaning, as a Markdown table."""
    from monitor.settings import reference

    if as_json:
        names = ("name", "environment", "default", "description")
        print_json([dict(zip(names, row, strict=True)) for row in reference()])
        return
    typer.echo("| setting | environment | default | what it is |\n|---|---|---|---|")
    for name, variable, default, description in reference():
        typer.echo(f"| `{name}` | `{variable}` | {default} | {description} |")
