"""`awry config`: what is set, where it comes from, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from monitor.cli import options as o
from monitor.cli.output import print_json, say
from monitor.cli.processes.run import RunFlags, settings_flags
from monitor.cli.tree import Commands, takes

commands = Commands("Settings: check them, show what counts and where it comes from, list all there are.")


@dataclass(frozen=True, kw_only=True)
class ShowFlags(RunFlags):
    """Those of awry run: what it would do with them."""

    as_json: o.Json = False


@commands.command()
def check(file: o.ConfigFile = None, as_json: o.Json = False) -> None:
    """Name every fault of the settings and of what they name, each with its file, line and fix.

    Looks at awry.toml (or the file that AWRY_CONFIG names, or FILE), the environment, files of secrets, rules,
    expressions, probes, certificates and folders. Connects to nothing: awry doctor does. Exit status 1: there are
    faults.
    """
    from monitor.cli.render.config import fault_document, print_faults
    from monitor.config.check import check as check_all

    checked = check_all(file)
    if as_json:
        print_json([fault_document(fault) for fault in checked.faults])
    else:
        print_faults(checked.faults)
    where = checked.given.file or "no settings file"
    say(f"{where} and the environment: {len(checked.faults) or 'no'} fault{'s' * (len(checked.faults) != 1)}")
    if checked.faults:
        raise typer.Exit(1)


@commands.command()
@takes(ShowFlags)
def show(flags: ShowFlags) -> None:
    """Print the value of every setting that counts, and the place that it comes from. Secrets are masked.

    With flags of awry run it shows what awry run would use.
    """
    from monitor.cli.render.config import print_shown, shown_document
    from monitor.config.show import show as show_all
    from monitor.settings import gathered, load_settings

    given = settings_flags(flags)
    as_json = given.pop("as_json")
    shown = show_all(load_settings(**given), gathered({k: v for k, v in given.items() if v is not None}))
    if as_json:
        print_json([shown_document(each) for each in shown])
    else:
        print_shown(shown)


@commands.command("list")
def list_settings(as_json: o.Json = False) -> None:
    """Print every setting with its environment variable, default and meaning, as a Markdown table."""
    from monitor.settings import reference

    if as_json:
        names = ("name", "environment", "default", "description")
        print_json([dict(zip(names, row, strict=True)) for row in reference()])
        return
    typer.echo("| setting | environment | default | what it is |\n|---|---|---|---|")
    for name, variable, default, description in reference():
        typer.echo(f"| `{name}` | `{variable}` | {default} | {description} |")
