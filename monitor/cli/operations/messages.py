"""`awry messages`: single messages of the stream."""

from __future__ import annotations

import json

import typer

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands("Messages of the stream: look at one.")


@commands.command()
def show(coordinates: o.Coordinates, state_dir: o.StateDir = None) -> None:
    """Print one message of the stream: its payload on standard output, its time and headers on standard error."""
    from monitor.settings import load_settings
    from monitor.stream.kafka.lookup import fetch_record, parse_coordinates
    from monitor.stream.kafka.start_offset import timestamp_of
    from monitor.stream.wiring import cluster_of

    at = parse_coordinates(coordinates)
    record = fetch_record(cluster_of(load_settings(state_dir=state_dir)), at)
    when = timestamp_of(record.timestamp)
    say(f"{at}, {f'{when:%Y-%m-%d %H:%M:%S} UTC' if when else 'no time'}, key {record.key!r}")
    for name, value in record.headers or ():
        say(f"{name}: {value!r}")
    try:
        typer.echo(json.dumps(json.loads(record.value or b""), indent=2, ensure_ascii=False))
    except ValueError:
        typer.echo(record.value or b"")
