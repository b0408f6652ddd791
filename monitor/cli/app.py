"""The `awry` command: the tree of all commands, and what becomes of errors.

torch, transformers and SQLAlchemy are imported where they are used, so that --help responds at once.
"""

from __future__ import annotations

import sys
from types import ModuleType

import typer

from awry.errors import AwryError
from monitor.cli import options as o
from monitor.cli.operations import (
    alerts,
    check,
    check_server,
    config,
    db,
    deploy,
    doctor,
    erase,
    export,
    grafana,
    messages,
    outbox,
    rules,
    tokens,
)
from monitor.cli.processes import demo, ingest, kafka, replay, run, score_server, send, serve
from monitor.cli.research import adapters, attack, calibrate, data, evaluate, fit, label, models, probes, sweep
from monitor.cli.research.study import detectors, direction, heads, planted_heads, report, safety_heads, transfer
from monitor.cli.tree import Commands, Root

app = typer.Typer(
    name="awry",
    cls=Root,
    help="Tells when a language model goes awry, by reading the model's own activations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
study = Commands("Find out what a model's activations say and do, with controls.")
for _study in (direction, transfer, heads, safety_heads, planted_heads, detectors, report):
    study.add_typer(_study.commands)
# Nouns that are collections are plural; there is one outbox and one database.
_PANELS: dict[str, tuple[tuple[ModuleType, str | None], ...]] = {
    "Processes": tuple((module, None) for module in (run, ingest, send, serve, score_server, replay, kafka, demo)),
    "Operations": (
        (alerts, "alerts"),
        (rules, "rules"),
        (outbox, "outbox"),
        (messages, "messages"),
        (tokens, "tokens"),
        (db, "db"),
        (deploy, "deploy"),
        (grafana, "grafana"),
        (config, "config"),
        (check, None),
        (check_server, None),
        (doctor, None),
        (export, None),
        (erase, None),
    ),
    "Research": (
        (models, "models"),
        (adapters, "adapters"),
        (probes, "probes"),
        *((module, None) for module in (data, label, fit, evaluate, attack, calibrate, sweep)),
    ),
}
for _panel, _modules in _PANELS.items():
    for _module, _noun in _modules:
        if _noun is None:  # its commands become the root's
            for _command in _module.commands.registered_commands:
                _command.rich_help_panel = _panel
        app.add_typer(_module.commands, name=_noun, rich_help_panel=_panel)
app.add_typer(study, name="study", rich_help_panel="Research")


@app.callback(invoke_without_command=True)
def _root(version: o.Version = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"awry {version_of('awry')}")
        raise typer.Exit


def main() -> None:
    """Entry point: known errors become one clear line and exit status 1; Ctrl-C exits 130 outside the worker."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message = known_error(error)
        if message is None:
            raise
        sys.stderr.write(f"awry: {message}\n")
        sys.exit(1)


def known_error(error: Exception) -> str | None:
    """The message of an error that awry raises on purpose; None for a defect."""
    return str(error) if isinstance(error, AwryError) else None
