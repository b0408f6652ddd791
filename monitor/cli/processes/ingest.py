"""`awry ingest`: the receiver of what gateways push over HTTP."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.inputs import opened_by
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def ingest(
    ingest_listen: o.IngestListen = None,
    ingest_topic: o.IngestTopic = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Take messages over HTTP (OTLP, LiteLLM's webhook, JSON, NDJSON) and write them to Kafka. Ctrl-C ends it.

    Requests need a token: awry tokens create NAME --scope ingest. Without Kafka messages go to a spool in the state
    folder. 2xx is answered when Kafka acknowledged, or the spool is on disk.
    """
    from monitor.ingest.server import serving
    from monitor.service.run import until_signal
    from monitor.settings import load_settings
    from monitor.telemetry.logs import configure

    settings = load_settings(
        ingest_listen=ingest_listen, ingest_topic=ingest_topic, database_url=database_url, state_dir=state_dir
    )
    configure()
    with (
        opened_by(settings) as engine,
        until_signal() as stopped,
        serving(settings, engine) as server,
    ):
        say(f"takes messages on http://{server.address}, writes to {server.target}")
        while not stopped(3600):
            pass
