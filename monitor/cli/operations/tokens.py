"""`awry tokens`: who may use the HTTP API of `awry serve`, and who may send to `awry ingest`."""

from __future__ import annotations

import typer

from monitor.cli import options as o
from monitor.cli.inputs import actor_of, duration_of, reading, writing
from monitor.cli.output import print_json, say
from monitor.cli.tree import Commands

commands = Commands("Tokens of the HTTP API and of awry ingest: create, list, revoke.")


@commands.command()
def create(
    name: o.TokenName,
    scope: o.TokenScope = "read",
    tenant: o.TokenTenant = None,
    lasting: o.For = "90d",
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Create a token and print its secret on standard output: this once, it is not kept. It lasts a year at most."""
    from monitor.web.auth import tokens

    duration = duration_of("for", lasting)
    with writing(database_url, state_dir) as connection:
        secret = tokens.create(connection, name, scope, duration, actor_of(actor), tenant)
    # Only when it is committed.
    typer.echo(secret)
    of = f" of tenant {tenant}" if tenant is not None else ""
    say(f"token {name} may {scope}{of} for {lasting}; keep the secret, it is shown this once")


@commands.command("list")
def list_tokens(as_json: o.Json = False, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """List all tokens, newest first, with when they were last used."""
    from monitor.cli.render.tokens import print_tokens
    from monitor.web.auth import tokens

    with reading(database_url, state_dir) as connection:
        rows = tokens.list_tokens(connection)
    (print_json if as_json else print_tokens)(rows)


@commands.command()
def revoke(
    name: o.TokenName, actor: o.Actor = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """End a token at once."""
    from monitor.web.auth import tokens

    with writing(database_url, state_dir) as connection:
        tokens.revoke(connection, name, actor_of(actor))
    say(f"token {name} is good no longer")
