"""`awry export`: scores, messages and alerts as files for other programs."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def export(
    kind: o.ExportedKind,
    out: o.ExportOut,
    since: o.SinceTime = None,
    until: o.UntilTime = None,
    file_format: o.ExportFormat = None,
    text: o.WithText = False,
    actor: o.Actor = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Write scores, messages or alerts as Parquet, CSV or JSON lines; one snapshot, in bounded memory.

    The file appears under its name when it is complete. Texts are left out, unless --text asks for those that are
    stored.
    """
    from alerts.lifecycle.audit import write_audit_row
    from monitor.cli.inputs import actor_of, moment_of, opened
    from monitor.errors import SettingsError
    from monitor.export_files import FORMATS, format_of, into, write
    from storage.export import columns, rows

    chosen = file_format or format_of(out)
    if chosen is None:
        raise SettingsError(f"format: give one of {', '.join(FORMATS)}, or end --out with it")
    if text and kind != "messages":
        raise SettingsError("text: messages have it; export those")
    first, last = moment_of("since", since), moment_of("until", until)
    with opened(database_url, state_dir) as engine:
        if text:
            asked = {"kind": kind, "since": first and first.isoformat(), "until": last and last.isoformat()}
            with engine.begin() as connection:
                write_audit_row(connection, actor_of(actor), "export.text", after=asked)
        with into(out) as file:
            number = write(rows(engine, kind, first, last, with_text=text), columns(kind, text=text), chosen, file)
    say(f"{number} {kind} written")
