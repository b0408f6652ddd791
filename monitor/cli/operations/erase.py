"""`awry erase`: a person, a tenant, a conversation or a message out of everything that awry keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from monitor.settings import Settings
    from monitor.stream.spool_erase import Waiting
    from storage.erasures import Recorded, Target

commands = Commands()

# What awry cannot reach.
_ELSEWHERE = (
    "not reached: the source (topics, files), topics and files of dead letters, verdicts, answers and readings; what "
    "destinations were sent; logs of other programs; exports; backups and the server's archive, where awry erase "
    "--replay repeats it after a restore. docs/privacy.md says how to find it there"
)


@commands.command()
def erase(
    user: o.UserName = None,
    tenant: o.TenantName = None,
    message_id: o.MessageIdName = None,
    conversation: o.ConversationName = None,
    replay: o.ReplayErasures = None,
    record: o.RecordErasures = None,
    yes: o.Yes = False,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Say what there is of a user, a tenant, a conversation or a message id; with --yes, erase it.

    Messages, scores, answers, alerts with their events, silences, texts in the audit, sums of a tenant, the spool: each
    erased message leaves a tombstone, so that it is not stored again. Workers may run on; after an interruption start
    it again. The audit tells what was erased, and not whose it was.
    """
    from monitor.errors import SettingsError
    from monitor.settings import load_settings
    from storage.erasures import Target

    given: dict[Any, str | None] = {"user": user, "tenant": tenant, "id": message_id, "conversation": conversation}
    targets = [Target(kind, value) for kind, value in given.items() if value is not None]
    if len(targets) + (replay is not None) != 1 and not (record is not None and not targets and replay is None):
        raise SettingsError("erase: give one of --user, --tenant, --id, --conversation, --replay; or --record alone")
    if any(not target.value for target in targets):
        raise SettingsError(f"{targets[0].kind}: is empty")
    if record is not None:
        _check_record(record)
    settings = load_settings(database_url=database_url, state_dir=state_dir)
    with _opened(settings) as engine:
        if replay is not None:
            _replay(engine, settings, replay, actor, yes=yes)
        for target in targets:
            _erase(engine, settings, target, actor, yes=yes)
        if record is not None:
            _record(engine, record)
    if targets or replay is not None:
        say(_ELSEWHERE)


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    from monitor.cli.inputs import opened_by

    with opened_by(settings) as engine:
        yield engine


def _erase(
    engine: Engine, settings: Settings, target: Target, actor: str | None, *, yes: bool, erasure_id: Any = None
) -> None:
    from storage.erase import erase as erase_rows
    from storage.erase_preview import preview

    folder, waiting = _spool(settings, target)
    if not yes:
        counted = preview(engine, target)
        _say_rows(counted, "would be erased or changed")
        if waiting:
            say(f"{len(waiting)} messages wait in the spool")
        if not counted and not waiting:
            say(f"nothing is stored of this {target.kind}")
        say("nothing was changed; --yes erases it")
        return
    from monitor.stream.spool_erase import blank

    _audit(engine, actor, "erase.start", {"by": target.kind})
    source = _spool_source(engine, folder) if waiting else ""
    done = erase_rows(
        engine,
        target,
        erasure_id=erasure_id,
        waiting=[each.tombstone(source) for each in waiting],
        on_day=lambda day, rows: say(f"{day}: {rows} messages erased"),
    )
    blanked = blank(folder, waiting)
    rows = done.rows | ({"spool": blanked} if blanked else {})
    _audit(engine, actor, "erase.end", {"by": target.kind, "erasure": str(done.id), "rows": rows})
    _say_rows(done.rows, "erased or changed")
    if waiting:
        shared = sum(each.shared for each in waiting)
        say(
            f"{blanked} lines of the spool erased"
            + (f"; {shared} messages are in lines with others'" if shared else "")
        )
    say(f"erasure {done.id} is done")


