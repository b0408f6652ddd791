"""`awry check`: what awry reads of a stream, without a model and without storing anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from monitor.settings import Settings
    from monitor.stream.record import Record

commands = Commands()
_TOPIC_RECORDS = 20


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

    Takes what awry run takes as a source, and its settings. Of a topic it reads the last 20 records (--limit, --from),
    in no group and without committing. No text of a message is printed. Exit status 1: a message could not be read.
    """
    from monitor.cli.render.checked import Summary, document, print_checked, print_document
    from monitor.service.bootstrap import parse_options
    from monitor.settings import load_settings
    from monitor.stream.parse import Parser

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
        summary.records += 1
    say(summary.text)
    if summary.invalid:
        raise typer.Exit(1)


def _records(settings: Settings, limit: int | None) -> Iterator[Record]:
    from monitor.stream.wiring import check_source, cluster_of, open_source, topics_of

    topics = topics_of(settings)
    if topics:
        from monitor.stream.kafka.sample import sample
        from monitor.stream.kafka.start_offset import parse_start

        start = parse_start(settings.start_from or "latest")
        yield from sample(cluster_of(settings), topics, start, limit or _TOPIC_RECORDS, settings.max_message_bytes)
        return
    check_source(settings)
    source, left = open_source(settings, until_end=True), limit
    try:
        while not source.finished and left != 0:
            records = source.poll(256 if left is None else min(left, 256), 1.0)
            left = None if left is None else left - len(records)
            yield from records
    finally:
        source.close()
