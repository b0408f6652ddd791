"""`awry kafka`, `awry replay`, `awry show`, `awry stack`: the stream around the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.app import app, say

Flag = typer.Option


@app.command()
def kafka(
    port: Annotated[int, Flag(help="port on loopback; 0 takes a free one")] = 9092,
    topic: Annotated[list[str] | None, Flag(help="topic to create if it is not there; may be given again")] = None,
    partitions: Annotated[int, Flag(help="partitions of topics that are created")] = 4,
    state_dir: Annotated[Path | None, Flag(help="where its data is: the folder kafka in it")] = None,
) -> None:
    """Run the embedded Apache Kafka in the foreground; Ctrl-C stops it cleanly."""
    from monitor.service.run import until_signal
    from monitor.settings import load_settings
    from monitor.stream.kafka.client import Cluster
    from monitor.stream.kafka.embedded import Broker, running

    settings = load_settings(state_dir=state_dir)
    broker = Broker(settings.state_dir / "kafka", port=port, partitions=partitions)
    with until_signal() as stopped, running(broker, say):
        Cluster(broker.address).create_topics(topic or [], partitions)
        typer.echo(broker.address)
        say("Kafka is up; Ctrl-C stops it")
        while not stopped(1.0):
            broker.check()


@app.command()
def replay(
    probe: Annotated[str, Flag(help="probe name or card to score with")],
    start_from: Annotated[str, Flag("--from", help="earliest, or a time: 2026-01-31T00:00Z")],
    source: Annotated[str | None, Flag(help="kafka:TOPIC[,TOPIC] or JSON lines; default: the live source")] = None,
    stored: Annotated[bool, Flag("--stored", help="messages whose text is in the tables, instead of a stream")] = False,
    model: Annotated[str | None, Flag(help="built-in name, folder or hub id")] = None,
    adapter: Annotated[str | None, Flag(help="shipped adapter or PEFT folder")] = None,
    scale: Annotated[float | None, Flag(help="strength of the adapter")] = None,
    listen: Annotated[str | None, Flag(help="HOST:PORT of /metrics, /healthz and /readyz")] = None,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models, the embedded database, the embedded Kafka")] = None,
    logs: Annotated[str | None, Flag(help="auto, terminal or json")] = None,
) -> None:
    """Score stored or retained traffic with a new probe, from a time up to now, and stop.

    It has a consumer group of its own, so that live offsets stay; it pages nobody and writes to no topic.
    """
    from monitor.service.replay import run_replay
    from monitor.settings import load_settings
    from monitor.telemetry.logs import configure

    settings = load_settings(
        source=source,
        start_from=start_from,
        model=model,
        adapter=adapter,
        scale=scale,
        probes=(probe,),
        listen=listen,
        database_url=database_url,
        state_dir=state_dir,
        logs=logs,
    )
    configure()
    run_replay(settings, say, stored=stored)


@app.command()
def show(
    coordinates: Annotated[str, typer.Argument(help="TOPIC/PARTITION/OFFSET, as tables and alerts show them")],
    state_dir: Annotated[Path | None, Flag(help="where the embedded Kafka is")] = None,
) -> None:
    """Print one message of the stream: its payload on standard output, its time and headers on standard error."""
    import json

    from monitor.settings import load_settings
    from monitor.stream.kafka.lookup import fetch, parse_coordinates
    from monitor.stream.kafka.start_offset import time_of
    from monitor.stream.wiring import cluster_of

    at = parse_coordinates(coordinates)
    record = fetch(cluster_of(load_settings(state_dir=state_dir)), at)
    when = time_of(record.timestamp)
    say(f"{at}, {f'{when:%Y-%m-%d %H:%M:%S} UTC' if when else 'no time'}, key {record.key!r}")
    for name, value in record.headers or ():
        say(f"{name}: {value!r}")
    try:
        typer.echo(json.dumps(json.loads(record.value or b""), indent=2, ensure_ascii=False))
    except ValueError:
        typer.echo(record.value or b"")


@app.command()
def stack(
    out: Annotated[Path, Flag(help="folder for the picture, the answers and the logs")] = Path("out"),
    state_dir: Annotated[Path | None, Flag(help="models, caches; the stack's own data in the folder stack")] = None,
    once: Annotated[bool, Flag("--once", help="stop after the table instead of waiting for Ctrl-C")] = False,
) -> None:
    """The demo through the whole chain: Kafka, worker, sender and page as processes, PostgreSQL. Ctrl-C ends it."""
    from monitor.settings import load_settings
    from monitor.stack import run_stack

    run_stack(load_settings(state_dir=state_dir), out, once=once)
