"""Findings of `awry doctor`, a line each, and a line with what to do."""

from __future__ import annotations

import typer

from monitor.cli.render.tables import print_line
from monitor.doctor.finding import Finding

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "fault": typer.colors.RED}


def print_finding(finding: Finding) -> None:
    """The level is coloured on a terminal."""
    typer.echo(typer.style(f"{finding.level:<7}", fg=_COLOURS[finding.level]), nl=False)
    print_line(f"  {finding.part}: {finding.found}")
    if finding.do:
        print_line(f"{'':<9}do: {finding.do}")