def _replay(engine: Engine, settings: Settings, path: Path, actor: str | None, *, yes: bool) -> None:
    from storage.erasures import restore_tombstones, targets

    recorded = _read(path)
    with engine.connect() as connection:
        found = targets(connection, recorded)
    if not recorded.whole:
        say("the file does not say how much it has, as an older awry wrote it: whether it is whole cannot be told")
    say(f"{len(recorded.erasures)} erasures and {len(recorded.tombstones)} tombstones are recorded")
    say(f"{len(found)} names that were erased are here{' again' if found else ''}")
    if not yes:
        say("nothing was changed; --yes repeats the erasures")
        return
    with engine.begin() as connection:
        added = restore_tombstones(connection, recorded)
    say(f"{added} tombstones were missing and are back")
    for erasure_id, target in found:
        _erase(engine, settings, target, actor, yes=True, erasure_id=erasure_id)


def _read(path: Path) -> Recorded:
    from monitor.errors import SourceError
    from storage.erasures import read

    try:
        with path.open(encoding="utf-8") as file:
            return read(file)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SourceError(f"replay: cannot read {path} ({why})") from None


def _check_record(path: Path) -> None:
    """Before anything is erased: the record can be written."""
    from monitor.cli.early import check_file_out
    from monitor.errors import SettingsError

    if str(path) == "-":
        return
    check_file_out("record", path)
    if path.exists() and not path.is_file():
        raise SettingsError(f"record: {path} is no regular file; name one, or - for standard output")
    try:
        # What `_record` does: a file beside it.
        with TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise SettingsError(f"record: cannot write into {path.absolute().parent} ({error.strerror})") from None


def _record(engine: Engine, path: Path) -> None:
    from monitor.errors import OutputError
    from monitor.export_files import into
    from storage.erasures import lines

    number = 0
    try:
        with into(str(path)) as file, engine.connect() as connection:
            for line in lines(connection):
                file.write(line.encode() + b"\n")
                number += 1
    except OutputError as error:
        why = str(error).removeprefix("out: ")
        raise OutputError(f"record: {why}; what was erased is erased: awry erase --record FILE writes it") from None
    # Without the first and the last line.
    say(f"{number - 2} erasures and tombstones written to {path}")


def _spool(settings: Settings, target: Target) -> tuple[Path, list[Waiting]]:
    """The spool's folder, and the target's messages in it."""
    from monitor.stream.parse import Parsed
    from monitor.stream.spool_erase import find
    from monitor.stream.wire import Invalid
    from monitor.stream.wiring import SPOOL, parse_options
    from storage.coordinates import clean

    def wanted(message: Parsed) -> bool:
        own = message.message_id if isinstance(message, Invalid) else message.id
        names = {"user": message.user, "tenant": message.tenant, "conversation": message.conversation_id, "id": own}
        return bool(clean(names[target.kind]) == target.value)

    folder = settings.state_dir / SPOOL
    return folder, find(folder, wanted, parse_options(settings))


def _spool_source(engine: Engine, folder: Path) -> str:
    """The name that the spool's messages have in the tables."""
    from sqlalchemy import select

    from monitor.stream.spool_folder import prepare
    from storage.schema import sources

    query = select(sources.c.name).where(sources.c.stream == "ingest", sources.c.log == prepare(folder))
    with engine.connect() as connection:
        name = connection.execute(query.order_by(sources.c.first_seen_at).limit(1)).scalar()
    return str(name) if name is not None else "ingest"


def _say_rows(rows: dict[str, int], what: str) -> None:
    for name, number in rows.items():
        say(f"{name}: {number} rows {what}")


def _audit(engine: Engine, actor: str | None, action: str, after: dict[str, Any]) -> None:
    from alerts.lifecycle.audit import write_audit_row
    from monitor.cli.inputs import actor_of

    with engine.begin() as connection:
        write_audit_row(connection, actor_of(actor), action, after=after)
