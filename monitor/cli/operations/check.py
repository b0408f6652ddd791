"""`awry check`: what awry reads of a stream, without a model and without storing anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from monitor.settings import Settings
    from monitor.stream.record import Record, Source

commands = Commands()
_TOPIC_RECORDS = 20
_BOM = b"\xef\xbb\xbf"
_OPENED = (b"{", b"[", b"[{")


@commands.command()
def check(
    source: o.CheckedSource,
    format: o.Format = None,
    start_from: o.StartFrom = None,
    limit: o.RecordLimit = None,
    as_json: o.Json = False,
    state_dir: o.StateDir = None,
) -> None:
    """Say for each message of a stream what would be read of it: format, names, turns, what is dropped, or why nothing.

    Takes what awry run takes as a source, and its settings; spool is what awry ingest keeps for a worker, which may run
    meanwhile. Of a topic it reads the last 20 records (--limit, --from), in no group and without committing. No text of
    a message is printed. Exit status 1: a message could not be read.
    """
    from monitor.cli.render.checked import Summary, document, print_checked, print_document
    from monitor.cli.render.tables import print_line
    from monitor.settings import load_settings
    from monitor.stream.parse import Parser
    from monitor.stream.wiring import parse_options

    settings = load_settings(source=source, format=format, start_from=start_from, follow=False, state_dir=state_dir)
    parser = Parser(parse_options(settings))
    summary = Summary()
    for record in _records(settings, limit):
        if record.tombstone:
            summary.tombstones += 1
            continue
        parsed = None if record.payload is None else parser(record.payload, record.headers)
        for line in document(record, parsed, settings.privacy, settings.attribute_keys):
            summary.add(line)
            (print_document if as_json else print_checked)(line)
        if parsed == [] and not as_json:
            print_line(f"{record.at}  -  no message")
        summary.records += 1
    say(summary.text)
    if summary.invalid:
        raise typer.Exit(1)


def _records(settings: Settings, limit: int | None) -> Iterator[Record]:
    from monitor.stream.wiring import SPOOL, check_source, cluster_of, open_source, topics_of

    topics = topics_of(settings)
    if topics:
        from monitor.stream.kafka.sample import sample
        from monitor.stream.kafka.start_offset import parse_start

        start = parse_start(settings.start_from or "latest")
        yield from sample(cluster_of(settings), topics, start, limit or _TOPIC_RECORDS, settings.max_message_bytes)
        return
    check_source(settings)
    source = _spool(settings) if settings.source == SPOOL else open_source(settings, until_end=True)
    read = 0
    try:
        while not source.finished and read != limit:
            records = source.poll(256 if limit is None else min(limit - read, 256), 1.0)
            if read == 0 and settings.source != SPOOL:
                _check_lines(records)
            read += len(records)
            yield from records
    finally:
        source.close()


def _spool(settings: Settings) -> Source:
    from monitor.stream.spool_source import SpoolSource
    from monitor.stream.wiring import SPOOL

    return SpoolSource(
        settings.state_dir / SPOOL,
        max_bytes=settings.max_message_bytes,
        name=settings.source_name,
        follow=False,
        look_only=True,
    )


def _check_lines(records: Sequence[Record]) -> None:
    """Raises SourceError where the first lines are those of one document that was laid out for people."""
    from monitor.errors import SourceError

    begin = [(each.payload or b"").removeprefix(_BOM).strip() for each in records[:2]]
    if begin and begin[0] in _OPENED and not any(map(_is_json, begin)):
        raise SourceError("source: one JSON document over several lines; awry reads one message a line (jq -c .)")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
