"""`awry token`: who may use the HTTP API of `awry serve`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from monitor.cli.alerting import actor_of
from monitor.cli.app import app, say
from monitor.cli.connections import opened

token = typer.Typer(help="Tokens of the HTTP API: create, list, revoke.", no_args_is_help=True)
app.add_typer(token, name="token")

Url = Annotated[str | None, typer.Option(help="postgresql://...; default: embedded")]
State = Annotated[Path | None, typer.Option(help="models and the embedded database")]
Name = Annotated[str, typer.Argument(help="whose it is: the name that audits show")]
As = Annotated[str | None, typer.Option("--as", help="who does it, for the record; default: you")]


@token.command()
def create(
    name: Name,
    scope: Annotated[Literal["read", "act"], typer.Option(help="act may acknowledge, silence, judge as well")] = "read",
    lasting: Annotated[str, typer.Option("--for", help="how long it is good: 12h, 90d; a year at most")] = "90d",
    who: As = None,
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """Create a token and print its secret on standard output: this once, it is not kept."""
    from alerts.rules.durations import parse_duration
    from monitor.errors import SettingsError
    from monitor.web.auth import tokens

    try:
        duration = parse_duration(lasting)
    except ValueError as error:
        raise SettingsError(f"for: {error}") from None
    with opened(database_url, state_dir) as engine, engine.begin() as connection:
        secret = tokens.create(connection, name, scope, duration, actor_of(who))
    # Once it is there for good.
    typer.echo(secret)
    say(f"token {name} may {scope} for {lasting}; keep the secret, it is shown this once")


@token.command("list")
def list_tokens(database_url: Url = None, state_dir: State = None) -> None:
    """List all tokens, newest first, with when they were last used."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from alerts.text import printable
    from monitor.web.auth import tokens

    with opened(database_url, state_dir) as engine, engine.connect() as connection:
        rows = tokens.list_tokens(connection)
    table = Table("name", "scope", "state", "created", "by", "expires", "revoked", "last used", box=None)
    for row in rows:
        revoked = row["revoked_at"] if row["state"] == "revoked" else None
        table.add_row(
            escape(row["name"]),
            row["scope"],
            row["state"],
            _when(row["created_at"]),
            escape(printable(row["created_by"])),
            _when(row["expires_at"]),
            _when(revoked),
            _when(row["last_used_at"]),
        )
    Console().print(table)


@token.command()
def revoke(name: Name, who: As = None, database_url: Url = None, state_dir: State = None) -> None:
    """End a token at once."""
    from monitor.web.auth import tokens

    with opened(database_url, state_dir) as engine, engine.begin() as connection:
        tokens.revoke(connection, name, actor_of(who))
    say(f"token {name} is good no longer")


def _when(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at is not None else ""
