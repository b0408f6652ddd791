"""The `awry` command. torch and transformers are imported where they are used, so that --help answers at once."""

from __future__ import annotations

import sys

import typer

app = typer.Typer(
    name="awry",
    help="Tells when a language model goes awry, by reading the model's own activations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def register() -> None:
    """Import what adds the commands to `app`."""
    from monitor.cli import (  # noqa: F401 - they register
        alerting,
        database,
        grafana,
        models,
        outbox,
        rules,
        science,
        service,
        stream,
        study,
        tokens,
    )


def main() -> None:
    """Entry point: known errors become one clear line and exit status 1; Ctrl-C exits 130 outside the worker."""
    register()
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
    """The message of an error that awry raises on purpose; None for a defect. Matched without heavy imports."""
    families = {"MonitorError", "ProbesError", "StorageError", "AlertsError"}
    if any(base.__name__ in families for base in type(error).__mro__):
        return str(error)
    return None


def say(text: str) -> None:
    """What awry is waiting for, on standard error."""
    typer.echo(f"awry: {text}", err=True)
