"""`awry study report`."""

from __future__ import annotations

from pathlib import Path

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def report(studies: o.StudiesFolder = Path("docs/studies"), out: o.Out = Path("docs/study.md")) -> None:
    """Write one page: what the papers claim beside what was measured here, row by row."""
    from probes.studies.summary import write_study_page

    write_study_page(studies, out)
    say(f"written to {out}")
